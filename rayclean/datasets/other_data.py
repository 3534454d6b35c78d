"""Whether a run folder holds the run of another data set, whose results a load would replace.

A data set is known by what it holds: it stays itself when rows are sorted, added, removed or put into other files, and
somebody else's `data/train.csv` is another one. So a sample of the texts is looked for among those of the run. Where the
files lie is looked at only if none of them is found.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from rayclean.config import DatasetConfig
from rayclean.config.run_name import name_of_file
from rayclean.datasets import BUILTIN
from rayclean.datasets.base import FileSegment
from rayclean.datasets.columns import choose_columns
from rayclean.datasets.huggingface import PREFIX
from rayclean.datasets.label_forms import LabelForm
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.datasets.row_validation import RowValidator
from rayclean.datasets.sources import Source
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.hashing import text_group
from rayclean.run import Run

logger = logging.getLogger(__name__)

SOURCES_FILE = "sources.json"
"""File in `load/` that says where the data set of a run was read."""
_FILES, _ROWS = 8, 1000
"""Most files of a sample, and most rows of one of them."""
_LEAST_SHARED = 0.1
"""Least share of a sample that the same data set has: short texts ("ok", "thank you") occur in many."""


def source_places(config: DatasetConfig) -> list[str]:
    """Where the data set lies, as absolute paths and URLs, or by name where it is built in or on a hub.

    >>> source_places(DatasetConfig(path=["/data/a.csv", "hf://ag_news"]))
    ['/data/a.csv', 'hf://ag_news']
    """
    paths = [config.path] if isinstance(config.path, str) else config.path
    return [_place(path) for path in paths]


def refuse_other_data(config: DatasetConfig, source: Source, form: LabelForm, run: Run) -> None:
    """Stop before a run of another data set is replaced; say so where the files are the same and hold other texts now.

    Args:
        config: of the data set that is to be loaded.
        source: its files.
        form: of its labels.
        run: the run folder.

    Raises:
        ConfigError: the folder holds the run of another data set; the message names both.
        DataError: a file cannot be read.
    """
    if run.manifest("load") is None:
        return
    load = run.require("load")
    sample = {text_group(text) for text in _sample(config, source, form)}
    if not sample or _share_at_least(load, sample, _LEAST_SHARED):
        _say_other_label(config, run)
        return
    before, now = _recorded_places(run, load), source_places(config)
    if before == now:
        logger.warning(
            "load: %s holds other texts now than when the run in %s was made; the run is replaced, and its answers, reverts "
            "and audits stay in ledger/",
            _named(now),
            run.url(),
        )
        return
    name = name_of_file(now[0])
    raise ConfigError(
        f"{run.url()} holds the run of another data set: it was made from {_named(before)}, and of the first {len(sample):,} "
        f"texts of {_named(now)} hardly any is in it. Nothing was replaced. Give this run a name of its own: "
        f'name = "{name if name != run.name else f"{name}-2"}" in the config, or name=... on the command line. If it is the '
        f"same data set with other texts, remove {run.url('load')} first: answers, reverts and audits stay in ledger/"
    )


def _say_other_label(config: DatasetConfig, run: Run) -> None:
    """Say that a run of the same texts with another column of labels is replaced."""
    before = run.read_json("config.json")["dataset"].get("label") if run.exists("config.json") else None
    now = config.model_dump(mode="json")["label"]
    if before not in (None, now):
        logger.warning(
            "load: the run in %s was made with dataset.label = %r, and is replaced by one with %r; to keep both, stop and give "
            "this one a name of its own (name=...)",
            run.url(),
            before,
            now,
        )


def _place(path: str) -> str:
    if path in BUILTIN or path.startswith(PREFIX):
        return path
    fs, plain = fsspec.core.url_to_fs(path)
    return str(plain) if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(plain))


def _recorded_places(run: Run, load: Folder) -> list[str]:
    """Where the data set of the run was read; in a run of an earlier version as its config says it."""
    if load.exists(SOURCES_FILE):
        return list(load.read_json(SOURCES_FILE))
    if not run.exists("config.json"):
        return []
    path: Any = run.read_json("config.json")["dataset"]["path"]
    return [path] if isinstance(path, str) else list(path)


def _named(places: Sequence[str]) -> str:
    named = ", ".join(map(repr, places[:3])) or "files that are not known"
    return f"{named} and {len(places) - 3} more" if len(places) > 3 else named


def _sample(config: DatasetConfig, source: Source, form: LabelForm) -> Iterator[str]:
    """The first usable texts of some files, evenly spread over all."""
    reader = source.reader()
    step = math.ceil(len(source.files) / _FILES)
    for file in source.files[::step]:
        found = reader.columns(file) if file.size else []
        if not found:
            continue
        columns = choose_columns(config, source.role, found, file.url, reader.sparse, form.reads_tokens)
        validate = RowValidator(config, columns, source.role, form)
        for _, values in islice(reader.rows(FileSegment(file), columns.names), _ROWS):
            checked = values if isinstance(values, RejectedRow) else validate(values)
            if not isinstance(checked, RejectedRow):
                yield checked.text


def _share_at_least(load: Folder, sample: set[int], share: float) -> bool:
    """Whether so many of some texts are in a run; texts are read shard by shard until this is known."""
    missing = set(sample)
    for part in ("examples", "test"):
        for shard in load.shards(part):
            texts = load.read_table(part, shard, columns=["text"])["text"]
            missing.difference_update(map(text_group, texts.to_pylist()))
            if len(sample) - len(missing) >= share * len(sample):
                return True
    return False
