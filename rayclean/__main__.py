"""`python -m rayclean` is the `rayclean` command."""

from rayclean.cli.main import main

main()
