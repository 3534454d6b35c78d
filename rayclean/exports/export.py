"""Export: the source is read again, joined with the run, written in parts, and put in place as a whole.

Parts lie in the run folder until the export is finished, so that the same command after a crash writes only what is missing.
The target appears last (`target.py`). Neither shards nor the number of workers change a byte of it.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayclean.config import Config
from rayclean.config.export_section import ADDED_COLUMNS, ExportConfig, OnlyRows
from rayclean.datasets.columns import names_of
from rayclean.datasets.label_forms import label_form
from rayclean.datasets.labels import LABEL_CODES_FILE
from rayclean.datasets.sources import Source, SourcePiece, cut_into_pieces, find_sources
from rayclean.errors import ConfigError
from rayclean.exports.added_columns import AddedColumns, added_names, label_codes
from rayclean.exports.conll_files import token_columns
from rayclean.exports.json_types import merged_types, schema_of
from rayclean.exports.own_data import check_apart
from rayclean.exports.parts import ExportJob, PieceJob, infer_types, write_parts
from rayclean.exports.plan import ExportPlan, plan_export, with_added_columns
from rayclean.exports.run_labels import shards_by_piece
from rayclean.exports.shard_labels import RunShards
from rayclean.exports.target import check_target, put_in_place
from rayclean.fingerprints import fingerprint, stamps
from rayclean.folder import Folder
from rayclean.progress import progress_bar
from rayclean.run import Run
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.schema import LabelSet
from rayclean.tasks import TASKS

_VERSION = 1
_CONTENTS = {"predict": "predictions", "detect": "findings", "relabel": "labels"}
"""Verb -> folder of its results that are exported. Those of load follow from its fingerprint."""


@dataclass(frozen=True)
class Exported:
    """What an export has written."""

    to: str
    rows: int
    """Rows that were written."""
    sources: dict[str, int]
    """`label_source` -> rows."""
    columns: dict[str, str]
    """Added column -> the name that it has."""


def export_data(
    config: Config,
    run: Run,
    options: ExportConfig,
    engines: Engines = IN_PROCESS,
    columns: Sequence[str] = ADDED_COLUMNS,
    *,
    decided: bool = True,
) -> Exported:
    """Write the rows of `dataset.path` with what the run says of them.

    Args:
        config: of the run.
        run: with a finished relabel, or a finished predict by a trained classifier (`check_finished`).
        options: where to, and what.
        engines: what the work runs on.
        columns: that are added (`ADDED_COLUMNS`, `OF_SUSPECTS`).
        decided: whether relabel is finished; otherwise final labels are the given ones.

    Raises:
        ArtifactError: the run is not far enough.
        ConfigError: options contradict each other, or the target is there already.
        DataError: a source cannot be read.
    """
    sources = find_sources(config.dataset)
    _check(config, run, sources, options)
    source = sources[0]
    plan, added = _plan(config, run, source, options, engines, columns)
    job = ExportJob(options, plan, added, TASKS.build(config.task, _labels(run)), "")
    items = _items(config, run, source, decided)
    key = export_key(config, run, options, columns, decided=decided)
    folder = run.sub(".partial", f"export-{key}")
    for other in run.names(".partial"):
        if other.startswith("export-") and other != folder.name:
            run.remove(".partial", other)
    counts = _write(engines, replace(job, out=folder.url()), items, folder)
    labels = Counter[str]()
    for each in counts:
        labels.update(each["sources"])
    exported = Exported(options.to, labels.total(), dict(sorted(labels.items())), added.names)
    about = _about(run, exported, _results(run, _verbs(config, decided)))
    put_in_place(plan, options, folder, counts, about)
    run.remove(".partial", folder.name)
    return exported


def export_key(
    config: Config,
    run: Run,
    options: ExportConfig,
    columns: Sequence[str] = ADDED_COLUMNS,
    *,
    decided: bool = True,
) -> str:
    """A hash of everything on which the result of an export depends.

    Fingerprints of verbs alone would not do: a verb that runs again under the same one may find or decide something else.
    """
    asked = [options.model_dump(exclude={"overwrite"}), list(columns), config.dataset.identity()]
    verbs = _verbs(config, decided)
    contents = [stamps(run.url(verb, _CONTENTS[verb])) for verb in verbs if verb in _CONTENTS]
    return fingerprint("export", _VERSION, _results(run, verbs), contents, asked)


def _check(config: Config, run: Run, sources: Sequence[Source], options: ExportConfig) -> None:
    check_apart(config.dataset, sources, options)
    check_target(options, run.url())
    if options.in_place_column and config.dataset.noise is not None:
        raise ConfigError(
            "export.in_place_column: dataset.noise injected wrong labels that the files do not hold, so final labels in "
            "their column would stand beside labels that the run never saw; export without it"
        )


def _plan(
    config: Config, run: Run, source: Source, options: ExportConfig, engines: Engines, columns: Sequence[str]
) -> tuple[ExportPlan, AddedColumns]:
    plan = plan_export(options, source)
    if any(output.schema is None and output.format != "jsonl" for output in plan.outputs):
        plan = _with_types(plan, source, engines)
    labels = _labels(run)
    codes: list[str | None] = run.read_json("load", LABEL_CODES_FILE).get("data") or [None] * len(labels)
    taken = plan.columns or _keys(source)
    in_place = names_of(config.dataset.label) if options.in_place_column else ()
    if in_path := [name for name in in_place if any(name in each.left_out for each in plan.files.values())]:
        raise ConfigError(
            f"export.in_place_column: folders of the data set name the label ({in_path[0]}=...), and every file is written under "
            "its own name, so a row whose label has changed would stay in the folder of the wrong one; export to one file, or "
            "without it"
        )
    added = AddedColumns(
        label_form(TASKS.resolve(config.task.name).label_form, config.dataset),
        added_names(columns, taken, options.names, bool(in_place)),
        labels.names,
        label_codes(codes, labels.names),
        in_place,
    )
    outputs = [with_added_columns(output, added.schema()) for output in plan.outputs]
    if any(output.format == "conll" for output in outputs):
        tags, tokens = added.names.get("label") or in_place[0], config.dataset.tokens
        own = plan.columns if source.format == "conll" else _tag_columns(config)
        outputs = [replace(each, token_columns=token_columns(each, tokens, tags, own)) for each in outputs]
    return replace(plan, outputs=tuple(outputs)), added


def _tag_columns(config: Config) -> list[str]:
    """The columns of the given and of the true tags."""
    named = (config.dataset.label, config.dataset.truth)
    return [name for each in named if each is not None for name in names_of(each)]


def _with_types(plan: ExportPlan, source: Source, engines: Engines) -> ExportPlan:
    """The plan with types for the keys of JSON objects, which takes reading them all."""
    pieces = cut_into_pieces([source])
    with progress_bar("export: types", len(pieces), "parts") as bar:
        types: dict[int, Any] = {}
        for index, found in engines.map_items(_indexed_types, pieces):
            types[index] = found
            bar.advance()
    schema = schema_of(merged_types(types[piece.index] for piece in pieces))
    outputs = tuple(
        replace(output, schema=schema) if output.schema is None else output for output in plan.outputs
    )
    return replace(plan, outputs=outputs, columns=tuple(schema.names))


def _indexed_types(piece: SourcePiece) -> tuple[int, Any]:
    return piece.index, infer_types(piece)


def _keys(source: Source) -> Sequence[str]:
    """The keys of the first objects of JSON files."""
    reader = source.reader()
    return [name for file in source.files if file.size for name in reader.columns(file)]


def _labels(run: Run) -> LabelSet:
    return LabelSet.from_json(run.require("load").read_text("labels.json"))


def _verbs(config: Config, decided: bool) -> tuple[str, ...]:
    """The verbs whose results are exported."""
    if config.predict.mode == "model":
        return "load", "predict"
    return ("load", "detect", "relabel") if decided else ("load", "detect")


def _results(run: Run, verbs: Sequence[str]) -> list[str]:
    """Fingerprints of what is exported."""
    return [manifest.fingerprint for verb in verbs if (manifest := run.manifest(verb)) is not None]


def _items(config: Config, run: Run, source: Source, decided: bool) -> list[PieceJob]:
    """The pieces of the source, with the shards that hold their rows."""
    load, shards = run.require("load"), shards_by_piece(run.require("load"))
    scored = config.predict.mode == "model"
    predict = run.require("predict").url() if scored else None
    detect = None if scored else run.require("detect").url()
    relabel = run.require("relabel").url() if decided and not scored else None
    return [
        PieceJob(piece, RunShards(load.url(), predict, detect, relabel, shards.get(piece.name, ())))
        for piece in cut_into_pieces([source])
    ]


def _write(engines: Engines, job: ExportJob, items: list[PieceJob], folder: Folder) -> list[dict[str, Any]]:
    """Write the parts that are not there yet; returns the counts of all pieces in order."""
    done: dict[str, dict[str, Any]] = {}
    with progress_bar("export", None, "rows") as bar:
        for item in items:
            if folder.exists(f"{item.piece.name}.json"):
                done[item.piece.name] = folder.read_json(f"{item.piece.name}.json")
                bar.advance(done[item.piece.name]["rows"], resumed=True)
        remaining = [item for item in items if item.piece.name not in done]
        for counts in engines.map_items(partial(write_parts, job), remaining):
            done[counts["name"]] = counts
            bar.advance(counts["rows"])
    return [done[item.piece.name] for item in items]


def _about(run: Run, exported: Exported, fingerprints: list[str]) -> dict[str, Any]:
    return {
        "run": run.url(),
        "fingerprints": fingerprints,
        "rows": exported.rows,
        "sources": exported.sources,
        "columns": exported.columns,
    }


def exported_table(
    config: Config,
    run: Run,
    only: OnlyRows = "all",
    columns: Sequence[str] = ADDED_COLUMNS,
    *,
    decided: bool = True,
) -> pa.Table:
    """The rows of the data set with what the run says of them, in memory, under the names that the config gives to added
    columns; arguments and errors are those of `export_data` and `ExportConfig`.
    """
    with tempfile.TemporaryDirectory(prefix="rayclean-") as folder:
        path = os.path.join(folder, "rows.parquet")
        names = {} if config.export is None else config.export.names
        options = ExportConfig(to=path, only=only, names=names)
        export_data(config, run, options, columns=columns, decided=decided)
        return pq.read_table(path)
