"""What may stand where a config, its values or its overrides are expected, and what is said of anything else."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rayclean.errors import ConfigError
from rayclean.overrides import apply_override, read_values

_DATA = re.compile(
    r"\.(csv|tsv|txt|jsonl|ndjson|parquet|pq|arrow|feather|conll|xlsx?)(\.(gz|bz2|xz|zst|lz4|zip))?$",
    re.IGNORECASE,
)
"""Ends of the names of data files, which are given in the place of a config by people who have only a table."""


ENCODER_WITHOUT_CONFIG = {"name": "transformer", "model": "minilm", "trainable": "head"}
"""What reads texts where there is a table and no config: minutes on a laptop, where fine-tuning a whole network takes hours."""


def is_data_file(path: str) -> bool:
    """Whether a path that stands in the place of a config is one of data, by the end of its name.

    >>> is_data_file("tickets.csv.gz"), is_data_file("hf://ag_news"), is_data_file("tickets.toml")
    (True, True, False)
    """
    return path.startswith("hf://") or _DATA.search(path) is not None


def required_columns(predict: Any) -> tuple[str, ...]:
    """Keys of `[dataset]` that must be said of a table which comes without a config.

    >>> required_columns(None), required_columns({"mode": "model", "model": "runs/x/train/model"})
    (('text', 'label'), ('text',))

    Args:
        predict: the section `predict`, as far as it is given; rows that a trained classifier scores need no label.
    """
    mode = predict.get("mode") if isinstance(predict, Mapping) else getattr(predict, "mode", None)
    return ("text",) if mode == "model" else ("text", "label")


def overridden(overrides: Sequence[str]) -> dict[str, Any]:
    """The values that overrides set, without a config below them.

    Raises:
        ConfigError: one of them is no override, or its file cannot be read.
    """
    values: dict[str, Any] = {}
    for each in overrides:
        apply_override(values, each)
    return values


def columns_missing(overrides: Sequence[str]) -> list[str]:
    """Which of the required columns no override names.

    Raises:
        ConfigError: one of them is no override, or its file cannot be read.
    """
    values = overridden(overrides)
    dataset = values.get("dataset")
    named = dataset if isinstance(dataset, Mapping) else {}
    return [key for key in required_columns(values.get("predict")) if key not in named]


def config_values(path: str | Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The values of a config file, or those of a config for a data file whose columns the overrides name.

    Raises:
        ConfigError: it cannot be read, or is a data file whose columns are not named.
        TypeError: it is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"expected the path of a config file, got {type(path).__name__}: values in memory go to "
            "rayclean.parse_config({'dataset': {'path': 'data.parquet'}}), a table to rayclean.clean(df, text=..., label=...)"
        )
    if not is_data_file(str(path)):
        return read_values(path)
    if columns_missing(overrides):
        raise ConfigError(
            f"{str(path)!r} is a data file, and a config is expected. Write one, like my.toml with the lines "
            f"`[dataset]`, `path = {str(path)!r}`, `text = 'COLUMN'`, `label = 'COLUMN'`, or let `rayclean init {path}` "
            f"write one; or name its columns by overrides: dataset.text=COLUMN dataset.label=COLUMN"
        )
    chosen = any(each.startswith(("encoder=", "encoder.name=")) for each in overrides)
    return {"dataset": {"path": str(path)}, **({} if chosen else {"encoder": dict(ENCODER_WITHOUT_CONFIG)})}


def as_values(values: Any) -> dict[str, Any]:
    """The plain values of a config.

    Raises:
        ConfigError: a table in memory stands in the place of a path.
        TypeError: they are no dict.
    """
    if not isinstance(values, Mapping):
        call = (
            f"load_config({str(values)!r})"
            if isinstance(values, str | Path)
            else "parse_config({'dataset': {...}})"
        )
        raise TypeError(
            f"expected a dict of a config's sections, got {type(values).__name__}: give rayclean.{call}"
        )
    if wrong := [key for key in values if not isinstance(key, str)]:
        raise ConfigError(
            f"config: keys are names of sections, got {wrong[0]!r} of type {type(wrong[0]).__name__}"
        )
    return {key: _plain(value, (key,)) for key, value in values.items()}


def as_overrides(overrides: Any) -> list[str]:
    """The overrides as a list of strings.

    Raises:
        TypeError: they are one string, or something in them is no string.
    """
    if isinstance(overrides, str) or not isinstance(overrides, Sequence):
        raise TypeError(
            f"expected a list of overrides like ['detect.budget=0.05'], got {type(overrides).__name__} {overrides!r}"
        )
    for each in overrides:
        if not isinstance(each, str):
            raise TypeError(
                f"expected overrides like 'detect.budget=0.05', got {type(each).__name__} {each!r}"
            )
    return list(overrides)


def _unwritable(text: str) -> str:
    """What in a text cannot be written to a file or be a path; empty if nothing."""
    if "\0" in text:
        return "a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as in file names that are not UTF-8
        return "characters that are no Unicode text"
    return ""


def _plain(value: Any, path: tuple[str, ...]) -> Any:
    """The value in terms of JSON: paths as strings, NumPy's numbers as Python's.

    Raises:
        ConfigError: it is of a type that a config file cannot hold.
    """
    if isinstance(value, str) and (fault := _unwritable(value)):
        raise ConfigError(
            f"config: {'.'.join(path)!r} holds {fault}, which no path, column or label has: {value!r}"
        )
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each, (*path, str(key))) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, (*path, str(place))) for place, each in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "model_dump"):  # a section that was built in Python
        return _plain(value.model_dump(mode="json", exclude_unset=True), path)
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return _plain(item(), path)
    if isinstance(value, str | int | float):  # an enum, a NumPy string
        return next(kind(value) for kind in (str, int, float) if isinstance(value, kind))
    hint = (
        ": write the table to a file first (df.to_parquet('data.parquet')), and give its path"
        if hasattr(value, "columns") or hasattr(value, "column_names")
        else ""
    )
    raise ConfigError(
        f"config: {'.'.join(path)!r} is of type {type(value).__name__}, which no config can hold{hint}"
    )
