"""CoNLL files: a line per token, its columns divided by a tab (or a blank, as in the data set), a blank line between sentences.

The token is the first column and the final tag the last; the given and the true tags stand between, and all other columns
of a data set that is CoNLL itself. What is said of a whole sentence (`label_source` and so on) has no place in the format and
is left out, as are sentences of which load could read nothing.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import pyarrow as pa

from rayclean.errors import ConfigError, DataError
from rayclean.exports.formats import ExportRows, FileFormat, OutputFile, TokenColumns, packed, part_chunks
from rayclean.folder import Folder

NOTHING = "_"
"""In the place of what is not there: the final tags of a rejected sentence, and the rest of its tags where it has too few."""


class ConllFiles(FileFormat):
    """Sentences in the order of their rows."""

    def write_part(self, batches: Iterable[ExportRows], path: str) -> None:
        """Write sentences, each with a blank line after it.

        Raises:
            DataError: a token or another value cannot be a field of a line.
        """
        columns = self.output.token_columns
        assert columns is not None, "an export to CoNLL knows its columns"
        with open(path, "w", encoding=self.output.style.encoding, newline="") as file:
            for rows in batches:
                assert isinstance(rows, pa.Table), "a CoNLL file has columns"
                names = [columns.tokens, *columns.between, columns.tags]
                for sentence in zip(*(rows[name].to_pylist() for name in names), strict=True):
                    file.writelines(self._lines(sentence))

    def join(self, parts: Folder, names: Sequence[str], path: str) -> None:
        """The sentences of all parts."""
        with packed(path, self.output.compression) as file:
            for name in names:
                for chunk in part_chunks(parts, name):
                    file.write(chunk)

    def _lines(self, sentence: Sequence[Any]) -> Iterator[str]:
        tokens, *between, tags = (each.split() if isinstance(each, str) else each for each in sentence)
        if not tokens:
            return
        delimiter = self.output.style.delimiter
        for line in zip_longest(tokens, *(each or () for each in between), tags or ()):
            yield delimiter.join(_field(value, delimiter) for value in line) + "\n"
        yield "\n"


def token_columns(output: OutputFile, tokens: str, tags: str, per_token: Collection[str]) -> TokenColumns:
    """The columns of a CoNLL file.

    Args:
        output: with all of its columns, the added ones too.
        tokens: column of the tokens.
        tags: column of the final tags.
        per_token: further columns of the data set that hold a value per token.

    Raises:
        ConfigError: the data set has no tokens with tags.
    """
    schema = output.schema
    assert schema is not None, "its types are known"
    if (
        tokens not in schema.names
        or tags not in schema.names
        or not pa.types.is_list(schema.field(tags).type)
    ):
        raise ConfigError(
            f"export: CoNLL files hold tokens with tags, and these data have no column {tokens!r} with a list of tags beside it; "
            "export to .parquet or .jsonl"
        )
    return TokenColumns(
        tokens, tuple(name for name in schema.names if name in per_token and name not in (tokens, tags)), tags
    )


def _field(value: Any, delimiter: str) -> str:
    text = NOTHING if value is None else str(value) or NOTHING
    if delimiter not in text and not any(mark in text for mark in "\t\r\n"):
        return text
    raise DataError(
        f"export: {text[:100]!r} cannot be a field of a CoNLL file, whose columns are divided by {delimiter!r}; export to "
        ".parquet or .jsonl"
    )
