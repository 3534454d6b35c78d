"""Files are known by what they hold, and read once."""

import fcntl
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rayclean import node_cache
from rayclean.artifacts import stamps
from rayclean.errors import DataError
from rayclean.node_cache import CACHE_DAYS, SMALL, content_digests, forget_old


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYCLEAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_cache, "_seen", {})


def digest(path: Path) -> str:
    """As a process that has not seen the file."""
    node_cache._seen.clear()
    return content_digests([str(path)])[0]


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def never_read(path: str) -> str:
    pytest.fail(f"{path} was read again")


@pytest.mark.parametrize("size", [0, 5, SMALL, SMALL + 1])
def test_a_copy_is_the_same_and_one_other_byte_is_not(tmp_path: Path, size: int) -> None:
    one = write(tmp_path / "a/x.bin", b"a" * size)
    other = Path(shutil.copy(one, write(tmp_path / "b/x.bin", b"")))
    os.utime(other, ns=(1, 1))
    assert digest(one) == digest(other)
    assert stamps(str(one)) == stamps(str(tmp_path / "b"))
    before = one.stat()
    write(one, b"b" * size)
    os.utime(one, ns=(before.st_atime_ns, before.st_mtime_ns))  # as an archive with fixed times
    assert (digest(one) == digest(other)) == (size == 0)


def test_a_large_file_is_read_once_by_all_processes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a/x.bin", b"a" * SMALL)
    first = digest(path)
    monkeypatch.setattr(node_cache, "_read", never_read)
    assert digest(path) == first
    assert [file.read_text() for file in (cache / "digests").iterdir()] == [first]


def test_who_comes_later_waits_for_who_reads(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a/x.bin", b"a" * SMALL)
    digest(path)
    (place,) = (cache / "digests").iterdir()
    monkeypatch.setattr(node_cache, "_read", never_read)
    with open(place, "a+") as kept, ThreadPoolExecutor(1) as other:
        fcntl.flock(kept, fcntl.LOCK_EX)
        kept.truncate(0)
        found = other.submit(digest, path)
        time.sleep(0.1)
        assert not found.done()
        kept.write("ab" * 16)
        kept.flush()
        fcntl.flock(kept, fcntl.LOCK_UN)
        assert found.result() == "ab" * 16


@pytest.mark.parametrize("broken", ["", "ab", "\0" * 32])
def test_what_a_crash_left_is_not_believed(tmp_path: Path, cache: Path, broken: str) -> None:
    path = write(tmp_path / "a/x.bin", b"a" * SMALL)
    first = digest(path)
    (place,) = (cache / "digests").iterdir()
    place.write_text(broken)
    assert digest(path) == first == place.read_text()


def test_a_cache_that_cannot_be_used_costs_time_alone(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "a/x.bin", b"a" * SMALL)
    first = digest(path)
    shutil.rmtree(cache)
    cache.write_text("a file where a folder should be")
    assert digest(path) == first


def test_what_nobody_used_is_removed(tmp_path: Path, cache: Path) -> None:
    one, other = (write(tmp_path / f"a/{name}", name.encode() * SMALL) for name in "xy")
    digest(one)
    (place,) = (cache / "digests").iterdir()
    digest(other)
    (cache / "features-1").mkdir()
    (cache / "features-2").mkdir()
    old = time.time() - (CACHE_DAYS + 1) * 86400
    for entry in [*(cache / "digests").iterdir(), cache / "digests", cache / "features-1"]:
        os.utime(entry, (old, old))
    digest(one)  # used
    forget_old(cache)
    assert sorted(entry.name for entry in cache.iterdir()) == ["digests", "features-2"]
    assert [*(cache / "digests").iterdir()] == [place]


def test_reading_much_is_shown_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However small the files are."""
    monkeypatch.setattr(node_cache, "LARGE", 3 * 2**20)
    monkeypatch.setattr("rayclean.progress.SECONDS_BETWEEN_LINES", 0)
    paths = [str(write(tmp_path / f"a/{name}", b"a" * 2**20)) for name in "xyz"]
    first = content_digests(paths)
    assert "read files once: 3/3 MiB" in capsys.readouterr().err
    node_cache._seen.clear()
    assert content_digests(paths) == first
    assert capsys.readouterr().err == ""


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*x\.bin: No such file"):
        content_digests([str(tmp_path / "x.bin")])
