"""CoNLL files of tagged tokens: a line per token, its columns divided by blanks or tabs, a blank line between sentences.

The first column is the token, the last one its tag: they are the columns `tokens` and `label`. Those between, if there
are any, are `column_2`, `column_3` and so on. Lines that begin with `-DOCSTART-` are left out. An example (CoNLL-2003):

    -DOCSTART- -X- O O

    EU NNP I-NP I-ORG
    rejects VBZ I-VP O
    German JJ I-NP I-MISC

A row is a sentence and has its number, from 0. A sentence with a malformed line is rejected.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from rayclean.datasets.base import FileSegment, Reader, SourceFile, decode_utf8, open_compressed
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.errors import DataError

_BETWEEN_DOCUMENTS = b"-DOCSTART-"


class Conll(Reader):
    """Sentences of a CoNLL file; every value is a list of strings, one per token."""

    def columns(self, file: SourceFile) -> list[str]:
        """`tokens`, the columns between by their numbers, and `label`, by the first line of the first sentence."""
        sentence = next(_sentences(file), None)
        if sentence is None:
            return []
        line = decode_utf8(sentence[0])
        fields = [] if isinstance(line, RejectedRow) else _fields(line)
        if len(fields) < 2:
            raise DataError(
                f"{file.url}: its first line {sentence[0][:100]!r} is no token with a tag; is this a CoNLL file in UTF-8?"
            )
        return ["tokens", *(f"column_{number}" for number in range(2, len(fields))), "label"]

    def rows(
        self, segment: FileSegment, columns: Sequence[str]
    ) -> Iterator[tuple[int, list[Any] | RejectedRow]]:
        """Sentences, whatever their length."""
        names = self.columns(segment.file)
        positions = [names.index(name) for name in columns]
        for row, lines in enumerate(_sentences(segment.file)):
            table = _table(lines, len(names))
            if isinstance(table, RejectedRow):
                yield row, table
            else:
                yield row, [[fields[position] for fields in table] for position in positions]


def _sentences(file: SourceFile) -> Iterator[list[bytes]]:
    """The lines of each sentence."""
    lines: list[bytes] = []
    with open_compressed(file) as handle:
        for number, line in enumerate(handle):
            stripped = (line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line).strip(b" \t\r\n")
            if stripped and not stripped.startswith(_BETWEEN_DOCUMENTS):
                lines.append(stripped)
            elif lines:
                yield lines
                lines = []
    if lines:
        yield lines


def _table(lines: list[bytes], width: int) -> list[list[str]] | RejectedRow:
    """The fields of every line, or why the sentence is malformed."""
    table = []
    for raw in lines:
        line = decode_utf8(raw)
        if isinstance(line, RejectedRow):
            return line
        fields = _fields(line)
        if len(fields) != width:
            found = f"{len(fields)} columns, the first line has {width}: {line[:100]}"
            return RejectedRow("malformed CoNLL line", found)
        table.append(fields)
    return table


def _fields(line: str) -> list[str]:
    """The columns of a line; a token may be a character that only Unicode takes for a blank."""
    return [field.strip(" ") for field in line.split("\t")] if "\t" in line else re.split(" +", line)
