"""Where an export may go: never where the data set is or would read it, and on object stores as on disks."""

import itertools
from pathlib import Path
from typing import Any

import fsspec
import pytest

import rayclean
from rayclean.config.export_section import ExportConfig
from rayclean.errors import ConfigError
from rayclean.exports.export import export_data
from rayclean.results import RunResults
from tests.exports.runs import undoubted


def rows_of(word: str) -> str:
    """A CSV."""
    rows = (f"{word} {n} {n * n},{('spam', 'ham')[n % 2]}\n" for n in range(8))
    return "".join(["text,label\n", *rows])


_numbers = itertools.count()


@pytest.fixture
def store() -> str:
    """A folder of its own on a file system that is no disk."""
    return f"memory://targets-{next(_numbers)}"


def put(url: str, word: str = "words") -> str:
    with fsspec.open(url, "w") as file:
        file.write(rows_of(word))
    return url


def text(url: str) -> str:
    with fsspec.open(url, "r", newline="") as file:
        return str(file.read())


def made(path: Any, tmp_path: Path, **dataset: Any) -> tuple[rayclean.Config, RunResults]:
    return undoubted({"path": path, **dataset}, tmp_path / "runs")


def export(made: tuple[rayclean.Config, RunResults], to: str, **options: Any) -> None:
    export_data(*made, ExportConfig(to=to, **options), decided=False)


@pytest.mark.parametrize("role", ["path", "dev", "test"])
def test_no_file_of_the_data_set_is_replaced(role: str, store: str, tmp_path: Path) -> None:
    rows = put(f"{store}/rows.csv")
    other = put(f"{store}/{role}/other.csv", "others")
    dataset = {} if role == "path" else {role: {"path": other}}
    run = made([rows, other] if role == "path" else rows, tmp_path, **dataset)
    for to in (rows, other, other.replace("memory://", "memory:///"), f"{store}/{role}/", f"{store}/"):
        with pytest.raises(ConfigError, match=r"the data set itself"):
            export(run, to, overwrite=True)
    assert (text(rows), text(other)) == (rows_of("words"), rows_of("others"))


def test_no_file_of_the_data_set_is_replaced_by_another_name_of_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = put(str(tmp_path / "data" / "rows.csv"))
    (tmp_path / "link").symlink_to(tmp_path / "data")
    run = made(f"file://{rows}", tmp_path)
    for to in (rows, f"file://{rows}", str(tmp_path / "link" / "rows.csv"), str(tmp_path / "link")):
        with pytest.raises(ConfigError, match=r"the data set itself"):
            export(run, to, overwrite=True)
    assert text(rows) == rows_of("words")
