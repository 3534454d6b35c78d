"""The command line: the six verbs, `clean` for all of them, `config`, `status`, `revert`, `sweep` and `sweep-report`,
and for clusters `submit` and `logs` (`cli/jobs.py`).

Everything heavy is imported inside the commands, so that `rayclean --help` answers at once.
"""

import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from rayclean import __version__
from rayclean.cli import jobs
from rayclean.cli.jobs import OverridesArgument
from rayclean.errors import RaycleanError, ResourceError

if TYPE_CHECKING:
    from rayclean.config import Config
    from rayclean.run import Run
    from rayclean.sweeps.results import Results
    from rayclean.sweeps.spec import Sweep

app = typer.Typer(
    help="Find wrong labels by self-prediction, have an LLM choose between two candidates, train in spite of the rest.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG", help="Config file (.toml), or a run folder to go on with its own config."
    ),
]
VERBS_HELP = {
    "load": "Read and validate the data set; give every example its id.",
    "predict": "Train on the data and predict the very same examples.",
    "detect": "Find the doubtful labels.",
    "relabel": "Ask the annotator to choose between two candidates for each doubtful label.",
    "train": "Train on the final labels.",
    "evaluate": "Measure against whatever truth is known, and write the report.",
    "clean": "Run all six verbs; finished ones are reused, a crashed one goes on where it was.",
}


def _read(config: str, overrides: list[str] | None) -> "Config":
    from rayclean.config import load_config
    from rayclean.pipeline import resolved_config

    if os.path.isdir(config) or "://" in config:
        if overrides:
            raise typer.BadParameter("overrides go with a config file; a run folder already has its config")
        return resolved_config(config)
    return load_config(config, overrides or [])


AgainOption = Annotated[
    bool,
    typer.Option(
        "--again", help="Run it even if it is done; `relabel --again` asks only what failed or is unasked."
    ),
]


def _run(verb: str, config: str, overrides: list[str] | None, again: bool) -> None:
    from rayclean import pipeline

    try:
        run = getattr(pipeline, verb)(_read(config, overrides), again=again)
    except KeyboardInterrupt:
        typer.secho(
            "interrupted; finished work is kept, the same command goes on from here",
            fg="yellow",
            err=True,
        )
        raise typer.Exit(130) from None
    _summary(run, verb)


def _verb_command(verb: str) -> None:
    def command(
        config: ConfigArgument, overrides: OverridesArgument = None, again: AgainOption = False
    ) -> None:
        _run(verb, config, overrides, again)

    app.command(name=verb, help=VERBS_HELP[verb])(command)


def _predict_command() -> None:
    def command(
        config: ConfigArgument,
        overrides: OverridesArgument = None,
        model: Annotated[
            str | None, typer.Option(help="Score with this trained classifier (runs/<name>/train/model).")
        ] = None,
        again: AgainOption = False,
    ) -> None:
        chosen = [] if model is None else ["predict.mode=model", f"predict.model={model}"]
        _run("predict", config, [*(overrides or []), *chosen], again)

    app.command(name="predict", help=VERBS_HELP["predict"])(command)


for _verb_name in ("clean", "load", "predict", "detect", "relabel", "train", "evaluate"):
    if _verb_name == "predict":
        _predict_command()
    else:
        _verb_command(_verb_name)


@app.command(name="config")
def show_config(config: ConfigArgument, overrides: OverridesArgument = None) -> None:
    """Print the resolved config (defaults, file and overrides) as JSON after checking all of it."""
    from rayclean.pipeline import check_plugins

    resolved = _read(config, overrides)
    check_plugins(resolved)
    typer.echo(resolved.model_dump_json(indent=1))


app.command()(jobs.submit)
app.command()(jobs.logs)


@app.command()
def status(
    config: ConfigArgument, overrides: OverridesArgument = None, address: jobs.AddressOption = None
) -> None:
    """Show what of a run is done, what comes next, and the exact command to go on."""
    from rich.console import Console
    from rich.table import Table

    from rayclean import pipeline

    resolved = _read(config, overrides)
    asks = jobs.show_job(address, resolved)
    try:
        rows = pipeline.status(resolved)
    except Exception as error:  # every object store has its own: no key, no such bucket, no way there
        if not asks or isinstance(error, RaycleanError):
            raise
        raise ResourceError(
            f"this machine cannot read the run folder or the data of {resolved.name!r}: {error}"
        ) from error
    table = Table(title=f"{resolved.output}/{resolved.name}", title_justify="left")
    for column in ("verb", "state", "seconds", ""):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for row in rows:
        table.add_row(
            row.verb, row.state, f"{row.seconds:,.1f}" if row.seconds is not None else "", row.detail
        )
    Console().print(table)
    following = next((row.verb for row in rows if row.state != "done"), None)
    if following is None:
        typer.echo(f"complete; report: {pipeline.open_run(resolved).url('report.html')}")
        return
    at = ["--address", address] if address else []
    command = shlex.join(["rayclean", "submit" if asks else "clean", config, *(overrides or []), *at])
    typer.echo(f"next: {following}\ngo on with: {command}")


