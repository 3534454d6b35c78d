"""Whether the development and the test files are other files than those of the data: figures on rows that were trained on
measure memory.

Names and contents of files are compared before anything is read; the texts, by the counts of `shared_texts.py`, when all
are. The same rows in another order or another format have the same texts.
"""

from collections.abc import Sequence

from rayclean.datasets.base import SourceFile
from rayclean.datasets.shared_texts import TextCounts
from rayclean.datasets.sources import Source
from rayclean.errors import ConfigError, DataError


def check_roles_differ(sources: Sequence[Source]) -> None:
    """Stop if a file, or a split of a Hugging Face data set, is read both as data and as development or test examples, by
    the same or another path.

    Raises:
        ConfigError: it is; the message names both files and says what to change.
    """
    data = next(source for source in sources if source.role == "data")
    for source in sources:
        for file in source.files if source is not data else ():
            same = next((other for other in data.files if _are_same(data, other, source, file)), None)
            if same is not None:
                raise ConfigError(_refusal(source, file, same))


def check_texts_differ(counts: TextCounts) -> None:
    """Stop if the development or the test files hold the very texts of the data, and no others.

    Raises:
        DataError: they do; the message says what to change.
    """
    for role, same, shared in (
        ("dev", counts.same_dev, counts.shared_dev),
        ("test", counts.same_test, counts.shared_test),
    ):
        if same:
            raise DataError(
                f"the {role} files hold the same texts as the data ({shared:,} {role} examples): figures on them would measure "
                f"what was memorised; hold out a part of the data with dataset.{role}.share, or name other files in "
                f"dataset.{role}.path"
            )


def _are_same(data: Source, ours: SourceFile, source: Source, theirs: SourceFile) -> bool:
    """Whether two files hold the same rows, as far as their names and contents tell."""
    if data.format == "huggingface" and source.format == "huggingface" and data.split != source.split:
        return False
    if ours.url == theirs.url:
        return True
    # The stamp of a local file is a digest of its content; that of another may be no more than a time.
    local = not any("://" in file.url and not file.url.startswith("file://") for file in (ours, theirs))
    return local and ours.size == theirs.size > 0 and ours.stamp == theirs.stamp != ()


def _refusal(source: Source, file: SourceFile, same: SourceFile) -> str:
    role, where = source.role, f"dataset.{source.role}"
    what = f"{file.url!r} is also read as data" + (
        "" if file.url == same.url else f", as {same.url!r}, which has the same content"
    )
    fix = f"hold out a part of the data with {where}.share, or name other files in {where}.path"
    if source.format == "huggingface":
        what = f"the split {source.split!r} of {what}"
        fix = f"name another split in {where}.split, or hold out a part of the data with {where}.share"
    return f"{where}: {what}: figures on the {role} examples would measure what was memorised; {fix}"
