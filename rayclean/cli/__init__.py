"""The command line; `main.py` is its entry point, and the other files hold its commands by topic."""
