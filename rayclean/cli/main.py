"""The entry point of the command `rayclean`.

Slow imports are inside the commands, so that `rayclean --help` answers at once.
"""

import logging
import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from rayclean import __version__
from rayclean.cli import audits, jobs, options, runs, sweeps, verbs
from rayclean.errors import RaycleanError

command_line = typer.Typer(
    help="Find wrong labels by self-prediction, have an LLM choose between two candidates, train in spite of the rest.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
verbs.add_verbs(command_line)
command_line.command(name="options")(options.show_options)
command_line.command(name="config")(runs.show_config)
command_line.command(name="status")(runs.show_status)
command_line.command(name="audit")(audits.audit_labels)
command_line.command(name="certify")(audits.certify_labels)
command_line.command(name="revert")(runs.revert_labels)
command_line.command(name="sweep")(sweeps.sweep)
command_line.command(name="sweep-report")(sweeps.sweep_report)
command_line.command(name="submit")(jobs.submit)
command_line.command(name="logs")(jobs.logs)


@command_line.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    """Exit as after Ctrl-C, through every `finally`; otherwise a language model on a cluster would keep
    running.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # ignore further SIGTERMs during the clean-up
    os.write(2, b"stopped by SIGTERM; finished work is kept, the same command goes on from here\n")
    raise SystemExit(128 + number)


def main() -> None:
    """Run the command line; a `RaycleanError` is printed without a traceback, and SIGTERM (`ray job stop`,
    `scancel`, `kubectl delete`) causes an orderly exit.
    """
    signal.signal(signal.SIGTERM, _on_sigterm)
    debug = bool(os.environ.get("RAYCLEAN_DEBUG"))
    logging.basicConfig(
        level=logging.INFO if debug else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        command_line()
    except RaycleanError as error:
        if debug:
            raise
        kind = type(error).__name__.removesuffix("Error").lower()
        typer.secho(f"{kind} error: {error}", fg="red", err=True)
        sys.exit(2)
