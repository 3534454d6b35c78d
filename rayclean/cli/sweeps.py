"""The commands `sweep` and `sweep-report`, which run a config under many values."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from rayclean.cli.arguments import JsonOption, OverridesArgument
from rayclean.errors import RaycleanError
from rayclean.evaluation.formatting import format_units

if TYPE_CHECKING:
    from rayclean.sweeps.results import Results
    from rayclean.sweeps.spec import Sweep

SweepArgument = Annotated[str, typer.Argument(metavar="SWEEP", help="Sweep file (configs/sweeps/*.toml).")]
SHOWN_ERRORS = 3
"""Number of errors of failed trials that are printed."""


def sweep(
    file: SweepArgument,
    overrides: OverridesArgument = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="Keep the trials of a smaller space and run the new ones.")
    ] = False,
) -> None:
    """Run a config under many values; the same command resumes a sweep and reuses finished trials. Several
    sweep files run one after another; a failure of one does not stop the others.
    """
    from rayclean.sweeps.sweep import check_sweep, run_sweep

    if _each_sweep(file, overrides or [], lambda spec: run_sweep(spec, extend=extend), check_sweep):
        raise typer.Exit(1)


def sweep_report(
    file: SweepArgument, overrides: OverridesArgument = None, as_json: JsonOption = False
) -> None:
    """Show the finished trials of a sweep: table, plots, and the best config if there is an objective.
    Overrides of the sweep need not be repeated.

    With --json: sweeps, one for each sweep file, with name, folder, report, best_config, objectives, metrics, currency,
    provisional, points and failed (error by trial); of every point its values (point), seeds, reference, best, front, stopped
    and figures (mean, sd, seeds, p and difference against the reference); and errors, by sweep file what failed.
    """
    from rayclean.sweeps.sweep import report_sweep

    reported: list[Results] = []
    show: Callable[[Results], None] = reported.append if as_json else _print_results
    failed = _each_sweep(file, overrides or [], report_sweep, show=show)
    if as_json:
        from rayclean.cli.sweep_table import sweep_values
        from rayclean.cli.terminal import print_json

        print_json({"sweeps": [sweep_values(each) for each in reported], "errors": failed})
    if failed:
        raise typer.Exit(1)


def _each_sweep(
    file: str,
    overrides: list[str],
    work: "Callable[[Sweep], Results]",
    check: "Callable[[Sweep], None] | None" = None,
    show: "Callable[[Results], None] | None" = None,
) -> dict[str, str]:
    """Process the sweeps of a command one after another. If there are several, all are checked before the
    first runs, and a failure does not stop the others; the error of a single sweep is raised.

    Returns:
        What failed, by sweep file; empty where all sweeps and trials succeeded.
    """
    from rayclean.sweeps.sweep_file import load_sweep, sweep_files

    files = sweep_files(file, overrides)
    failed: dict[str, str] = {}

    @contextmanager
    def attempt(name: str) -> Iterator[None]:
        try:
            yield
        except RaycleanError as error:
            if len(files) == 1:
                raise
            failed[name] = str(error)
            typer.secho(f"{name}: {error}", fg="red", err=True)

    specs = {}
    for name, file_overrides in files:
        with attempt(name):
            spec = load_sweep(name, file_overrides)
            if check is not None and len(files) > 1:
                check(spec)
            specs[name] = spec
    for name, spec in specs.items():
        with attempt(name):
            results = work(spec)
            (show or _print_results)(results)
            if results.failed:
                failed[name] = f"{format_units(len(results.failed), 'trial')} failed"
    if failed and len(files) > 1:
        lines = [f"  {name}: {reason.splitlines()[0]}" for name, reason in failed.items()]
        typer.secho("\n".join([f"{len(failed)} of {len(files)} sweeps failed:", *lines]), fg="red", err=True)
    return failed


def _print_results(results: "Results") -> None:
    """Print the table of a sweep, the location of its report, and the errors of failed trials."""
    from rich.console import Console

    from rayclean.cli.sweep_table import print_sweep_table
    from rayclean.folder import Folder
    from rayclean.progress import print_plain
    from rayclean.sweeps.plan import sweep_root

    console, folder = Console(), Folder(sweep_root(results.sweep))
    print_sweep_table(console, results)
    if results.best is not None:
        print_plain(console, f"best config: {folder.url('best.toml')}")
    print_plain(console, f"report: {folder.url('report.html')}")
    if results.failed:
        for title, error in list(results.failed.items())[:SHOWN_ERRORS]:
            typer.secho(f"failed: {title}: {error}", fg="red", err=True)
        typer.secho(
            f"{format_units(len(results.failed), 'trial')} failed; fix the cause and run the same command: only trials without a "
            "result run again",
            fg="red",
            err=True,
        )
