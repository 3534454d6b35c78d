"""Which example a person means: by the own key, by file and row, by its id, or by a part of its text."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import pyarrow.compute as pc

from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.origins import ORIGINS_FOLDER, Origin, Origins
from rayclean.plugins import did_you_mean
from rayclean.run import Run

EXAMPLE_PARTS = ("examples", "test")
"""Folders of `load` with texts."""
MATCHES = 20
"""Matches that are listed by default."""
_EXCERPT = 200
"""Characters of a text by which people recognise it."""
_FILES = 50
"""Names of files that a message lists."""


@dataclass(frozen=True)
class Match:
    """An example, or a row that was rejected."""

    example_id: int | None
    """None for a rejected row."""
    origin: Origin | None
    """Where it is from; None where that is not known."""
    text: str
    """Its beginning; of a rejected row the beginning of what was wrong."""
    rejected: str | None = None
    """Why the row was rejected; None for an example."""

    @property
    def name(self) -> str:
        """The user's key, else file and row, else the id."""
        return str(self.example_id) if self.origin is None else str(self.origin)


@dataclass(frozen=True)
class Matches:
    """What a person may mean."""

    found: tuple[Match, ...]
    """The first of them."""
    total: int


def find_examples(
    run: Run,
    *,
    key: str | None = None,
    row: tuple[str, int] | None = None,
    example_id: int | None = None,
    text: str | None = None,
    limit: int = MATCHES,
) -> Matches:
    """The examples and rejected rows that one criterion names. Several are found where two files of different roles have the
    same name, where a key is both a number and a text, or where several texts hold the wanted one.

    Args:
        run: with a finished load.
        key: the user's (`dataset.id`), as its column writes it.
        row: file and 0-based row, as reports show them; also of a rejected row.
        example_id: of the tables.
        text: a part of the text, whatever its case.
        limit: most matches that are returned; all are counted.

    Raises:
        ConfigError: not exactly one criterion is given, or nothing is found; near keys and names of files are named.
        ArtifactError: `load` has not finished.
    """
    given = [each for each in (key, row, example_id, text) if each is not None]
    if text == "":
        raise ConfigError("the text to look for (--text) is empty: give a part of the example's text")
    if len(given) != 1:
        raise ConfigError(
            f"say which example in one way, got {len(given)}: its key (--id), file and row (--row FILE:ROW), its id "
            "(--example-id), or a part of its text (--text)"
        )
    load = run.require("load")
    if text is not None:
        return _by_text(load, text, limit)
    if row is not None:
        found = [*_examples(load, "file", row[0], row[1]), *_rejected(load, *row)] or _no_row(load, *row)
    elif key is not None:
        found = [*_examples(load, "key", key)] or _no_key(load, key)
    else:
        assert example_id is not None
        found = [*_examples(load, "example_id", example_id)] or [*_without_origin(load, example_id)]
    if not found:
        raise ConfigError(
            f"no example has the id {example_id}: ids are in {load.url(ORIGINS_FOLDER)}; a key of yours is given with --id"
        )
    return Matches(_with_texts(load, found[:limit]), len(found))


def _examples(load: Folder, column: str, wanted: int | str, row: int | None = None) -> Iterator[Match]:
    for _, table in load.rows_with(ORIGINS_FOLDER, column, [wanted]):
        for found in table.to_pylist():
            example_id, origin = found.pop("example_id"), Origin(**found)
            if row is None or origin.row == row:
                yield Match(example_id, origin, "")


def _without_origin(load: Folder, example_id: int) -> Iterator[Match]:
    """An example of a run that was made without origins."""
    for part in EXAMPLE_PARTS if not load.shards(ORIGINS_FOLDER) else ():
        for _ in load.rows_with(part, "example_id", [example_id], columns=["example_id"]):
            yield Match(example_id, None, "")


def _rejected(load: Folder, file: str, row: int) -> Iterator[Match]:
    for _, table in load.rows_with("rejected", "source", [file]):
        for found in table.filter(pc.equal(table["row"], row)).to_pylist():
            yield Match(None, Origin(None, file, row), found["value"] or "", found["reason"])


def _by_text(load: Folder, text: str, limit: int) -> Matches:
    found: list[Match] = []
    total = 0
    for part in EXAMPLE_PARTS:
        for shard in load.shards(part):
            table = load.read_table(part, shard, columns=["example_id", "text"])
            table = table.filter(pc.match_substring(table["text"], text, ignore_case=True))
            total += len(table)
            for row in table.slice(0, limit - len(found)).to_pylist():
                found.append(Match(row["example_id"], None, row["text"][:_EXCERPT]))
    for shard in load.shards("rejected"):
        table = load.read_table("rejected", shard)
        table = table.filter(pc.match_substring(table["value"], text, ignore_case=True))
        total += len(table)
        for row in table.slice(0, limit - len(found)).to_pylist():
            origin = Origin(None, row["source"], row["row"])
            found.append(Match(None, origin, row["value"][:_EXCERPT], row["reason"]))
    if not found:
        raise ConfigError(
            f"no text holds {text!r}: give a shorter part of it, in one piece and as the data write it, or the key (--id)"
        )
    origins = Origins(load).of(each.example_id for each in found if each.example_id is not None)
    named = (
        each if each.example_id is None else Match(each.example_id, origins.get(each.example_id), each.text)
        for each in found
    )
    return Matches(tuple(named), total)


def _with_texts(load: Folder, found: list[Match]) -> tuple[Match, ...]:
    """Matches with the beginnings of their texts, which are read only where there are several to choose from."""
    if len(found) == 1:
        return tuple(found)
    texts: dict[int, str] = {}
    for part in EXAMPLE_PARTS:
        wanted = [each.example_id for each in found if each.example_id is not None]
        for _, table in load.rows_with(part, "example_id", wanted, columns=["example_id", "text"]):
            texts |= {row["example_id"]: row["text"][:_EXCERPT] for row in table.to_pylist()}
    return tuple(
        each if each.example_id is None else Match(each.example_id, each.origin, texts[each.example_id])
        for each in found
    )


def _no_key(load: Folder, key: str) -> NoReturn:
    """Say that no example has a key, and which are near."""
    origins = Origins(load)
    if not origins.keyed:
        raise ConfigError(
            f"no example has the key {key!r}: the config names no key (dataset.id), so give file and row (--row FILE:ROW)"
        )
    near = origins.near_keys(key)
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    raise ConfigError(
        f"no example has the key {key!r}{hint}: rejected rows are found by file and row (--row FILE:ROW)"
    )


def _no_row(load: Folder, file: str, row: int) -> NoReturn:
    """Say that there is no such row, and which files and rows there are."""
    last: dict[str, int] = {}
    for part, column in ((ORIGINS_FOLDER, "file"), ("rejected", "source")):
        for shard in load.shards(part):
            table = load.read_table(part, shard, columns=[column, "row"])
            most = table.group_by(column).aggregate([("row", "max")])
            for name, number in zip(most[column].to_pylist(), most["row_max"].to_pylist(), strict=True):
                last[name] = max(last.get(name, 0), number)
    if file not in last:
        raise ConfigError(f"no file {file!r} was read: {did_you_mean(file, sorted(last)[:_FILES])}")
    raise ConfigError(
        f"row {row} of {file!r} was not read: rows count from 0 without the header, up to {last[file]} in this file"
    )
