"""Faults of the machine: one line that names the path, nothing lost, and the same command goes on."""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import rayclean
from rayclean.errors import ArtifactError, FaultError, RaycleanError
from rayclean.faults import fault, faults_explained
from rayclean.pipeline import run_verbs
from rayclean.run import VERBS, Run
from tests import toy
from tests.command import Ended, run_command
from tests.full_disk import files_of_at_most


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left", "/runs/a/x"), "cannot write '/runs/a/x': the disk is full; make room"),
        (OSError(errno.EDQUOT, "Quota", "/runs/a/x"), "cannot write '/runs/a/x': the disk quota is used up"),
        (OSError(errno.EROFS, "Read-only", "/runs/a/x"), "cannot write '/runs/a/x': it is on a read-only file system"),
        (OSError(errno.ENOENT, "No such file", "/runs/a/x"), "'/runs/a/x': it is gone"),
        (PermissionError(errno.EACCES, "Denied", b"/runs/\xff"), "'/runs/\\udcff': it may not be read or written"),
        (OSError(errno.EIO, "I/O"), "cannot use '/runs/a': its disk reports an input/output error"),
        (OSError("[Errno 28] Error writing bytes. Detail: [errno 28] No space left"), "'/runs/a': the disk is full"),
        (RuntimeError("IoError(Os { code: 28, kind: StorageFull })"), "cannot write to '/runs/a': the disk is full"),
        (MemoryError(), "the machine has no memory left"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "the GPU has no memory left"),
        (RuntimeError("CUDA error: unspecified launch failure"), "the GPU failed or is lost"),
        (OSError("cannot load the tokenizer"), "cannot load the tokenizer"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_with_the_path(error: Exception, said: str) -> None:
    found = fault(error, "/runs/a")
    assert found is not None
    assert said in found
    assert "\n" not in found


def test_ray_s_errors_are_faults_unless_the_task_s_own_error_says_more() -> None:
    from ray.exceptions import ActorDiedError, RayTaskError

    found = fault(ActorDiedError(), "/runs/a")
    assert found is not None
    assert found.startswith("Ray failed under the work (ActorDiedError")
    full = RayTaskError("f", "Traceback ...", OSError(errno.ENOSPC, "No space left", "/runs/a/x"))
    assert fault(full, "/runs/a") == "cannot write '/runs/a/x': the disk is full; make room"
    assert fault(RayTaskError("f", "Traceback ...", KeyError("x")).as_instanceof_cause(), "/runs/a") is None


def test_a_map_of_ray_that_gets_nowhere_says_what_to_do() -> None:
    from ray.data.exceptions import ExecutionTimeoutError

    error = ExecutionTimeoutError(
        "Dataset execution made no progress for at least 1800s. No output\nOperators: x"
    )
    with (
        pytest.raises(
            FaultError, match=r"at least 1800s\): end what holds the cluster .*rows_per_shard"
        ) as caught,
        faults_explained("/runs/a"),
    ):
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [KeyError("x"), ValueError("3"), RuntimeError("shapes differ"), AssertionError()]
)
def test_a_mistake_in_the_code_is_no_fault(error: Exception) -> None:
    assert fault(error, "/runs/a") is None
    with pytest.raises(type(error)) as caught, faults_explained("/runs/a"):
        raise error
    assert caught.value is error


def test_an_error_that_says_what_to_do_is_left_as_it_is() -> None:
    with pytest.raises(ArtifactError, match="run it again"), faults_explained("/runs/a"):
        raise ArtifactError("run it again") from FileNotFoundError(2, "No such file", "/runs/a/x")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Run]:
    """Values of a config, and what a run without any fault ends with."""
    folder = tmp_path_factory.mktemp("calm")
    values = toy.config(toy.write(folder / "data", rows=240, files=1), folder / "runs", name="calm")
    values["cluster"] = {"ray": False}
    values["dataset"]["rows_per_shard"] = 1000
    values["evaluate"] = {"compare": False}
    return values, rayclean.clean(rayclean.parse_config(values))


