"""JSON Lines: https://jsonlines.org, one object per line, possibly compressed (`.gz`, `.bz2`, `.xz`, `.zst`).

An example row: `{"text": "I want to fly to Boston", "label": "flight"}`.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from rayclean.datasets.base import FileSegment, Reader, SourceFile, decode_utf8, open_compressed
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.errors import DataError

_LINES_FOR_COLUMNS = 1000
"""Number of first lines whose keys are the columns of a file: an object may leave out keys."""


class Jsonl(Reader):
    """JSON Lines; a line that is no JSON object in UTF-8 is rejected."""

    sparse = True

    def columns(self, file: SourceFile) -> list[str]:
        """Keys of the objects in the first lines."""
        found: dict[str, None] = {}
        objects = 0
        for _, value in itertools.islice(_objects(file), _LINES_FOR_COLUMNS):
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
    ) -> Iterator[tuple[int, list[Any] | RejectedRow]]:
        """Lines that are not blank; a missing key is null."""
        for row, value in _objects(segment.file):
            yield row, value if isinstance(value, RejectedRow) else [value.get(name) for name in columns]


def _objects(file: SourceFile) -> Iterator[tuple[int, dict[str, Any] | RejectedRow]]:
    with open_compressed(file) as handle:
        for row, line in enumerate(handle):
            stripped = line.strip()
            if stripped:
                yield row, _parse(stripped)


def _parse(line: bytes) -> dict[str, Any] | RejectedRow:
    text = decode_utf8(line.removeprefix(b"\xef\xbb\xbf"))
    if isinstance(text, RejectedRow):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return RejectedRow("malformed JSON line", f"{str(error)[:80]}: {text[:100]}")
    return (
        value if isinstance(value, dict) else RejectedRow("malformed JSON line", f"no object: {text[:100]}")
    )
