"""The command line: `main.py` is the entry point; the commands are in files by what they are about."""
