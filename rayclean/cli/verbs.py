"""The commands `load`, `predict`, `detect`, `relabel`, `train`, `evaluate`, and `clean`, which runs all of
them.
"""

import json
import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from rayclean.cli.arguments import (
    ConfigArgument,
    IdOption,
    LabelOption,
    OverridesArgument,
    TextOption,
    read_config,
    with_columns,
)

if TYPE_CHECKING:
    from rayclean.run import Run

AgainOption = Annotated[
    bool,
    typer.Option(
        "--again", help="Run it even if it is done; `relabel --again` asks only what failed or is unasked."
    ),
]
HELP = {
    "clean": "Run all six verbs; finished ones are reused, a crashed one goes on where it was.",
    "load": "Read and validate the data set; give every example its id.",
    "predict": "Train on the data and predict the very same examples.",
    "detect": "Find the doubtful labels.",
    "relabel": "Ask the annotator to choose between two candidates for each doubtful label.",
    "train": "Train on the final labels.",
    "evaluate": "Measure against whatever truth is known, and write the report.",
}


def add_verbs(app: typer.Typer) -> None:
    """Register a command for each verb, and `clean`."""
    for verb, text in HELP.items():
        app.command(name=verb, help=text)(_predict if verb == "predict" else _command(verb))


def _command(verb: str) -> Callable[..., None]:
    def command(
        config: ConfigArgument,
        overrides: OverridesArgument = None,
        text: TextOption = None,
        label: LabelOption = None,
        id_: IdOption = None,
        again: AgainOption = False,
    ) -> None:
        _run(verb, config, with_columns(config, overrides, text, label, id_), again)

    return command


def _predict(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Score with the trained classifier of this run (runs/<name>, or a folder like runs/<name>/train/model); "
            "the data need no label column."
        ),
    ] = None,
    text: TextOption = None,
    label: LabelOption = None,
    id_: IdOption = None,
    again: AgainOption = False,
) -> None:
    overrides = with_columns(config, overrides, text, label, id_)
    if model is None:
        _run("predict", config, overrides, again)
        return
    # Rows that a classifier scores need no labels, so they are loaded in another way than for training.
    chosen = ["predict.mode=model", f"predict.model={json.dumps(model)}"]
    _run("predict", config, [*(overrides or []), *chosen], again, ("load", "predict"))


def _run(verb: str, config: str, overrides: list[str] | None, again: bool, verbs: Sequence[str] = ()) -> None:
    """Run the verbs of a command, by default the one it is named after, and print the figures of the last one."""
    from rayclean.pipeline import run_verbs
    from rayclean.run import VERBS

    verbs = verbs or (VERBS if verb == "clean" else (verb,))
    _print_result(run_verbs(read_config(config, overrides), verbs, again=again), verbs[-1])


def _print_result(run: "Run", verb: str) -> None:
    """Print the figures of a finished verb; for `evaluate` only the most important ones."""
    from rich.console import Console

    from rayclean.progress import print_plain

    console = Console()
    if verb == "evaluate":
        from rayclean.annotations import waiting_for_person
        from rayclean.evaluation.formatting import format_units
        from rayclean.evaluation.report import run_summary

        metrics = run.read_json("metrics.json")
        console.print(run_summary(metrics, run.read_json("config.json")))
        print_plain(console, f"report: {run.url('report.html')}")
        print_plain(
            console,
            f"your rows with final labels: rayclean export {shlex.quote(run.url())} --to cleaned.parquet",
        )
        if referred := waiting_for_person(metrics["counts"]):
            print_plain(
                console,
                f"{format_units(referred, 'doubtful label')} {'waits' if referred == 1 else 'wait'} for a person: "
                f"rayclean audit {shlex.quote(run.url())}",
            )
        return
    manifest = run.manifest(verb)
    assert manifest is not None
    print_plain(console, f"{verb}: {run.url(verb)} ({manifest.seconds:,.1f} s)")
    for key, value in manifest.metrics.items():
        if isinstance(value, int | float | str | bool) or value is None:
            shown = f"{value:,}" if type(value) is int else value
            print_plain(console, f"  {key}: {shown}")
