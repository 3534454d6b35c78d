"""Which columns of a file hold the text, the label, the truth and the key."""

from collections.abc import Sequence
from dataclasses import dataclass

from rayclean.config import DatasetConfig
from rayclean.datasets.base import ReadOptions
from rayclean.errors import DataError
from rayclean.plugins import did_you_mean

SCORING_HINT = (
    ". Rows without labels are scored by a trained classifier: rayclean predict CONFIG --model runs/<name>"
)


@dataclass(frozen=True)
class SourceColumns:
    """The columns that are read from one file."""

    text: tuple[str, ...]
    label: str | tuple[str, ...] | None
    """One column, or several that hold a bit each."""
    truth: str | tuple[str, ...] | None
    key: str | None
    tokens: str | None = None
    """The column of tokens that takes the place of the text."""
    group: str | None = None

    @property
    def names(self) -> list[str]:
        """Each column once."""
        wanted = (*self.text, self.tokens, *names_of(self.label), *names_of(self.truth), self.key, self.group)
        return list(dict.fromkeys(name for name in wanted if name is not None))

    def __str__(self) -> str:
        """Columns by their roles, in words."""
        texts = self.text if self.tokens is None else (self.tokens,)
        roles = {
            "text": texts,
            "label": names_of(self.label),
            "truth": names_of(self.truth),
            "id": names_of(self.key),
            "group": names_of(self.group),
        }
        named = {role: names for role, names in roles.items() if names}
        return ", ".join(f"{role} {' + '.join(map(repr, names))}" for role, names in named.items())


def names_of(columns: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The names of no, one or several columns."""
    return () if columns is None else (columns,) if isinstance(columns, str) else columns


def choose_columns(
    config: DatasetConfig,
    role: str,
    found: Sequence[str],
    url: str,
    sparse: bool = False,
    reads_tokens: bool = False,
    label_optional: bool = False,
) -> SourceColumns:
    """The columns to read from a file.

    A test file may hold the truth alone, and rows that a trained classifier scores need no label; a development or
    test file need not hold the truth. In a sparse format the truth may be known for few rows only, none of them
    among the first rows, which `found` was read from.

    Args:
        config: names the columns.
        role: "data", "dev" or "test".
        found: columns of the file.
        url: the file, for messages.
        sparse: whether rows of this format may leave out columns.
        reads_tokens: whether the text is a column of tokens.
        label_optional: whether the column of labels may be missing.

    Raises:
        DataError: a column is missing; the message lists the nearest ones.
    """
    label_of_role = {"dev": config.dev.label, "test": config.test.label}.get(role)
    label: str | tuple[str, ...] | None = label_of_role or config.label
    truth = config.truth if role == "data" or sparse or set(names_of(config.truth)) <= set(found) else None
    absent = not any(name in found for name in names_of(label))
    holds_truth_alone = role == "test" and label_of_role is None and truth is not None
    if absent and (holds_truth_alone or label_optional):
        label = None
    columns = SourceColumns(
        () if reads_tokens else names_of(config.text),
        label,
        truth,
        config.id,
        config.tokens if reads_tokens else None,
        config.group if role == "data" else None,
    )
    for name in columns.names:
        if name not in found and not (sparse and name in names_of(truth)):
            scoring = SCORING_HINT if role == "data" and name in names_of(label) else ""
            raise DataError(f"{url}: no column {name!r}; {did_you_mean(name, list(found))}{scoring}")
    return columns


def read_options(config: DatasetConfig, role: str) -> ReadOptions:
    """How the files of a role are written, as far as the config says it."""
    of_role = {"dev": config.dev.label, "test": config.test.label}.get(role)
    labels = (*names_of(of_role or config.label), *names_of(config.truth))
    others = (*names_of(config.text), config.tokens, config.id, config.group)
    return ReadOptions(
        encoding=config.encoding,
        delimiter=config.delimiter,
        quote=config.quote,
        escape=config.escape,
        header=config.header,
        columns=tuple(dict.fromkeys(name for name in (*others, *labels) if name is not None)),
        labels=labels,
    )