def final_labels(run: Run) -> list[dict[str, Any]]:
    tables = [run.read_table("relabel", "labels", shard) for shard in run.shards("relabel", "labels")]
    return [row for table in tables for row in table.to_pylist()]


def copied(run: Run, folder: Path, verb: str) -> Run:
    """A copy of a run in which a verb and those after it have not run."""
    shutil.copytree(run.path(), folder / "copy")
    for later in VERBS[VERBS.index(verb) :]:
        shutil.rmtree(folder / "copy" / later)
    return Run(str(folder / "copy"))


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_in_every_verb(verb: str, calm: tuple[dict[str, Any], Run], tmp_path: Path) -> None:
    values, before = calm
    run = copied(before, tmp_path, verb)
    config = rayclean.parse_config({**values, "output": str(tmp_path), "name": "copy"})
    size = len(config.model_dump_json(indent=1)) + 100
    with files_of_at_most(size), pytest.raises(FaultError, match="beyond the limit of its size") as caught:
        run_verbs(config, [verb])
    assert repr(str(tmp_path / "copy"))[:-1] in str(caught.value), "no path"
    assert "the same command goes on" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(Path(run.path()).rglob("*.tmp"))
    for earlier in VERBS[: VERBS.index(verb)]:
        assert run.manifest(earlier) is not None
    run_verbs(config, [verb])
    again, once = run.manifest(verb), before.manifest(verb)
    assert again is not None
    assert once is not None
    assert again.fingerprint == once.fingerprint
    if verb == "relabel":
        assert final_labels(run) == final_labels(before)


def test_a_folder_that_vanishes_under_a_run(calm: tuple[dict[str, Any], Run], tmp_path: Path) -> None:
    values, before = calm
    run = copied(before, tmp_path, "train")
    config = rayclean.parse_config({**values, "output": str(tmp_path), "name": "copy"})

    def vanish(record: dict[str, Any]) -> None:
        shutil.rmtree(run.path(), ignore_errors=True)

    with pytest.raises(RaycleanError, match=str(tmp_path / "copy")):
        run_verbs(config, ["train", "evaluate"], on_epoch=vanish)


@pytest.mark.parametrize("taken", ["runs", "runs/toy"])
def test_a_file_in_the_way_of_the_run_folder(taken: str, tmp_path: Path) -> None:
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).touch()
    values = toy.config(toy.write(tmp_path / "data", rows=40), tmp_path / "runs")
    with pytest.raises(RaycleanError, match=r"runs/toy.*choose another folder"):
        rayclean.load(rayclean.parse_config(values))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    return lambda *arguments: run_command(*arguments, capsys=capsys, monkeypatch=monkeypatch)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system with options; skips where that is not permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        line = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if (
            os.getuid()
            or shutil.which("mount") is None
            or subprocess.run(line, capture_output=True).returncode
        ):
            pytest.skip("no file system can be mounted here")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


def test_the_command_line_on_a_full_and_on_a_read_only_disk(
    tmp_path: Path, mounted: Callable[[str], Path], command: Callable[..., Ended]
) -> None:
    disk = mounted("size=96m")
    values = toy.config(toy.write(tmp_path / "data", rows=200), disk / "runs")
    values["cluster"] = {"ray": False}
    config = tmp_path / "config.json"
    config.write_text(json.dumps(values))
    assert command("load", str(config)).code == 0
    with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(2**16))
    full = command("predict", str(config))
    assert full.code == 1
    assert f"fault error: cannot write '{disk}/runs/toy/" in full.stderr
    assert "the disk is full; make room" in full.stderr
    assert full.stderr.endswith(f"go on with: rayclean predict {config}\n")
    assert "Traceback" not in full.stderr
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, capture_output=True)
    read_only = command("predict", str(config))
    assert read_only.code == 1
    assert f"cannot write '{disk}/runs/toy/" in read_only.stderr
    assert "read-only file system" in read_only.stderr
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True, capture_output=True)
    (disk / "filler").unlink()
    done = command("predict", str(config))
    assert done.code == 0, done.stderr
    assert "load: done before" not in done.stderr
