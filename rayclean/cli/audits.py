"""The commands `audit` and `certify`: a form for a person, and what the answers show."""

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

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
    from rich.table import Table

    from rayclean.audits.commands import Audited, CertificateState, Reading

AnswersOption = Annotated[
    list[str] | None,
    typer.Option("--answers", help="A filled-in form, as CSV or JSON lines (repeatable)."),
]
AuditorOption = Annotated[str, typer.Option(help="Who filled the form in.")]
OracleOption = Annotated[
    bool,
    typer.Option("--oracle", help="For experiments: the true labels of the data set answer the questions."),
]
SHOWN_CONFLICTS = 10


def audit_labels(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    text: TextOption = None,
    label: LabelOption = None,
    id_: IdOption = None,
    answers: AnswersOption = None,
    auditor: AuditorOption = "person",
    oracle: OracleOption = False,
) -> None:
    """Have a person judge a random sample of the labels, and learn from it how good all of them are."""
    from rich.console import Console

    from rayclean.run_actions import audit

    overrides = with_columns(config, overrides, text, label, id_)
    resolved = read_config(config, overrides)
    found = audit(resolved, answers or (), auditor=auditor, oracle=oracle)
    console = Console()
    _print_reading(found.reading, bool(answers))
    if found.figures is not None:
        console.print(audit_table(found.figures))
    _print_questions(found, "audit", config, overrides)
    if found.figures is not None:
        typer.echo(f"train and evaluate by the answers with: {_clean(config, overrides)}")


def certify_labels(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    text: TextOption = None,
    label: LabelOption = None,
    id_: IdOption = None,
    answers: AnswersOption = None,
    auditor: AuditorOption = "person",
    oracle: OracleOption = False,
) -> None:
    """Certify the changed labels: how many of them are right with what certainty, by a person's answers."""
    from rayclean.evaluation.verdict import certificate_sentence
    from rayclean.run_actions import certify

    overrides = with_columns(config, overrides, text, label, id_)
    found = certify(read_config(config, overrides), answers or (), auditor=auditor, oracle=oracle)
    _print_reading(found.reading, bool(answers))
    typer.echo(certificate_sentence(found.statement))
    _print_questions(found, "certify", config, overrides)
    if found.statement["accepted"] and not found.questions:
        typer.echo(f"train and evaluate with it: {_clean(config, overrides)}")


def audit_table(figures: Mapping[str, Any]) -> "Table":
    """The figures of an audit for the terminal."""
    from rich import box
    from rich.table import Table

    from rayclean.evaluation.verdict import audit_rows, case_sentence

    table = Table(box=box.SIMPLE, title=case_sentence(figures), title_justify="left", caption_justify="left")
    for column in ("", "estimate", "95 % interval"):
        table.add_column(column)
    for row in audit_rows(figures):
        table.add_row(*row)
    return table


def _clean(config: str, overrides: list[str] | None) -> str:
    return shlex.join(["rayclean", "clean", config, *(overrides or [])])


def _print_questions(
    found: "Audited | CertificateState", command: str, config: str, overrides: list[str] | None
) -> None:
    if found.questions:
        again = shlex.join(["rayclean", command, config, *(overrides or []), "--answers", found.forms[0]])
        typer.echo(f"{found.questions} questions are open: {found.forms[0]} (or {found.forms[1]})")
        typer.echo(f"fill in the column 'answer', then: {again} --auditor NAME")


def _print_reading(reading: "Reading", has_files: bool) -> None:
    if has_files:
        parts = [f"{reading.answers} new answers"]
        parts += [f"{reading.repeated} given before"] if reading.repeated else []
        parts += [f"{reading.unanswered} rows left empty"] if reading.unanswered else []
        typer.echo(", ".join(parts))
    if reading.unknown:
        typer.secho(
            f"{len(reading.unknown)} ids are no unit of this run and were passed over: {', '.join(reading.unknown[:5])}",
            fg="yellow",
        )
    for conflict in reading.conflicts[:SHOWN_CONFLICTS]:
        text = conflict["text"].replace("\n", " ")[:80]
        typer.secho(f"conflict: {conflict['id']} {text!r}: {'; '.join(conflict['answers'])}", fg="yellow")
    if reading.conflicts:
        typer.secho(
            f"{len(reading.conflicts)} conflicts count as not answered; answer these questions again in the form below",
            fg="yellow",
        )
