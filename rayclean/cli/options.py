"""The command `options`, which lists the keys of a config from the types, defaults and docstrings of the
code.
"""

import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args, get_origin

import typer

from rayclean.cli.completion import complete_option_name
from rayclean.errors import ConfigError

if TYPE_CHECKING:
    from rayclean.plugins import Family, Options

TYPES = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    NoneType: "none",
    Any: "any value",
}
BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


WIDTH = 130
"""Width in characters of output to a file or a pipe."""


class ConfigKey(NamedTuple):
    """One key of a config, with its type, default and meaning."""

    key: str
    """Dotted path below the section or the plug-in."""
    type: str
    """Type and bounds of the value in terms of TOML."""
    default: str
    """Default in TOML; "required" or "none" if there is none."""
    help: str
    """The docstring under the field."""


def show_options(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[SECTION|PLUG-IN]",
            help="A section like detect, or a plug-in like method.noiseal; without it the names of all of them.",
            autocompletion=complete_option_name,
        ),
    ] = None,
) -> None:
    """Show the keys of a config's section or of a plug-in, with type, default and meaning."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    rows: Sequence[tuple[str, ...]]
    head: tuple[str, ...]
    if name is None:
        title, head, rows = "rayclean options NAME shows the keys of:", ("name", "meaning"), _overview()
    else:
        owner, model = find_options(name)
        title, head = f"{name}: {_summary(owner)}", ("key", "type", "default", "meaning")
        rows = list(describe_options(model))
    table = Table(box=box.SIMPLE_HEAD, title=escape(title), title_justify="left")
    for column in head:
        table.add_column(column, overflow="fold", ratio=3 if column == "meaning" else None, min_width=8)
    for row in rows:
        table.add_row(*map(escape, row))
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)


def find_options(name: str) -> tuple[type[Any], "type[Options]"]:
    """The class and the options of a section (`detect`) or a plug-in (`annotator.openai`).

    Raises:
        ConfigError: the name is unknown.
    """
    from rayclean.plugins import did_you_mean

    sections, families = option_sections(), option_families()
    if name in sections:
        return sections[name], sections[name]
    kind, _, plugin = name.partition(".")
    if plugin and kind in families:
        cls = families[kind].resolve(plugin)
        return cls, cls.Config
    known = [
        *sections,
        *(f"{kind}.{plugin}" for kind, family in families.items() for plugin in family.all_names()),
    ]
    raise ConfigError(f"no section or plug-in {name!r}: {did_you_mean(name, known)}")


def describe_options(model: "type[Options]", prefix: str = "") -> Iterator[ConfigKey]:
    """The keys of a model, including those of nested tables by dotted path; for a whole config without its
    sections.
    """
    from rayclean.config import Config

    for key, field in model.model_fields.items():
        nested = _table(field.annotation)
        if nested is not None and model is Config:
            continue
        bounds = [
            f"{sign} {getattr(bound, name)}"
            for bound in field.metadata
            for name, sign in BOUNDS.items()
            if getattr(bound, name, None) is not None
        ]
        kind = ", ".join([_type_name(field.annotation), *bounds])
        default = "required" if field.is_required() else _toml(field.get_default(call_default_factory=True))
        yield ConfigKey(prefix + key, kind, default, key_help(model, key))
        if nested is not None:
            yield from describe_options(nested, f"{prefix}{key}.")


def key_help(model: "type[Options]", key: str) -> str:
    """The docstring under a field, or under that of the base class if only the default differs."""
    from pydantic import BaseModel

    bases = (base for base in model.__mro__ if issubclass(base, BaseModel))
    texts = (base.model_fields[key].description for base in bases if key in base.model_fields)
    return " ".join(next((text for text in texts if text), "").split())


def option_families() -> "dict[str, Family[Any]]":
    """The kinds of plug-ins by name."""
    from rayclean.annotators import ANNOTATORS
    from rayclean.detectors import DETECTORS
    from rayclean.methods import METHODS
    from rayclean.models import ENCODERS
    from rayclean.tasks import TASKS

    return {family.kind: family for family in (TASKS, ENCODERS, DETECTORS, ANNOTATORS, METHODS)}


def option_sections() -> "dict[str, type[Options]]":
    """The sections of a config by name, where `run` has the top-level keys."""
    from rayclean.config import Config

    tables = ((key, _table(field.annotation)) for key, field in Config.model_fields.items())
    return {"run": Config} | {key: table for key, table in tables if table is not None}


def _table(annotation: Any) -> "type[Options] | None":
    """The model of a nested table with keys of its own; None for a plain value, a list or a plug-in."""
    from rayclean.plugins import Options, Plugin, nested_options

    nested = nested_options(annotation)
    if nested is None or not issubclass(nested, Options) or issubclass(nested, Plugin):
        return None
    return nested


def _overview() -> list[tuple[str, ...]]:
    sections = [(name, _summary(model)) for name, model in option_sections().items()]
    return [
        *sections,
        *((f"{kind}.<name>", ", ".join(family.all_names())) for kind, family in option_families().items()),
    ]


def _summary(owner: type[Any]) -> str:
    """The first paragraph of a class's docstring."""
    return " ".join(inspect.cleandoc(owner.__doc__ or "").split("\n\n")[0].split())


def _type_name(annotation: Any) -> str:
    """The name of a type in terms of TOML."""
    from rayclean.plugins import Plugin

    parts = get_args(annotation)
    if get_origin(annotation) is Literal:
        return " | ".join(json.dumps(value) for value in parts)
    if get_origin(annotation) is tuple:
        return f"list of {_type_name(parts[0])}"
    if get_origin(annotation) is dict:
        return f"table of {_type_name(parts[1])}"
    if parts:
        return " or ".join(dict.fromkeys(_type_name(part) for part in parts))
    if annotation in TYPES:
        return TYPES[annotation]
    return "plug-in" if isinstance(annotation, type) and issubclass(annotation, Plugin) else "table"


def _toml(value: Any) -> str:
    """A default in TOML; "none" if the key has no value."""
    from rayclean.plugins import Options, Plugin

    if isinstance(value, Plugin):
        return json.dumps(value.name) if not value.options else f"{{name = {json.dumps(value.name)}, ...}}"
    if isinstance(value, Options):
        return ""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
