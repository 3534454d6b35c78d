"""The first three lines: a table or a file and the names of two columns, without a config file.

    run = rayclean.find_label_errors(df, text="body", label="category")
    run.suspects()

Whatever is given becomes a config (`as_config`), so that everything else is as with a file of one: the run folder, reuse of what
is finished, a crash that loses nothing.
"""

import difflib
import os
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from rayclean.config import Config, load_config, parse_config
from rayclean.config.arguments import ENCODER_WITHOUT_CONFIG, required_columns
from rayclean.datasets.in_memory import is_in_memory, roles_of, stage
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.pipeline import run_verbs
from rayclean.results import RunResults
from rayclean.run import VERBS

_STAGED = "data"
"""Folder of a run for tables that were in memory."""


def clean(
    data: Any,
    *,
    text: str | Sequence[str] | None = None,
    label: str | Sequence[str] | None = None,
    id: str | None = None,
    again: bool = False,
    **settings: Any,
) -> RunResults:
    """Find wrong labels, correct those that are surely wrong, train on the result and measure: all six verbs. What is finished is
    reused; after a crash the same call goes on.

    Args:
        data: a DataFrame of pandas or polars, a table of Arrow, a data set of the Hugging Face library (a `DatasetDict`: its
            train split is cleaned, its validation and test splits are the development and test data) or of Ray Data, the path
            of a data file or a config file, or a `Config`.
        text: the column with the texts, or several; not for a config, which names them.
        label: the column with the labels; several columns of 0 and 1 for a task with sets of classes.
        id: the column with a key of your own, by which rows keep their identity when others come and go.
        again: whether verbs run that are finished.
        settings: sections and keys of a config: `name="tickets"`, `detect={"budget": 0.05}`, `annotator={"name": "served"}`.
            Without `encoder`, MiniLM reads the texts and only a head is trained.

    Raises:
        RaycleanError: the data or a setting cannot be used, or what a verb raises.
        TypeError: `data` is nothing of these.
    """
    return run_verbs(as_config(data, text=text, label=label, id=id, **settings), VERBS, again=again)


def find_label_errors(
    data: Any,
    *,
    text: str | Sequence[str] | None = None,
    label: str | Sequence[str] | None = None,
    id: str | None = None,
    again: bool = False,
    **settings: Any,
) -> RunResults:
    """Find the doubtful labels and change none: load, predict and detect. `suspects()` of the result lists them.

    Args and errors: those of `clean`.
    """
    config = as_config(data, text=text, label=label, id=id, **settings)
    return run_verbs(config, ("load", "predict", "detect"), again=again)


def as_config(
    data: Any,
    *,
    text: str | Sequence[str] | None = None,
    label: str | Sequence[str] | None = None,
    id: str | None = None,
    **settings: Any,
) -> Config:
    """The config for some data. Tables in memory are staged in the run folder (`<output>/<name>/data/`), where the name, if none
    is given, says what they hold: the same table is the same run.

    Args and errors: those of `clean`.
    """
    columns = {
        key: list(value) if isinstance(value, list | tuple) else value
        for key, value in (("text", text), ("label", label), ("id", id))
        if value is not None
    }
    if isinstance(data, Config) or _is_config_file(data, columns):
        if columns or settings:
            given = ", ".join([*columns, *settings])
            raise ConfigError(
                f"{given}: a config names these itself; change it there, or with load_config(path, ['key=value'])"
            )
        return data if isinstance(data, Config) else load_config(data)
    paths_given = data if isinstance(data, list) else [data]
    if not all(isinstance(each, str | os.PathLike) for each in paths_given) and not is_in_memory(data):
        got = f"list of {type(data[0]).__name__}" if isinstance(data, list) else type(data).__name__
        raise TypeError(
            f"expected a table, the path of a file or a rayclean.Config, got {got}; give a DataFrame with the names of its "
            "columns (text=..., label=...), as pandas.DataFrame(rows) makes one of lists, dicts and arrays, or "
            "rayclean.parse_config({...}) for the values of a config"
        )
    dataset = _with_columns(
        settings.pop("dataset", {}),
        columns,
        required_columns(settings.get("predict")),
        unknown=settings.keys() - Config.model_fields.keys(),
    )
    settings.setdefault("encoder", dict(ENCODER_WITHOUT_CONFIG))
    if not is_in_memory(data):
        named = [os.fspath(each) for each in paths_given]
        paths = named if isinstance(data, list) else named[0]
        return parse_config({**settings, "dataset": {"path": paths, **dataset}}, name=_name(settings, paths))
    return _staged(data, dataset, settings)


