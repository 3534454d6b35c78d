"""Where an export may go: never where the data set is or would read it, and on object stores as on disks."""

import itertools
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import rayclean
from rayclean.config import DatasetConfig
from rayclean.config.export_section import ExportConfig
from rayclean.datasets.sources import find_sources
from rayclean.errors import ConfigError, DataError
from rayclean.exports.csv_files import CsvFiles
from rayclean.exports.export import export_data
from rayclean.exports.own_data import check_apart
from rayclean.exports.target import check_target
from rayclean.folder import Folder
from rayclean.results import RunResults
from tests.exports.runs import QUICK, undoubted


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


def test_an_upload_that_was_cut_off_goes_on(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    for word in ("one", "two"):
        put(str(tmp_path / "data" / f"{word}.csv"), word)
    run = made(str(tmp_path / "data"), tmp_path)
    to = Folder(f"{store}/out")

    def cut_off(fs: MemoryFileSystem, local: str, remote: str, **options: Any) -> None:
        fs.put_file(f"{local}one.csv", f"{remote}one.csv")
        raise OSError("the line is dead")

    for before in (
        [],
        ["_rayclean_export.json", "one.csv", "two.csv"],
    ):  # a new target, then one that is replaced
        assert to.names() == before
        with monkeypatch.context() as patched:
            patched.setattr(MemoryFileSystem, "put", cut_off)
            with pytest.raises(OSError, match="the line is dead"):
                export(run, to.url(), overwrite=bool(before))
        assert to.names() == ["_rayclean_unfinished.json", "one.csv"]
        with pytest.raises(DataError, match=r"a part of an export: run the export again"):
            find_sources(DatasetConfig(path=to.url()))
        with pytest.raises(ConfigError, match=r"there already"):  # another run has no right to it
            check_target(ExportConfig(to=to.url()), "memory://another/run")
        check_target(ExportConfig(to=to.url(), overwrite=True), "memory://another/run")
        export(run, to.url())
        assert to.names() == ["_rayclean_export.json", "one.csv", "two.csv"]
        assert len(find_sources(DatasetConfig(path=to.url()))[0].files) == 2
    with pytest.raises(ConfigError, match=r"there already"):
        export(run, to.url())


@pytest.mark.parametrize("to", ["out.csv", "out/"])
def test_what_is_killed_while_parts_are_joined_leaves_nothing_that_looks_whole(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    for word in ("one", "two"):
        put(str(tmp_path / "data" / f"{word}.csv"), word)
    run = made(str(tmp_path / "data"), tmp_path)
    done, joined = f"{tmp_path}/done{to[3:]}", CsvFiles.join
    export(run, done)

    def killed(self: CsvFiles, parts: Folder, names: Any, path: str) -> None:
        joined(self, parts, names, path)
        if Path(path).name != "one.csv":
            Path(path).write_bytes(Path(path).read_bytes()[:20])
            raise KeyboardInterrupt

    for before in (False, True):  # a new target, then one that is replaced
        with monkeypatch.context() as patched:
            patched.setattr(CsvFiles, "join", killed)
            with pytest.raises(KeyboardInterrupt):
                export(run, f"{tmp_path}/{to}", overwrite=before)
        found = sorted(each.name for each in tmp_path.iterdir() if each.name.startswith(("out", ".out")))
        assert found == ([to.rstrip("/")] if before else [])
        export(run, f"{tmp_path}/{to}", overwrite=before)
        for name in ("one.csv", "two.csv") if to == "out/" else ("",):
            assert (tmp_path / to / name).read_bytes() == (Path(done) / name).read_bytes()


@pytest.mark.parametrize(
    ("path", "to", "refused"),
    [
        ("data/*.csv", "data/cleaned.csv", True),
        ("data/*.csv", "data/cleaned.parquet", False),
        ("data/*.csv", "cleaned.csv", False),
        ("data/*.csv", "data/cleaned/", False),
        ("data/**/*.csv", "data/cleaned/", True),
        ("data", "data/deep/cleaned.parquet", True),
        ("data", "data/_cleaned.csv", False),
        ("data", "database.csv", False),
        ("data/rows.csv", "data/cleaned.csv", False),
    ],
)
@pytest.mark.parametrize("remote", [False, True])
def test_no_export_becomes_a_part_of_the_data_set(
    path: str, to: str, refused: bool, remote: bool, store: str, tmp_path: Path
) -> None:
    root = store if remote else str(tmp_path)
    (tmp_path / "data").mkdir()
    put(f"{root}/data/rows.csv")
    options = ExportConfig(to=f"{root}/{to}")
    config = rayclean.parse_config({"dataset": {"path": f"{root}/{path}"}})
    sources = find_sources(config.dataset)
    if not refused:
        check_apart(config.dataset, sources, options)
        return
    with pytest.raises(ConfigError, match=r"dataset.path = .* name a place outside"):
        check_apart(config.dataset, sources, options)


def test_a_target_among_the_data_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    put(str(tmp_path / "data" / "rows.csv"))
    dev = put(str(tmp_path / "dev.csv"), "others")
    values = {
        **QUICK,
        "output": str(tmp_path / "runs"),
        "dataset": {"path": str(tmp_path / "data" / "*.csv"), "dev": {"path": dev}},
        "export": str(tmp_path / "link" / "cleaned.csv"),
    }
    with pytest.raises(ConfigError, match=r"name a place outside"):
        rayclean.clean(rayclean.parse_config(values))
    values["dataset"]["dev"]["path"] = f"{dev[:-7]}d*.csv"
    with pytest.raises(ConfigError, match=r"dataset.dev.path"):
        rayclean.clean(rayclean.parse_config({**values, "export": str(tmp_path / "done.csv")}))
    assert not list((tmp_path / "runs").glob("*/load"))
