"""Which columns of a file hold the text, the label, the truth and the key."""

from collections.abc import Sequence
from dataclasses import dataclass

from rayclean.config import DatasetConfig
from rayclean.errors import DataError
from rayclean.plugins import did_you_mean


@dataclass(frozen=True)
class SourceColumns:
    """The columns that are read from one file."""

    text: tuple[str, ...]
    label: str | None
    truth: str | None
    key: str | None

    @property
    def names(self) -> list[str]:
        """Each column once."""
        wanted = (*self.text, self.label, self.truth, self.key)
        return list(dict.fromkeys(name for name in wanted if name is not None))


def choose_columns(
    config: DatasetConfig, role: str, found: Sequence[str], url: str, sparse: bool = False
) -> SourceColumns:
    """The columns to read from a file.

    A test file may hold the truth alone; a development or test file need not hold the truth. In a sparse
    format the truth may be known for few rows only, none of them among the first rows, which `found` was read
    from.

    Args:
        config: names the columns.
        role: "data", "dev" or "test".
        found: columns of the file.
        url: the file, for messages.
        sparse: whether rows of this format may leave out columns.

    Raises:
        DataError: a column is missing; the message lists the nearest ones.
    """
    text = (config.text,) if isinstance(config.text, str) else config.text
    label_of_role = {"dev": config.dev.label, "test": config.test.label}.get(role)
    label: str | None = label_of_role or config.label
    truth = config.truth if role == "data" or sparse or config.truth in found else None
    if role == "test" and label_of_role is None and label not in found and truth is not None:
        label = None
    columns = SourceColumns(text, label, truth, config.id)
    for name in columns.names:
        if name not in found and not (sparse and name == truth):
            raise DataError(f"{url}: no column {name!r}; {did_you_mean(name, list(found))}")
    return columns
