"""JSON Lines: https://jsonlines.org, one object per line, possibly compressed (`.gz`, `.bz2`, `.xz`, `.zst`).

An example row: `{"text": "I want to fly to Boston", "label": "flight"}`.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec

from rayclean.datasets.base import READ_ERRORS, FileSegment, Reader, RowFault, SourceFile, decoded
from rayclean.errors import DataError

LINES_FOR_COLUMNS = 1000
"""The columns of a file are the keys seen in so many lines: objects may leave out keys."""


class Jsonl(Reader):
    """JSON Lines; a line that is no object in UTF-8 faults its row."""

    sparse = True

    def columns(self, file: SourceFile) -> list[str]:
        """Keys in the first lines."""
        found: dict[str, None] = {}
        objects = 0
        for _, value in itertools.islice(_objects(file), LINES_FOR_COLUMNS):
            if isinstance(value, dict):
                objects += 1
                found.update(dict.fromkeys(value))
        if file.size and not objects:
            raise DataError(
                f"{file.url}: no JSON object in its first lines; expected one object per line (JSON Lines)"
            )
        return list(found)

    def rows(
        self, segment: FileSegment, columns: Sequence[str]
    ) -> Iterator[tuple[int, list[Any] | RowFault]]:
        """Lines as rows; a missing key is null."""
        for row, value in _objects(segment.file):
            yield row, value if isinstance(value, RowFault) else [value.get(name) for name in columns]


def _objects(file: SourceFile) -> Iterator[tuple[int, dict[str, Any] | RowFault]]:
    try:
        with fsspec.open(file.url, "rb", compression="infer") as handle:
            for row, line in enumerate(handle):
                stripped = line.strip()
                if stripped:
                    yield row, _parse(stripped)
    except READ_ERRORS as error:
        raise DataError(
            f"{file.url}: cannot be read ({error}); check the path, permissions and compression"
        ) from error


def _parse(line: bytes) -> dict[str, Any] | RowFault:
    text = decoded(line.removeprefix(b"\xef\xbb\xbf"))
    if isinstance(text, RowFault):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return RowFault("malformed JSON line", f"{str(error)[:80]}: {text[:100]}")
    return value if isinstance(value, dict) else RowFault("malformed JSON line", f"no object: {text[:100]}")
