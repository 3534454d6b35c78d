"""Data, artifacts, ledger and checkpoints on an S3 server: nothing needs a local disk for more than a cache."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rayclean import pipeline
from rayclean.annotators.ledger import Ledger
from rayclean.annotators.query import Annotation
from rayclean.config import parse_config
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.models.loading import DESCRIPTION
from rayclean.run import Run
from tests import toy
from tests.cluster.object_store import BUCKET, object_store


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """URL of an empty bucket."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    with object_store():
        yield f"s3://{BUCKET}"


def test_whole_files_and_listings_that_are_never_stale(s3: str) -> None:
    folder = Folder(f"{s3}/plain")
    assert not folder.is_local
    assert folder.shards() == []
    folder.write_json({"a": 1}, "x", "y.json")
    folder.write_table(pa.table({"example_id": [1, 2]}), "part-00000.parquet")
    assert folder.shards() == ["part-00000.parquet"]
    # Another process, which shares no cache with this one.
    code = (
        f"from rayclean.folder import Folder; Folder({folder.url()!r}).write_text('z', 'part-00001.parquet')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert folder.shards() == ["part-00000.parquet", "part-00001.parquet"]
    assert folder.exists("part-00001.parquet")
    folder.remove("x")
    assert not folder.exists("x", "y.json")


def test_a_write_that_is_interrupted_leaves_nothing(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file object that an exception closes would upload what it has got, and look whole."""
    folder = Folder(f"{s3}/interrupted")

    def stopped(table: pa.Table, sink: Any, **options: Any) -> None:
        sink.write(b"PAR1")
        raise SystemExit(143)

    monkeypatch.setattr("rayclean.folder.pq.write_table", stopped)
    with pytest.raises(SystemExit):
        folder.write_table(pa.table({"example_id": [1]}), "part-00000.parquet")
    assert folder.shards() == []


def test_a_mistyped_bucket_is_told_and_not_made(s3: str, tmp_path: Path) -> None:
    import s3fs

    values = toy.config(toy.write(tmp_path / "data", rows=40), tmp_path)
    values["output"] = "s3://noisy-lables/runs"
    with pytest.raises(ConfigError, match="output: cannot write to s3://noisy-lables/runs/toy"):
        pipeline.load(parse_config(values))
    assert [name.partition("/")[0] for name in s3fs.S3FileSystem().ls("")] == [BUCKET]


def test_a_verb_is_whole_only_with_its_manifest(s3: str) -> None:
    run = Run(f"{s3}/runs/one")
    partial = run.begin("load", "aa")
    partial.write_text("1", "examples", "part-00000.parquet")
    assert run.manifest("load") is None
    run.commit("load", "aa", partial, 1.0, {"examples": 1})
    assert run.done("load", "aa")
    assert run.require("load").shards("examples") == ["part-00000.parquet"]
    assert not run.exists(".partial", "load-aa")
    other = run.begin("load", "bb")
    other.write_text("2", "examples", "part-00007.parquet")
    run.commit("load", "bb", other, 1.0, {})
    assert run.require("load").shards("examples") == [
        "part-00007.parquet"
    ]  # nothing of the old folder is left


async def test_the_ledger(s3: str) -> None:
    folder = Folder(f"{s3}/ledger")
    ledger = Ledger(folder, "a")
    keys = [f"{number:032x}" for number in range(100)]
    for number, key in enumerate(keys):
        await ledger.put(Annotation(key, number, choice=0, session="a"))
    ledger.close()
    again = Ledger(folder, "a")
    assert set(again.lookup(keys)) == set(keys)
    assert again.spent.queries == 100


def start(config: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rayclean", "clean", str(config)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.slow
def test_a_whole_run_on_s3_killed_and_gone_on_with(s3: str, tmp_path: Path) -> None:
    import s3fs

    local = toy.write(tmp_path / "data", rows=400)
    s3fs.S3FileSystem().put(f"{local}/", f"{BUCKET}/data/", recursive=True)
    values = toy.config(Path("unused"), Path("unused"), name="noiseal")
    values["output"] = f"{s3}/runs"
    values["dataset"]["path"] = f"{s3}/data/*.parquet"
    values["dataset"]["labels"] = list(toy.TOPICS)
    Folder(f"{s3}/known").write_table(toy.true_labels(local), "part-00000.parquet")
    values["annotator"] = {"name": "simulated", "truth_path": f"{s3}/known"}
    values["method"] = {"name": "noiseal"}
    values["train"] = {"epochs": 3}
    config = tmp_path / "config.json"
    config.write_text(json.dumps(values))
    run = Run(f"{s3}/runs/noiseal")
    for ready in ("predict", "relabel"):  # killed once in detect or so, once in train
        process = start(config)
        until = time.monotonic() + 300
        while run.manifest(ready) is None:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.2)
        os.killpg(process.pid, 9)
        process.wait()
    process = start(config)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    metrics = run.read_json("metrics.json")
    assert metrics["noise"]["final"] < metrics["noise"]["given"]
    assert run.exists("report.html")
    assert run.exists("train", "model", DESCRIPTION)
    # The same on a local disk: not a figure differs.
    values |= {"output": str(tmp_path / "runs")}
    values["dataset"]["path"] = str(local)
    config.write_text(json.dumps(values))
    process = start(config)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    same = Run(str(tmp_path / "runs" / "noiseal")).read_json("metrics.json")
    for section in ("noise", "harm", "detection"):
        assert metrics[section] == same[section]
    status = subprocess.run(
        [sys.executable, "-m", "rayclean", "status", f"{s3}/runs/noiseal"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "complete" in status.stdout
