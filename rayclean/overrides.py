"""Config files, and the further files and dotted overrides laid over them; nothing is validated here.

    rayclean clean configs/quickstart.toml configs/cluster/one-gpu.toml detect.budget=0.05

Later ones win, key by key; a list or a value is replaced as a whole.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rayclean.errors import ConfigError

_FILE_ENDINGS = (".toml", ".json")
_SHORT_FOR = {"export": "to"}
"""Section -> the key that a text in its place stands for; in others it is the name of a plug-in."""


def read_values(path: str | Path) -> dict[str, Any]:
    """The values of a config file, not validated.

    Raises:
        ConfigError: it cannot be read as TOML or JSON.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # a path that holds a NUL is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"cannot read the config {str(path)!r}: {reason}; give a config file (.toml), the folder of a run, or a data file"
        ) from error
    try:
        text = content.decode("utf-8-sig")  # editors on Windows write a byte-order mark
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        hint = "save it as UTF-8" if isinstance(error, UnicodeDecodeError) else _advice(text, kind)
        raise ConfigError(f"{path}: not valid {kind}: {error}; {hint}") from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: expected a table of sections, got {type(values).__name__}; a data file is named by dataset.path of "
            "a config"
        )
    return values


def _advice(text: str, kind: str) -> str:
    """What is probably wrong with a config that cannot be read, as people write them."""
    if kind == "JSON":
        return "write it as JSON, or as TOML with a name that ends in .toml"
    found = (
        (r"^\s*\{", "it looks like JSON: let its name end in .json"),
        (r"^\w+:(\s|$)", "it looks like YAML: a config is TOML, like [dataset] and then path = 'data.csv'"),
        (
            r'"[^"\n]*\\[^"\\nt]',
            "a backslash in double quotes is an escape: write such paths with /, or in single quotes",
        ),
        ("[“”‘’]", "write straight quotes, not typographic ones"),
        (r"=\s*(True|False)\b", "write true and false in lower case"),
        (r"=\s*(None|null)\b", "TOML has no null: leave the key out"),
        (r"=\s*[A-Za-z_./~][^\s\"'\[{]*\s*$", "texts stand in quotes, like path = 'data.csv'"),
    )
    said = (advice for pattern, advice in found if re.search(pattern, text, re.MULTILINE))
    return next(said, "texts stand in quotes, and every section and key is written once")


def is_file(override: str) -> bool:
    """Whether an override names a config file.

    >>> is_file("configs/cluster/laptop.toml"), is_file("dataset.path=x.json")
    (True, False)
    """
    return override.endswith(_FILE_ENDINGS) and "=" not in override


def assignments(override: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path and value of each key that an override sets.

    >>> list(assignments("detect.budget=5")), list(assignments("annotator.name=knn"))
    ([(('detect', 'budget'), 5)], [(('annotator', 'name'), 'knn')])

    Raises:
        ConfigError: it is no override, or its file cannot be read.
    """
    if is_file(override):
        yield from leaves(read_values(override), ())
        return
    path, equals, raw = override.partition("=")
    if not equals or not path:
        raise ConfigError(
            f"override {override!r}: expected section.key=value, for example detect.budget=0.05, or a config "
            f"file ({' or '.join(_FILE_ENDINGS)})"
        )
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except (ValueError, RecursionError):
        value = raw  # a bare word is a string: annotator.name=knn
    yield tuple(path.split(".")), value


def apply_override(values: dict[str, Any], override: str) -> None:
    """Lay an override over nested dicts.

    >>> values = {"detect": {"budget": 0.1}}
    >>> apply_override(values, "detect.budget=5"); apply_override(values, "annotator.name=knn"); values
    {'detect': {'budget': 5}, 'annotator': {'name': 'knn'}}

    Raises:
        ConfigError: it is no override, its file cannot be read, or it leads through a value.
    """
    for path, value in assignments(override):
        set_path(values, path, value)


def set_path(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set the value at a path in nested dicts.

    Raises:
        ConfigError: the path leads through a value.
    """
    *parents, last = path
    for part in parents:
        if values.get(part) is None:  # JSON written by a program holds an absent section as null
            values[part] = {}
        if isinstance(
            values[part], str
        ):  # a text stands for its section: annotator = "knn", export = "cleaned.csv"
            values[part] = {_SHORT_FOR.get(part, "name"): values[part]}
        values = values[part]
        if not isinstance(values, dict):
            raise ConfigError(
                f"{'.'.join(path)}: {part!r} is a value, not a section; write its keys in a section of this name"
            )
    values[last] = value


def put_over(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config's values with others at their dotted paths.

    >>> put_over({"detect": {"budget": 0.1}}, {"detect.budget": 5, "annotator": {"name": "knn"}})
    {'detect': {'budget': 5}, 'annotator': {'name': 'knn'}}
    """
    config, over = json.loads(json.dumps([dict(values), dict(others)]))  # a deep copy of both
    for path, value in over.items():
        set_path(config, tuple(path.split(".")), value)
    return dict(config)


def leaves(values: dict[str, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path and value of everything in nested dicts that is not itself a filled dict."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key), value


def toml_value(value: Any) -> str:
    """A value as an override writes it: TOML in one line, which takes neither half of a surrogate pair, nor
    DEL unescaped.

    >>> toml_value({"name": "knn", "neighbours": [5, 20]})
    '{"name" = "knn", "neighbours" = [5, 20]}'
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_value(key)} = {toml_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def without_nulls(value: Any) -> Any:
    """The value without keys that have none: TOML has no null."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list | tuple) else value
