"""Whole files, whole folders, fingerprints."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.errors import ArtifactError
from rayclean.fingerprints import fingerprint
from rayclean.folder import Folder
from rayclean.run import Run


def test_a_verb_exists_only_when_committed(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "run"))
    out = run.begin("load", "aaaa")
    out.write_table(pa.table({"x": [1]}), "examples", "part-0.parquet")
    assert run.manifest("load") is None
    with pytest.raises(ArtifactError, match="rayclean load"):
        run.require("load")
    run.commit("load", "aaaa", out, 1.5, {"examples": 1})
    assert run.done("load", "aaaa")
    assert not run.done("load", "bbbb")
    assert run.require("load").shards("examples") == ["part-0.parquet"]
    assert run.manifest("load").metrics == {"examples": 1}


def test_a_file_that_a_killed_process_was_writing_does_not_stay(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    code = (
        "import os, sys; from rayclean.folder import Folder\n"
        "Folder(sys.argv[1]).write_file(lambda path: (open(path, 'w').write('half'), os.kill(os.getpid(), 9)), 'examples', 'a')"
    )
    out = run.begin("load", "aaaa")
    out.write_text("whole", "examples", "b.tmp")
    subprocess.run([sys.executable, "-c", code, out.url()], check=False)
    assert len(out.names("examples")) == 2
    assert run.begin("load", "aaaa").names("examples") == ["b.tmp"]


def test_a_crashed_attempt_is_found_again_and_another_fingerprint_starts_afresh(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    run.begin("predict", "aaaa").write_text("x", "shard")
    assert run.begin("predict", "aaaa").exists("shard")
    assert not run.begin("predict", "bbbb").exists("shard")


def test_commit_replaces_the_old_folder_and_clears_its_partials(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    for print_, name in (("aaaa", "old"), ("bbbb", "new")):
        out = run.begin("detect", print_)
        out.write_text(name, name)
        run.commit("detect", print_, out, 0.0, {})
    assert run.exists("detect", "new")
    assert not run.exists("detect", "old")
    assert os.listdir(tmp_path / ".partial") == []


def test_memory_file_system_behaves_the_same() -> None:
    run = Run("memory://artifacts-test/run")
    out = run.begin("load", "aaaa")
    out.write_table(pa.table({"x": [1, 2]}), "examples", "part-0.parquet")
    run.commit("load", "aaaa", out, 0.0, {})
    assert run.require("load").read_table("examples", "part-0.parquet").num_rows == 2
    assert run.done("load", "aaaa")


def test_foreign_manifest_is_an_error_with_help(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    run.write_text('{"some": "thing"}', "load", "manifest.json")
    with pytest.raises(ArtifactError, match="remove the folder"):
        run.manifest("load")


def test_nan_never_reaches_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Folder(str(tmp_path)).write_json({"x": float("nan")}, "x.json")


def test_killed_writers_leave_no_half_file(tmp_path: Path) -> None:
    """A process that writes the same file for ever is killed: what is there is whole, every time."""
    code = (
        "import sys; from rayclean.folder import Folder\n"
        "f = Folder(sys.argv[1])\n"
        "while True: f.write_text('x' * 2_000_000, 'big')\n"
    )
    for attempt in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
        deadline = time.monotonic() + 20
        while not (tmp_path / "big").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.03 * attempt)
        process.kill()
        process.wait()
        assert (tmp_path / "big").stat().st_size == 2_000_000


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.floats(allow_nan=False))))
def test_fingerprint_does_not_depend_on_key_order(values: dict) -> None:
    assert fingerprint(values) == fingerprint(dict(reversed(values.items())))


def test_fingerprint_tells_types_apart() -> None:
    assert fingerprint(1) != fingerprint("1") != fingerprint([1])
