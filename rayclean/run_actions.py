"""What is done with a finished run, as functions of its config: undo changes, audit and certify labels, give the data back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rayclean.config import Config, ExportConfig, require_config
from rayclean.config.export_section import ADDED_COLUMNS, OnlyRows
from rayclean.errors import ConfigError
from rayclean.evaluation.formatting import format_units
from rayclean.faults import faults_explained
from rayclean.fingerprints import stamps
from rayclean.folder import filesystem
from rayclean.pipeline import open_run
from rayclean.plugins import explain
from rayclean.progress import say
from rayclean.results import RunResults
from rayclean.verb_fingerprints import fingerprints

if TYPE_CHECKING:
    import pyarrow as pa

    from rayclean.audits.commands import Audited, CertificateState
    from rayclean.exports.export import Exported

_EXPORTED = "export.json"
"""File of a run that says what its config's `export` has written."""


def revert(config: Config, **selection: Any) -> dict[str, int]:
    """Undo changes of labels by replaying less of the ledger; see
    `rayclean.annotators.revert_changes.revert_label_changes`.

    Verbs after relabel become stale: run them again to train and evaluate on the reverted labels.

    Raises:
        ArtifactError: the labels were never written, or under another config.
    """
    from rayclean.annotators.revert_changes import revert_label_changes
    from rayclean.audits import commands

    run = open_run(config)
    with faults_explained(run.url()), run.locked():
        task = commands.require_relabelled(config, run)
        commands.decide_again(config, run, task)  # what an earlier call could not finish
        result = revert_label_changes(run, task, **selection)
        commands.decide_again(config, run, task)  # under the new list of reverts, what relabel would write
    return result


def audit(
    config: Config, answers: Sequence[str] = (), *, auditor: str = "person", oracle: bool = False
) -> "Audited":
    """Measure what cleaning did by an auditor's answers about a sample: write the form, and read it back.

    Labels are decided again by the answers, which asks no annotator; verbs after relabel become stale.

    Args:
        config: of a run whose relabel is finished.
        answers: filled-in forms, as CSV or JSON lines.
        auditor: who filled them in.
        oracle: whether the true labels answer, in experiments.

    Raises:
        RaycleanError: relabel is not finished, the auditor is the annotator, or a form is wrong.
    """
    from rayclean.audits import commands

    run = open_run(config)
    with faults_explained(run.url()), run.locked():
        return commands.audit_run(config, run, answers, auditor, oracle=oracle)


def certify(
    config: Config, answers: Sequence[str] = (), *, auditor: str = "person", oracle: bool = False
) -> "CertificateState":
    """Certify how many of the changed labels are right, by an auditor's answers about some of them.

    Args and errors: those of `audit`; what is to be shown stands in `relabel.certify`.
    """
    from rayclean.audits import commands

    run = open_run(config)
    with faults_explained(run.url()), run.locked():
        return commands.certify_run(config, run, answers, auditor, oracle=oracle)


def export(config: Config, to: str | None = None, **options: Any) -> "Exported":
    """Write the user's own data set with the final labels: every row and column as it is, and beside them the labels by name,
    where they come from, how sure they are, and why.

    Before relabel has run, final labels are the given ones, and those that are doubted have the source `suspect`.

    Args:
        config: of a run whose detect is finished, or whose rows a trained classifier scored.
        to: a file or a folder; by default `export.to` of the config.
        options: those of the section `export`, which come before the config's own.

    Raises:
        ArtifactError: the run is not far enough, or the data have changed since.
        ConfigError: an option is wrong, or the target is there already.
    """
    from rayclean.exports.export import export_data
    from rayclean.exports.finished import check_finished
    from rayclean.exports.shard_labels import SOURCE_SUSPECT
    from rayclean.exports.target import check_target
    from rayclean.runtime.engines import Workplace
    from rayclean.runtime.needs import VerbNeeds
    from rayclean.runtime.session import Session
    from rayclean.verbs.load import needs

    require_config(config)
    run = open_run(config)
    chosen = export_options(config, to, options)
    with faults_explained(run.url()), run.locked():
        decided = check_finished(config, run, fingerprints(config, run), chosen.only)
        check_target(chosen, run.url())
        with Session(config.cluster, run.name, Workplace()) as session:
            needed = [VerbNeeds(seconds=needs(config, run).seconds)]
            session.prepare(needed)
            exported = export_data(config, run, chosen, session.engines(needed), decided=decided)
    if not decided:
        count = exported.sources.get(SOURCE_SUSPECT, 0)
        say(
            f"export: nothing is decided yet, so labels are the given ones, and {count:,} rows are marked as suspects; "
            "`rayclean relabel` decides about them"
        )
    return exported


