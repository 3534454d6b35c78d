"""JSON: an object per line, an array of objects, or objects one after another; possibly compressed, like a CSV.

An object per line (JSON Lines, https://jsonlines.org): `{"text": "I want to fly to Boston", "label": "flight"}`. Which of
the three a file holds is recognised by its first bytes, whatever its name. Columns may be nested (`nested_fields.py`):
`data.text`, `annotations.0.label`. A line that is no object is rejected; a fault inside of an array stops the reading, since
where its next element begins cannot be known.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np

from rayclean.datasets.base import (
    ROWS_PER_BATCH,
    FileForm,
    FileSegment,
    Reader,
    SourceFile,
    WholeRows,
)
from rayclean.datasets.encodings import unicode_encoding
from rayclean.datasets.nested_fields import nested_paths, nested_value
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.datasets.text_files import MAX_LINE, encoding_name, first_bytes, has_marks, open_text, unmarked
from rayclean.errors import DataError

_ROWS_FOR_COLUMNS = 1000
"""Number of first rows whose keys are the columns of a file: an object may leave out keys."""
_LINES_FOR_KEYS = 100
"""First lines whose keys are counted."""
_CHUNK = 64 * 1024
"""Characters that are read at once where lines mean nothing."""
_DECODER = json.JSONDecoder()
_BETWEEN = re.compile(r"[\s,]*")

Form = Literal["lines", "array", "objects"]
_WORDS: dict[Form, str] = {
    "lines": "JSON Lines",
    "array": "JSON: an array of objects",
    "objects": "JSON: objects over several lines",
}


class Jsonl(Reader):
    """JSON Lines and other JSON; a row that is no object in UTF-8 is rejected."""

    sparse = True
    _sniffed: tuple[SourceFile, Form, str] | None = None

    def columns(self, file: SourceFile) -> list[str]:
        """Keys of the first objects, and paths to the values inside of them."""
        found: dict[str, None] = {}
        rows = list(itertools.islice(self._objects(file), _ROWS_FOR_COLUMNS))
        objects = [value for _, value in rows if isinstance(value, dict)]
        if rows and not objects:
            fault = rows[0][1]
            assert isinstance(fault, RejectedRow)
            other = (
                "; set dataset.encoding if it is in another one" if fault.reason.startswith("not ") else ""
            )
            raise DataError(
                f"{file.url}: no JSON object in its first rows ({fault.reason}: {fault.value}); expected one object per line "
                f"(JSON Lines), or an array of objects{other}"
            )
        if len(rows) == 1 and objects:
            _check_is_row(file, objects[0], self.options.columns)
        for value in objects:
            found.update(dict.fromkeys(value))
        nested = [name for name in self.options.columns if name not in found and "." in name]
        for value in objects:
            found.update(dict.fromkeys(name for name in nested if nested_value(value, name) is not None))
        for value in objects[:1]:
            found.update(dict.fromkeys(nested_paths(value)))
        return list(found)

    def describe(self, file: SourceFile) -> FileForm:
        """Lines, an array or objects, and the encoding."""
        form, encoding = self._sniff(file)
        return FileForm(f"{_WORDS[form]}, {encoding_name(encoding)}")

    def rows(
        self, segment: FileSegment, columns: Sequence[str]
    ) -> Iterator[tuple[int, list[Any] | RejectedRow]]:
        """Objects; a missing key is null."""
        for row, value in self._objects(segment.file):
            if isinstance(value, RejectedRow):
                yield row, value
            else:
                yield row, [nested_value(value, name) for name in columns]

    def schema(self, file: SourceFile) -> None:
        """None: every object has keys of its own."""
        return

    def whole_rows(self, segment: FileSegment) -> Iterator[WholeRows]:
        """Objects, whatever keys they have."""
        rows = self._objects(segment.file)
        while batch := list(itertools.islice(rows, ROWS_PER_BATCH)):
            objects = [{} if isinstance(value, RejectedRow) else value for _, value in batch]
            yield WholeRows(np.array([row for row, _ in batch], np.int64), objects)

    def _sniff(self, file: SourceFile) -> tuple[Form, str]:
        """What the first bytes show: the form, and the encoding."""
        if self._sniffed is None or self._sniffed[0] != file:
            sample, _ = first_bytes(file)
            encoding = self.options.encoding or unicode_encoding(file, sample) or "utf-8"
            text = sample.decode(encoding, "rayclean.mark").removeprefix("\ufeff").lstrip()
            form = _form(text)
            _check_keys(file, text, form, {part for name in self.options.columns for part in name.split(".")})
            self._sniffed = file, form, encoding
        return self._sniffed[1:]

    def _objects(self, file: SourceFile) -> Iterator[tuple[int, dict[str, Any] | RejectedRow]]:
        form, encoding = self._sniff(file)
        with open_text(file, encoding) as lines:
            if form == "lines":
                for row, line in enumerate(lines):
                    if line.strip():
                        yield row, _parse(line.strip(), encoding)
                return
            for row, value in enumerate(_values(file, iter(lambda: lines.text.read(_CHUNK), ""), form)):
                if isinstance(value, dict | RejectedRow):
                    yield row, value
                else:
                    yield row, RejectedRow("malformed JSON", f"no object: {str(value)[:100]}")


def _form(text: str) -> Form:
    """What a file holds, by its first characters."""
    if re.match(r"\[\s*[\[{\]]", text):
        return "array"
    first_line = text.split("\n", 1)[0]
    return "lines" if _starts_with_object(first_line) or not _starts_with_object(text) else "objects"


def _starts_with_object(text: str) -> bool:
    """Whether a text begins with a whole object."""
    try:
        value, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


def _check_keys(file: SourceFile, text: str, form: Form, wanted: set[str]) -> None:
    """Stop at a key that the first objects of a file have more than once, of which Python keeps the last.

    Raises:
        DataError: it is a part of a column that is wanted.
    """
    twice: set[str] = set()

    def count(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice.update(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        return found

    decoder = json.JSONDecoder(object_pairs_hook=count)
    for part in (
        text.split("\n", _LINES_FOR_KEYS)[:_LINES_FOR_KEYS] if form == "lines" else [text.lstrip("[ \t\r\n")]
    ):
        with suppress(ValueError, RecursionError):
            decoder.raw_decode(part.strip())
    if twice & wanted:
        raise DataError(
            f"{file.url}: its objects hold {sorted(twice & wanted)} more than once, and only one of them can be meant; write "
            "every key once"
        )


def _parse(line: str, encoding: str) -> dict[str, Any] | RejectedRow:
    if has_marks(line):
        return RejectedRow(f"not {encoding_name(encoding)}", unmarked(line[:200]))
    if len(line) > MAX_LINE:
        return RejectedRow("malformed JSON line", f"longer than {MAX_LINE:,} characters: {line[:100]}")
    try:
        value = json.loads(line.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        return RejectedRow("malformed JSON line", f"{str(error)[:80]}: {line[:100]}")
    return (
        value if isinstance(value, dict) else RejectedRow("malformed JSON line", f"no object: {line[:100]}")
    )


def _values(file: SourceFile, chunks: Iterator[str], form: Form) -> Iterator[Any]:
    """The elements of an array, or values one after another; of which one at a time is in memory.

    Raises:
        DataError: an element is malformed, too long or nested too deeply, or the file ends inside of one.
    """
    text = next(chunks, "").removeprefix("\ufeff").lstrip()
    position = int(form == "array")
    row = 0
    while True:
        position = _BETWEEN.match(text, position).end()  # type: ignore[union-attr]
        if position < len(text) and text[position] == "]" and form == "array":
            break
        try:
            value, end = _DECODER.raw_decode(text, position)
        except RecursionError:
            raise DataError(
                f"{file.url} row {row}: nested too deeply to be a row of a data set; leave it out"
            ) from None
        except ValueError as error:
            # It may go on in the next chunk. As much as there is comes with it, so that a long element is not parsed too often.
            more = "".join(itertools.islice(chunks, 1 + (len(text) - position) // _CHUNK))
            if more and len(text) - position <= MAX_LINE:
                text, position = text[position:] + more, 0
                continue
            if not text[position:].strip() and form == "objects":
                return
            raise DataError(
                f"{file.url} row {row}: malformed JSON ({error}): {unmarked(text[position : position + 100])!r}; "
                "what comes after it cannot be read. Is the file whole? Write it again, or as JSON Lines, where a malformed line "
                "costs its row alone"
            ) from None
        bad = has_marks(text[position:end])
        yield RejectedRow("not UTF-8", unmarked(text[position:end][:200])) if bad else value
        position, row = end, row + 1
    if rest := (text[position + 1 :] + next(chunks, "")).strip():
        raise DataError(
            f"{file.url}: after the end of its array comes {rest[:50]!r}; expected one array of objects: remove what "
            "follows it, or write an object per line"
        )


def _check_is_row(file: SourceFile, value: dict[str, Any], wanted: Sequence[str]) -> None:
    """Stop at the only object of a file if it is a whole table, as pandas writes one by default.

    Raises:
        DataError: says how to write rows.
    """
    cells = list(value.values())
    numbered = (each for each in (value, *cells) if isinstance(each, dict) and each)
    apart = isinstance(value.get("data"), list) and ("columns" in value or "schema" in value)
    if apart or (
        all(isinstance(each, dict) for each in cells)
        and any(all(map(str.isdecimal, each)) for each in numbered)
    ):
        raise DataError(
            f"{file.url}: its only object is a whole table, as pandas writes one; expected an object per row: "
            'df.to_json(path, orient="records", lines=True)'
        )
    if any(nested_value(value, name) is not None for name in wanted):
        return
    lists = [
        key for key, each in value.items() if isinstance(each, list) and each and isinstance(each[0], dict)
    ]
    if lists:
        raise DataError(
            f"{file.url}: its only object holds the rows in {lists[0]!r}; write them as an object per line, for example with "
            f"jq -c '.{lists[0]}[]'"
        )