def _is_config_file(data: Any, columns: Mapping[str, Any]) -> bool:
    """Whether a path is that of a config; a .json may be either, and a config names its columns itself."""
    path = str(data) if isinstance(data, str | os.PathLike) else ""
    return path.endswith(".toml") or (path.endswith(".json") and not columns)


def _with_columns(
    dataset: Any, columns: Mapping[str, Any], required: Collection[str], unknown: Collection[str]
) -> dict[str, Any]:
    """The section `dataset` with the columns.

    Args:
        dataset: the section without them.
        columns: by their keys.
        required: the keys that must be there.
        unknown: names of other arguments that are none, one of which may be meant for a missing column.

    Raises:
        ConfigError: one of them is missing, or named twice.
    """
    if not isinstance(dataset, Mapping):
        raise ConfigError(f"dataset: expected a dict of its keys, got {type(dataset).__name__}")
    if twice := sorted(columns.keys() & dataset.keys()):
        raise ConfigError(f"{twice[0]!r} is given twice, as {twice[0]}=... and in dataset={{...}}; keep one")
    found = {**dataset, **columns}
    missing = [key for key in required if key not in found and not (key == "text" and "tokens" in found)]
    if missing:
        meant = difflib.get_close_matches(missing[0], unknown, n=1)
        hint = f"; is {meant[0]}=... a slip of the pen?" if meant else ""
        raise ConfigError(
            f"{missing[0]}=... is missing: name the column of the {missing[0]}s, like {missing[0]}='{missing[0]}'{hint}"
        )
    return found


def _name(settings: Mapping[str, Any], paths: str | list[str]) -> str:
    from rayclean.config.run_name import name_of_file

    first = paths if isinstance(paths, str) else paths[0]
    return str(settings.get("name") or name_of_file(first))


def _staged(data: Any, dataset: dict[str, Any], settings: dict[str, Any]) -> Config:
    """The config for tables in memory, which are written to the run folder."""
    tables = roles_of(data)
    # Checked before anything is written; the path is only known afterwards.
    config = parse_config({**settings, "dataset": {"path": "data.parquet", **dataset}})
    named = "name" in settings
    place = config.name if named else f".data-{uuid.uuid4().hex[:8]}"
    run = RunResults(os.path.join(config.output, place))
    try:
        digests = {role: stage(table, run.sub(_STAGED), role, _read_ray) for role, table in tables.items()}
        if not named:
            run = _under_its_name(run, config, "".join(digests.values()))
    finally:
        if not named:
            Folder(config.output).remove(place)
    paths = {role: run.url(_STAGED, f"{role}.parquet") for role in tables}
    found: dict[str, Any] = {"path": paths.pop("data"), **dataset}
    for role, path in paths.items():
        found[role] = {"path": path, **found.get(role, {})}
    return parse_config({**settings, "name": run.name, "dataset": found})


def _under_its_name(run: RunResults, config: Config, digest: str) -> RunResults:
    """The staged tables in the run folder that is named after what they hold."""
    target = RunResults(os.path.join(config.output, f"data-{digest[:8]}"))
    for name in run.names(_STAGED):
        if not target.exists(_STAGED, name):
            target.make(_STAGED)
            run.fs.mv(run.path(_STAGED, name), target.path(_STAGED, name))
    return target


def _read_ray(dataset: Any) -> Iterator[pa.Table]:
    from rayclean.runtime.ray_data import read_in_order

    return read_in_order(dataset)