def export_configured(config: Config) -> None:
    """Export what the config asks for, unless it is there already as this run would write it."""
    from rayclean.exports.export import export_key

    run = open_run(config)
    options = _replacing_own(config, run)
    if options is None:
        return
    key = export_key(config, run, options)
    if run.exists(_EXPORTED) and run.read_json(_EXPORTED)["key"] == key and options.overwrite:
        say(f"export: done before, {options.to} is as it was")
        return
    exported = export(config, **options.model_dump(exclude_unset=True))
    run.write_json({"key": key, "to": options.to, "stamps": _stamps(options)}, _EXPORTED)
    say(f"export: {format_units(exported.rows, 'row')} in {options.to}")


def check_export(config: Config) -> None:
    """Stop before any work if the export that the config asks for could not be written.

    Raises:
        ConfigError: its target is there already, and not as an earlier export of this run left it; or it is where the data set
            is read from.
    """
    from rayclean.datasets.sources import find_sources
    from rayclean.exports.own_data import check_apart
    from rayclean.exports.target import check_target

    run = open_run(config)
    options = _replacing_own(config, run)
    if options is not None:
        check_apart(config.dataset, find_sources(config.dataset), options)
        check_target(options, run.url())


def _replacing_own(config: Config, run: RunResults) -> ExportConfig | None:
    """The section `export`, with the right to replace what this run has written before if nobody has changed it since."""
    options = config.export
    if options is None or not run.exists(_EXPORTED):
        return options
    before = run.read_json(_EXPORTED)
    own = before["to"] == options.to and before["stamps"] == _stamps(options)
    return options.model_copy(update={"overwrite": True}) if own else options


def _stamps(options: ExportConfig) -> Any:
    """What changes when somebody changes the target."""
    from rayclean.exports.plan import is_folder
    from rayclean.exports.target import MANIFEST_FILE

    path = f"{options.to.rstrip('/')}/{MANIFEST_FILE}" if is_folder(options) else options.to
    fs, plain = filesystem(path)
    return stamps(path) if fs.exists(plain) else None


def export_options(config: Config, to: str | None, options: dict[str, Any]) -> ExportConfig:
    """The section `export` with other options.

    Raises:
        ConfigError: an option is wrong, or no target is named.
    """
    base = {} if config.export is None else config.export.model_dump(exclude_unset=True)
    values = base | ({} if to is None else {"to": to}) | options
    if not values.get("to"):
        raise ConfigError(
            "export: no target is named; give a file or a folder: rayclean export RUN --to cleaned.parquet, or "
            'export = "cleaned.parquet" in the config'
        )
    try:
        return ExportConfig(**values)
    except ValidationError as error:
        raise ConfigError(explain(error, ExportConfig, "export")) from None


def exported_rows(
    config: Config, only: OnlyRows = "all", columns: Sequence[str] = ADDED_COLUMNS
) -> "pa.Table":
    """The rows that `export` writes, in memory.

    Args:
        config: of a run whose detect is finished.
        only: which rows.
        columns: that are added to those of the data (`config.export_section.ADDED_COLUMNS`, `exports.added_columns.OF_SUSPECTS`).

    Raises:
        ArtifactError: the run is not far enough, or the data have changed since.
    """
    from rayclean.exports.export import exported_table
    from rayclean.exports.finished import check_finished

    run = open_run(config)
    with faults_explained(run.url()), run.locked():
        expected = fingerprints(config, run)
        decided = check_finished(config, run, expected, only, suspects_alone=only == "suspects")
        return exported_table(config, run, only, columns, decided=decided)
