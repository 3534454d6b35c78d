"""The entry point of the command `rayclean`.

Slow imports are inside the commands, so that `rayclean --help` answers at once.
"""

import io
import logging
import os
import shlex
import sys
import tempfile
import traceback
from contextlib import suppress
from typing import Annotated

import typer

from rayclean import __version__
from rayclean.cli import (
    audits,
    differences,
    doctor,
    estimates,
    exports,
    first_look,
    jobs,
    options,
    publishing,
    runs,
    stories,
    sweeps,
    verbs,
)
from rayclean.errors import FaultError, RaycleanError
from rayclean.interrupts import Interrupts

command_line = typer.Typer(
    help="Find wrong labels by self-prediction, have an LLM choose between two candidates, train in spite of the rest.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
command_line.command(name="doctor")(doctor.show_machine)
command_line.command(name="init")(first_look.init_config)
command_line.command(name="estimate")(estimates.show_estimate)
verbs.add_verbs(command_line)
command_line.command(name="options")(options.show_options)
command_line.command(name="config")(runs.show_config)
command_line.command(name="status")(runs.show_status)
command_line.command(name="audit")(audits.audit_labels)
command_line.command(name="certify")(audits.certify_labels)
command_line.command(name="export")(exports.export_labels)
command_line.command(name="revert")(runs.revert_labels)
command_line.command(name="log")(stories.log_example)
command_line.command(name="diff")(differences.diff_runs)
command_line.command(name="push")(publishing.push_run)
command_line.command(name="sweep")(sweeps.sweep)
command_line.command(name="sweep-report")(sweeps.sweep_report)
command_line.command(name="submit")(jobs.submit)
command_line.command(name="logs")(jobs.logs)


@command_line.callback(invoke_without_command=True)
def _before_all(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Before the command or behind it: tell more of what is done and why (on stderr).",
        ),
    ] = False,
) -> None:
    if verbose:
        logging.getLogger("rayclean").setLevel(logging.INFO)
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line and exit: 0 after success, 1 after a fault of the machine, 2 after an error that a user can
    mend, 128 + its number after a signal. An error is one message, without a traceback.
    """
    debug = bool(os.environ.get("RAYCLEAN_DEBUG"))
    logging.basicConfig(
        level=logging.INFO if debug else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    for stream in (
        sys.stdout,
        sys.stderr,
    ):  # arguments and file names need not be text, and are printed nevertheless
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    command = shlex.join(["rayclean", *sys.argv[1:]])
    interrupts, code = Interrupts(command), 1
    try:
        with interrupts:
            code = _run(command, debug, interrupts)
    except KeyboardInterrupt:  # Python heard of the signal only while the end was under way
        code = 130 if interrupts.received is None else interrupts.code
    # A KeyboardInterrupt that was raised inside of a text that somebody executes (`namedtuple` and data classes do so while they
    # are imported) makes CPython end `python -m` by SIGINT, whatever the exit code; executing another text forgets it.
    exec("")
    sys.exit(code)


def _run(command: str, debug: bool, interrupts: Interrupts) -> int:
    """Run the command; returns its exit code."""
    code: object = 0
    failure: Exception | None = None
    try:
        command_line(_verbose_first(sys.argv[1:]), prog_name="rayclean")
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:  # before the command line has begun to parse, or while it ends
        code = 130
    except Exception as error:
        failure = error
    if interrupts.received is not None:  # whatever failed after it failed because of it
        interrupts.told = True
        _print_error(interrupts.message())
        return interrupts.code
    if failure is not None:
        return _explain(failure, command, debug)
    return code if isinstance(code, int) else int(code is not None)


def _verbose_first(arguments: list[str]) -> list[str]:
    """The arguments with `--verbose` before the command, where it is declared once for all commands.

    >>> _verbose_first(["clean", "tickets.toml", "-v"])
    ['--verbose', 'clean', 'tickets.toml']
    """
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    rest = [each for each in options if each not in ("-v", "--verbose")]
    return ["--verbose"] * (len(rest) < len(options)) + rest + arguments[len(options) :]


def _explain(error: Exception, command: str, debug: bool) -> int:
    """Print an error; returns the exit code."""
    from rayclean.faults import KEPT, fault

    if debug:
        traceback.print_exception(error)
    if not isinstance(error, RaycleanError):
        text = fault(error, os.curdir)
        if text is None:
            return _internal(error)
        error = FaultError(f"{text}; {KEPT}")
    _print_error(f"{type(error).__name__.removesuffix('Error').lower()} error: {error}")
    if isinstance(error, FaultError):
        _print_error(f"go on with: {command}")
        return 1
    return 2


def _internal(error: Exception) -> int:
    """Say that rayclean has made a mistake, and where its traceback is."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{last.filename}:{last.lineno}"
    with suppress(OSError):  # there may be no room for it
        handle, path = tempfile.mkstemp(prefix="rayclean-error-", suffix=".log")
        with os.fdopen(handle, "w", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
        where = f"its traceback: {path}"
    said = " ".join(str(error).split())[:300]
    _print_error(
        f"internal error: {type(error).__name__}: {said}. This is a mistake of rayclean's, please report it ({where}). "
        "Finished work is kept"
    )
    return 1


def _print_error(text: str) -> None:
    with suppress(OSError):  # whoever read it is gone
        typer.secho(text, fg="red", err=True)
