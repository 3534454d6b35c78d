"""A config for a table, proposed from its first rows, with all that was seen on the way."""

import posixpath
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from rayclean.config import Config, parse_config
from rayclean.config.arguments import ENCODER_WITHOUT_CONFIG
from rayclean.config.run_name import WITHOUT_FILE, name_of_file
from rayclean.datasets.text_files import COMPRESSED
from rayclean.errors import ConfigError, DataError
from rayclean.first_look.guess import ColumnRoles, guess_roles, profile_columns
from rayclean.first_look.label_look import LabelLook, look_at_labels
from rayclean.first_look.profiles import ColumnProfile
from rayclean.first_look.reading import FirstRows, first_rows
from rayclean.overrides import apply_override
from rayclean.schema import FormName
from rayclean.tasks import TASKS

_COLUMNS_SHOWN = 20


@dataclass(frozen=True)
class ProposedConfig:
    """What the first look has found, and the config that it proposes."""

    paths: tuple[str, ...]
    """The data, as the user named them."""
    first: FirstRows
    profiles: Mapping[str, ColumnProfile]
    roles: ColumnRoles
    look: LabelLook
    values: dict[str, Any]
    """Of the config: what was said and what was guessed."""
    said: frozenset[str]
    """Keys of `[dataset]` that the user has said."""
    config: Config
    """The same, checked."""

    @property
    def rows(self) -> str:
        """How many rows it was guessed from, in words."""
        return (
            f"{self.look.rows:,} rows (all of them)"
            if self.look.is_whole
            else f"the first {self.look.rows:,} rows"
        )


def propose_config(paths: Sequence[str], overrides: Sequence[str] = ()) -> ProposedConfig:
    """Look at the first rows of a data set and propose a config for it.

    Args:
        paths: files, folders, globs or URLs, as `dataset.path` takes them.
        overrides: what is known already, like `dataset.encoding=cp1250`; it is not guessed.

    Raises:
        ConfigError: the format cannot be told, or no column looks like a text or a label.
        DataError: there is no table, or it cannot be read.
    """
    values = _said(paths, overrides)
    said = frozenset(values["dataset"]) - {"path"}
    config = parse_config(values)
    first = first_rows(config.dataset)
    profiles = profile_columns(first)
    if not first.rows:
        raise DataError(
            f"{paths[0]}: it has columns ({_listed(first.columns)}) and no rows; give a file with rows"
        )
    chosen = {key: _one_column(values["dataset"].get(key)) for key in ("text", "label", "id")}
    for key, column in chosen.items():
        if column is not None and column not in profiles:
            raise DataError(
                f"{paths[0]}: no column {column!r} for dataset.{key}; its columns: {_listed(first.columns)}"
            )
    roles = guess_roles(list(profiles.values()), chosen["text"], chosen["label"], chosen["id"])
    _require(paths, roles, first.columns)
    form = roles.label.form if "task" not in values else TASKS.resolve(config.task.name).label_form
    proposed = _values(values, roles, first, form)
    look = look_at_labels(first, parse_config(proposed).dataset, form)
    if look.unlabelled and form != "tags":
        proposed["dataset"].setdefault("unlabelled", list(look.unlabelled))
    config = parse_config({"encoder": dict(ENCODER_WITHOUT_CONFIG), **proposed})
    return ProposedConfig(tuple(paths), first, profiles, roles, look, proposed, said, config)


def guess_columns(path: str) -> ColumnRoles:
    """The columns of a data set by its first rows; see `propose_config`."""
    first = first_rows(parse_config(_said([path], ())).dataset)
    return guess_roles(list(profile_columns(first).values()))


def config_file_name(paths: Sequence[str]) -> str:
    """The name of the config for some data.

    >>> config_file_name(["data/tickets.csv.gz"]), config_file_name(["s3://bucket/tickets/*.parquet"])
    ('tickets.toml', 'tickets.toml')
    """
    path = PurePosixPath(paths[0].partition("://")[2] or paths[0])
    while path.name and not name_of_file(path.name).strip("*").replace(WITHOUT_FILE, ""):
        path = path.parent
    name = path.name
    if posixpath.splitext(name)[1] in COMPRESSED:
        name = posixpath.splitext(name)[0]
    return f"{name_of_file(name)}.toml"


def _said(paths: Sequence[str], overrides: Sequence[str]) -> dict[str, Any]:
    """The values that the user has given."""
    values: dict[str, Any] = {"dataset": {"path": paths[0] if len(paths) == 1 else list(paths)}}
    for override in overrides:
        apply_override(values, override)
    return values


def _one_column(said: Any) -> str | None:
    column = said[0] if isinstance(said, list) and said else said
    return None if column is None else str(column)


def _require(paths: Sequence[str], roles: ColumnRoles, columns: Sequence[str]) -> None:
    """Stop where no column looks like a text, or none like a label.

    Raises:
        ConfigError: names the columns, and the options that say which they are.
    """
    missing = [] if roles.text else ["text"]
    missing += [] if roles.label.columns else ["label"]
    if missing:
        options = " ".join(f"--{each} COLUMN" for each in missing)
        raise ConfigError(
            f"no column of {paths[0]} looks like a {' or a '.join(missing)} (it has {_listed(columns)}); say which it is: "
            f"rayclean init {shlex.join(paths)} {options}"
        )


def _listed(columns: Sequence[str]) -> str:
    more = len(columns) - _COLUMNS_SHOWN
    return ", ".join(columns[:_COLUMNS_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _values(said: dict[str, Any], roles: ColumnRoles, first: FirstRows, form: FormName) -> dict[str, Any]:
    """The values of a config: what was said, and what was guessed for the rest."""
    assert roles.text is not None
    guessed: dict[str, Any] = {} if first.header else {"header": False}
    guessed["tokens" if form == "tags" else "text"] = roles.text.column
    label = roles.label
    guessed["label"] = label.columns[0] if len(label.columns) == 1 else list(label.columns)
    if len(label.columns) > 1:
        guessed["labels"] = list(label.columns)
    if form == "classes" and label.separator:
        guessed["label_separator"] = label.separator
    if label.truth:
        guessed["truth"] = label.truth
    for key, choice in (("id", roles.id), ("group", roles.group)):
        if choice is not None:
            guessed[key] = choice.column
    dataset = {"path": said["dataset"]["path"], **guessed, **said["dataset"]}
    task = {} if form == "class" else {"task": {"name": task_of_form(form)}}
    return {**task, **said, "dataset": dataset}


def task_of_form(form: FormName) -> str:
    """The task whose labels have a form."""
    return next(name for name in TASKS if TASKS.resolve(name).label_form == form)
