"""The command line: `main.py` is the entry point, `jobs.py` talks to the job server of a cluster."""
