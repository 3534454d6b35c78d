"""`python -m rayclean` is the `rayclean` command."""

from rayclean.cli import main

main()
