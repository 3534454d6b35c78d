"""The command `rayclean`, also as `python -m rayclean`."""

import signal


def run() -> None:
    """Run the command line. Until it has begun, Ctrl-C ends the process without the traceback of an import."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from rayclean.cli.main import main

    main()


if __name__ == "__main__":
    run()
