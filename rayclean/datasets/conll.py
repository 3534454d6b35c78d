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

import pyarrow as pa

from rayclean.datasets.base import FileSegment, Reader, SourceFile
from rayclean.datasets.encodings import unicode_encoding
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.datasets.text_files import encoding_name, first_bytes, has_marks, open_text, unmarked
from rayclean.errors import DataError

_BETWEEN_DOCUMENTS = "-DOCSTART-"


class Conll(Reader):
    """Sentences of a CoNLL file; every value is a list of strings, one per token."""

    def columns(self, file: SourceFile) -> list[str]:
        """`tokens`, the columns between by their numbers, and `label`, by the first line of the first sentence."""
        encoding = self.encoding(file)
        sentence = next(_sentences(file, encoding), None)
        if sentence is None:
            return []
        fields = [] if has_marks(sentence[0]) else _fields(sentence[0])
        if len(fields) < 2:
            raise DataError(
                f"{file.url}: its first line {unmarked(sentence[0][:100])!r} is no token with a tag; is this a CoNLL file in "
                f"{encoding_name(encoding)}? Expected a token and its tag per line, like Boston B-LOC"
            )
        return ["tokens", *(f"column_{number}" for number in range(2, len(fields))), "label"]

    def rows(
        self, segment: FileSegment, columns: Sequence[str]
    ) -> Iterator[tuple[int, list[Any] | RejectedRow]]:
        """Sentences, whatever their length."""
        names = self.columns(segment.file)
        positions = [names.index(name) for name in columns]
        encoding = self.encoding(segment.file)
        for row, lines in enumerate(_sentences(segment.file, encoding)):
            table = _table(lines, len(names), encoding)
            if isinstance(table, RejectedRow):
                yield row, table
            else:
                yield row, [[fields[position] for fields in table] for position in positions]

    def schema(self, file: SourceFile) -> pa.Schema:
        """Lists of strings."""
        return pa.schema([(name, pa.list_(pa.string())) for name in self.columns(file)])

    def encoding(self, file: SourceFile) -> str:
        """The encoding of a file."""
        return self.options.encoding or unicode_encoding(file, first_bytes(file)[0]) or "utf-8"

    def delimiter(self, file: SourceFile) -> str:
        """What divides the columns of a file by its first line: a tab or a blank."""
        sentence = next(_sentences(file, self.encoding(file)), [""])
        return "\t" if "\t" in sentence[0] else " "


def _sentences(file: SourceFile, encoding: str) -> Iterator[list[str]]:
    """The lines of each sentence."""
    sentence: list[str] = []
    with open_text(file, encoding) as lines:
        for line in lines:
            stripped = line.strip(" \t\r\n")
            if stripped and not stripped.startswith(_BETWEEN_DOCUMENTS):
                sentence.append(stripped)
            elif sentence:
                yield sentence
                sentence = []
    if sentence:
        yield sentence


def _table(lines: list[str], width: int, encoding: str) -> list[list[str]] | RejectedRow:
    """The fields of every line, or why the sentence is malformed."""
    table = []
    for line in lines:
        if has_marks(line):
            return RejectedRow(f"not {encoding_name(encoding)}", unmarked(line[:200]))
        fields = _fields(line)
        if len(fields) != width:
            found = f"{len(fields)} columns, the first line has {width}: {line[:100]}"
            return RejectedRow("malformed CoNLL line", found)
        table.append(fields)
    return table


def _fields(line: str) -> list[str]:
    """The columns of a line; a token may be a character that only Unicode takes for a blank."""
    return [field.strip(" ") for field in line.split("\t")] if "\t" in line else re.split(" +", line)
