"""Files are known by what they hold, and read once."""

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from rayclean import cache as cache_module
from rayclean.cache import CACHE_DAYS, SMALL, cache_folder, cache_root, cached_inputs, content_digests
from rayclean.errors import DataError, ResourceError
from rayclean.fingerprints import stamps


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYCLEAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_seen", {})


def digest(path: Path) -> str:
    """As a process that has not seen the file."""
    cache_module._seen.clear()
    return content_digests([str(path)])[0]


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
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
    monkeypatch.setattr(cache_module, "_read", never_read)
    assert digest(path) == first
    assert [file.read_text() for file in (cache / "digests").iterdir()] == [first]


def test_who_comes_later_waits_for_who_reads(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a/x.bin", b"a" * SMALL)
    digest(path)
    (place,) = (cache / "digests").iterdir()
    monkeypatch.setattr(cache_module, "_read", never_read)
    with ThreadPoolExecutor(1) as other:
        with FileLock(cache / "locks" / f"{place.name}.lock"):
            place.unlink()
            found = other.submit(digest, path)
            time.sleep(0.1)
            assert not found.done()
            place.write_text("ab" * 16)
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


def test_only_what_rayclean_made_and_nobody_uses_is_removed(tmp_path: Path, cache: Path) -> None:
    """The root may be a folder that holds other things: they stay, as do links, converted models and what is in use."""
    own = "features-" + "0" * 16
    killed = "tokens-" + "1" * 16 + ".abc_1"
    used = "tokens-" + "2" * 16
    for name in (
        "precious",
        "models/smollm2-v1",
        f"inputs/{own}",
        f"inputs/{killed}",
        f"inputs/{used}",
        "inputs/mine",
    ):
        write(cache / name / "file", b"x")
    elsewhere = write(tmp_path / "elsewhere/file", b"x").parent
    link = cache / "inputs" / ("tokens-" + "3" * 16)
    link.symlink_to(elsewhere)
    write(cache / "notes.txt", b"x")
    one, other = (write(tmp_path / f"a/{name}", name.encode() * SMALL) for name in "xy")
    digest(one)
    (place,) = (cache / "digests").iterdir()
    digest(other)
    old = time.time() - (CACHE_DAYS + 1) * 86400
    for entry in sorted(cache.rglob("*"), reverse=True):
        os.utime(entry, (old, old), follow_symlinks=False)
    os.utime(elsewhere, (old, old))
    digest(one)
    cached_inputs(used, lambda folder: pytest.fail("it is there"))
    cached_inputs("features-" + "4" * 16, lambda folder: {})  # adding something evicts
    left = {str(entry.relative_to(cache)) for entry in [*cache.iterdir(), *cache.glob("*/*")]}
    left = {name for name in left if not name.startswith("locks")}
    assert left == {
        "digests", f"digests/{place.name}", "inputs", "inputs/mine", f"inputs/{used}", f"inputs/{link.name}",
        f"inputs/features-{'4' * 16}", "models", "models/smollm2-v1", "notes.txt", "precious", "precious/file",
    }  # fmt: skip
    assert (elsewhere / "file").exists()
    assert (cache / "models/smollm2-v1/file").exists()


def test_the_cache_has_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYCLEAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_root() == tmp_path / "x/rayclean"
    assert cache_folder("models") == tmp_path / "x/rayclean/models"
    monkeypatch.setenv("RAYCLEAN_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"


def test_a_home_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAYCLEAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(write(tmp_path / "file", b"") / "below"))
    monkeypatch.setattr(cache_module.tempfile, "gettempdir", lambda: str(tmp_path))
    assert cache_root() == tmp_path / f"rayclean-{os.getuid()}"
    monkeypatch.setenv("RAYCLEAN_CACHE", str(tmp_path / "file/below"))
    with pytest.raises(ResourceError, match="set RAYCLEAN_CACHE to a folder of your own"):
        cache_root()


def test_reading_much_is_shown_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However small the files are."""
    monkeypatch.setattr(cache_module, "LARGE", 3 * 2**20)
    monkeypatch.setattr("rayclean.progress.SECONDS_BETWEEN_LINES", 0)
    paths = [str(write(tmp_path / f"a/{name}", b"a" * 2**20)) for name in "xyz"]
    first = content_digests(paths)
    assert "read files once: 3/3 MiB" in capsys.readouterr().err
    cache_module._seen.clear()
    assert content_digests(paths) == first
    assert capsys.readouterr().err == ""


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*x\.bin: No such file"):
        content_digests([str(tmp_path / "x.bin")])
