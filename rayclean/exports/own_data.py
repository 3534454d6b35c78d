"""The data set's own files, which no export may replace."""

import os
from collections.abc import Sequence

from fsspec.implementations.local import LocalFileSystem

from rayclean.config.export_section import ExportConfig
from rayclean.datasets import BUILTIN, huggingface
from rayclean.datasets.sources import Source
from rayclean.errors import ConfigError
from rayclean.folder import filesystem


def check_apart(sources: Sequence[Source], options: ExportConfig) -> None:
    """Stop at a target that would take the place of the data set.

    Args:
        sources: all files of the data set, those for development and testing among them.
        options: of the export.

    Raises:
        ConfigError: the target is a file of the data set, or a folder that holds one.
    """
    target = _place(options.to)
    for source in sources:
        for file in source.files:
            if source.format in BUILTIN or file.url.startswith(huggingface.PREFIX):
                continue
            if f"{_place(file.url)}/".startswith(f"{target}/"):
                raise ConfigError(
                    f"export.to = {options.to!r} is the data set itself, which is never replaced (it holds {file.url}); name "
                    "another place"
                )


def _place(url: str) -> str:
    """One spelling for all paths and URLs of the same file."""
    fs, plain = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        return os.path.realpath(plain)
    return str(fs.unstrip_protocol(plain)).rstrip("/")
