"""Files are known by what they hold, and read once."""

import os
import shutil
from pathlib import Path

import pytest

from rayclean import node_cache
from rayclean.artifacts import stamps
from rayclean.errors import DataError
from rayclean.node_cache import SMALL, content_digest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYCLEAN_CACHE", str(tmp_path / "cache"))
    node_cache._digest.cache_clear()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("size", [0, 5, SMALL, SMALL + 1])
def test_a_copy_is_the_same_and_one_other_byte_is_not(tmp_path: Path, size: int) -> None:
    one = write(tmp_path / "a/x.bin", b"a" * size)
    other = Path(shutil.copy(one, write(tmp_path / "b/x.bin", b"")))
    os.utime(other, ns=(1, 1))
    assert content_digest(one) == content_digest(other)
    assert stamps(str(one)) == stamps(str(tmp_path / "b"))
    write(one, b"a" * size + b"b")
    assert content_digest(one) != content_digest(other)
    write(one, b"b" * (size + 1))
    os.utime(one, ns=(2, 2))
    assert content_digest(one) not in (content_digest(other), content_digest(write(other, b"a" * (size + 1))))


def test_a_large_file_is_read_once_by_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a/x.bin", b"a" * SMALL)
    digest = content_digest(path)
    link = tmp_path / "link.bin"
    link.symlink_to(path)
    monkeypatch.setattr(node_cache, "_read", lambda path: pytest.fail(f"{path} was read again"))
    for where in (path, link):
        assert content_digest(where) == digest
        node_cache._digest.cache_clear()  # as in another process
    assert [file.read_text() for file in (tmp_path / "cache/digests").iterdir()] == [digest]


def test_a_very_large_file_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(node_cache, "LARGE", SMALL)
    path = write(tmp_path / "a/x.bin", b"a" * SMALL)
    for _ in range(2):
        content_digest(path)
        node_cache._digest.cache_clear()
    assert capsys.readouterr().err.replace("\n", "").count("once, to know") == 1


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*x\.bin"):
        content_digest(tmp_path / "x.bin")