@app.command()
def revert(
    config: ConfigArgument,
    example_id: Annotated[list[int] | None, typer.Option(help="Only these examples (repeatable).")] = None,
    below: Annotated[float | None, typer.Option(help="Only changes with a confidence below this.")] = None,
    from_label: Annotated[str | None, typer.Option(help="Only changes away from this label.")] = None,
    to_label: Annotated[str | None, typer.Option(help="Only changes to this label.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All changes of the run.")] = False,
    undo: Annotated[bool, typer.Option(help="Take earlier reverts of the selection back.")] = False,
) -> None:
    """Undo changes of labels: the labels are replayed from the ledger without the selected answers."""
    from rayclean import pipeline

    resolved = _read(config, None)
    result = pipeline.revert(
        resolved,
        example_ids=example_id or None,
        below=below,
        from_label=from_label,
        to_label=to_label,
        everything=everything,
        undo=undo,
    )
    typer.echo(
        f"{result['reverted']} labels {'applied again' if undo else 'reverted'}, {result['changed']} changes remain"
    )
    typer.echo(f"train and evaluate on them with: rayclean clean {shlex.quote(config)}")


SweepArgument = Annotated[str, typer.Argument(metavar="SWEEP", help="Sweep file (configs/sweeps/*.toml).")]


@app.command()
def sweep(
    file: SweepArgument,
    overrides: OverridesArgument = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="Keep the trials of a smaller space and run the new ones.")
    ] = False,
) -> None:
    """Run a config under many values; finished trials are reused, the same command goes on. Several sweep files run one
    after another; one that fails costs none of the others.
    """
    from rayclean.sweeps.sweep import check_sweep
    from rayclean.sweeps.sweep import run_sweep as run

    try:
        whole = _each_sweep(file, overrides or [], lambda spec: run(spec, extend=extend), check_sweep)
    except KeyboardInterrupt:
        typer.secho("interrupted; finished trials are kept, the same command goes on", fg="yellow", err=True)
        raise typer.Exit(130) from None
    if not whole:
        raise typer.Exit(1)


@app.command(name="sweep-report")
def sweep_report(file: SweepArgument, overrides: OverridesArgument = None) -> None:
    """Show what of a sweep is finished: table, plots, and the best config where there is an objective. Overrides with which
    it ran need not be given again.
    """
    from rayclean.sweeps.sweep import report_sweep

    if not _each_sweep(file, overrides or [], report_sweep):
        raise typer.Exit(1)


def _each_sweep(
    file: str,
    overrides: list[str],
    work: "Callable[[Sweep], Results]",
    check: "Callable[[Sweep], None] | None" = None,
) -> bool:
    """Every sweep of a command, one after another. Of several all are checked before the first one runs, and one that
    cannot run costs none of the others; of one alone the error is raised.

    Returns:
        Whether nothing failed.
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
    for name, own in files:
        with attempt(name):
            spec = load_sweep(name, own)
            if check is not None and len(files) > 1:
                check(spec)
            specs[name] = spec
    for name, spec in specs.items():
        with attempt(name):
            results = work(spec)
            _sweep_summary(results)
            if results.failed:
                failed[name] = f"{len(results.failed)} trials failed"
    if failed and len(files) > 1:
        said = [f"  {name}: {why.splitlines()[0]}" for name, why in failed.items()]
        typer.secho("\n".join([f"{len(failed)} of {len(files)} sweeps failed:", *said]), fg="red", err=True)
    return not failed


def _sweep_summary(results: "Results") -> None:
    """Print what came of a sweep."""
    from rich.console import Console

    from rayclean.folder import Folder
    from rayclean.sweeps.page.terminal import sweep_table
    from rayclean.sweeps.plan import sweep_root

    console, folder = Console(), Folder(sweep_root(results.sweep))
    console.print(sweep_table(results))
    if results.best is not None:
        console.print(f"best config: {folder.url('best.toml')}", highlight=False, soft_wrap=True)
    console.print(f"report: {folder.url('report.html')}", highlight=False, soft_wrap=True)
    if results.failed:
        for title, error in list(results.failed.items())[:3]:
            typer.secho(f"failed: {title}: {error}", fg="red", err=True)
        typer.secho(
            f"{len(results.failed)} trials failed; mend the cause and run the same command: only trials without a result "
            "run again",
            fg="red",
            err=True,
        )


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _summary(run: "Run", verb: str) -> None:
    from rich.console import Console

    console = Console()
    if verb in ("clean", "evaluate"):
        from rayclean.evaluation.report import run_table

        console.print(run_table(run.read_json("metrics.json")))
        console.print(f"report: {run.url('report.html')}", highlight=False, soft_wrap=True)
        return
    manifest = run.manifest(verb)
    assert manifest is not None
    console.print(f"{verb}: {run.url(verb)} ({manifest.seconds:,.1f} s)", highlight=False, soft_wrap=True)
    for key, value in manifest.metrics.items():
        if isinstance(value, int | float | str | bool) or value is None:
            console.print(
                f"  {key}: {value:,}" if type(value) is int else f"  {key}: {value}", highlight=False
            )


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    """Leave like after Ctrl-C, through every `finally`: a language model on a cluster would outlive this process."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # whoever loses patience sends SIGKILL
    os.write(2, b"stopped by SIGTERM; finished work is kept, the same command goes on from here\n")
    raise SystemExit(128 + number)


def main() -> None:
    """Entry point of the `rayclean` command: errors that a user can mend are printed without a traceback; `ray job stop`,
    `scancel` and `kubectl delete` (SIGTERM) end it in order.
    """
    signal.signal(signal.SIGTERM, _on_sigterm)
    debug = bool(os.environ.get("RAYCLEAN_DEBUG"))
    logging.basicConfig(
        level=logging.INFO if debug else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        app()
    except RaycleanError as error:
        if debug:
            raise
        kind = type(error).__name__.removesuffix("Error").lower()
        typer.secho(f"{kind} error: {error}", fg="red", err=True)
        sys.exit(2)
