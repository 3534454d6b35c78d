"""Runs on W&B, offline: one for each trial, whole, whatever came before, and without the key."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rayclean.errors import ConfigError
from rayclean.fingerprints import fingerprint
from rayclean.folder import Folder
from rayclean.sweeps import tracking
from rayclean.sweeps.plan import Work, make_plan
from rayclean.sweeps.spec import Tracking
from rayclean.sweeps.tracking import LOGGED_FILE, Tracker
from tests.sweeps.bases import sweep
from tests.sweeps.offline import read

wandb = pytest.importorskip("wandb")

KEY = "0123456789abcdef" * 2 + "fakefake"
LINES = [
    {"epoch": 1, "dev_accuracy": 0.5, "loss": 1.25, "note": "not a number"},
    {"epoch": 2, "dev_accuracy": 0.75, "loss": 0.5},
    {"epoch": 3, "dev_accuracy": 0.625, "loss": 0.25},
]
RESULT = {"figures": {"dev_accuracy": 0.75, "tokens": 12.0}, "stopped": False}


@pytest.fixture(scope="module", autouse=True)
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """W&B reads its environment once; it may write nowhere else, and has a key that it must not write."""
    places = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_MODE", raising=False)
        patch.setenv("WANDB_API_KEY", KEY)
        for name in ("CACHE", "CONFIG", "DATA"):
            patch.setenv(f"WANDB_{name}_DIR", str(places / name.lower()))
        wandb.teardown()  # another test may have set it up
        yield places
        wandb.teardown()


@pytest.fixture
def works(tmp_path: Path) -> list[Work]:
    of = sweep(tmp_path, {"detect.budget": {"grid": [0.1, 0.2]}}, name="group", seeds=(0,))
    return list(make_plan(of).work.values())


@pytest.fixture
def folder(tmp_path: Path, works: list[Work]) -> Folder:
    return Folder(str(tmp_path / "sweeps" / "group"))


def tracker(folder: Folder, **more: Any) -> Tracker:
    return Tracker(Tracking(**{"wandb": "offline", "project": "tests", **more}), "group", folder)


def run_id(folder: Folder, work: Work) -> str:
    return fingerprint(folder.url(), work.name)


def runs(folder: Folder, work: Work) -> list[Path]:
    return sorted(Path(folder.path("wandb")).glob(f"offline-run-*-{run_id(folder, work)}"))


def log(of: Tracker, work: Work, folder: Folder, lines: list[dict[str, Any]] = LINES) -> None:
    of.start(work)
    for line in lines:
        of.epoch(work, line)
    of.end(work, RESULT)


def test_a_trial_is_one_run_with_its_epochs_and_its_result(
    works: list[Work], folder: Folder, apart: Path
) -> None:
    work = works[0]
    log(tracker(folder), work, folder)
    (run,) = runs(folder, work)
    found = read(run)
    assert found["id"] == run_id(folder, work)
    assert (found["group"], found["project"]) == ("group", "tests")
    assert found["name"] == "detect.budget=0.1 seed=0"
    assert found["exit"] == 0
    assert found["config"]["detect.budget"] == 0.1
    assert found["config"]["seed"] == 0
    assert found["config"]["config"] == work.config.model_dump(mode="json")
    assert found["history"] == {
        1: {"epoch": 1, "dev_accuracy": 0.5, "loss": 1.25},
        2: {"epoch": 2, "dev_accuracy": 0.75, "loss": 0.5},
        3: {"epoch": 3, "dev_accuracy": 0.625, "loss": 0.25},
    }
    # Of the result, not of the last epoch.
    expected = {"dev_accuracy": 0.75, "tokens": 12.0, "stopped": False}
    assert {key: found["summary"][key] for key in expected} == expected
    assert work.run.read_json(LOGGED_FILE) == {"run": run_id(folder, work), "mode": "offline"}
    files = [path for place in (Path(folder.path()), apart) for path in place.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_trials_at_the_same_time_do_not_mix(works: list[Work], folder: Folder) -> None:
    one = tracker(folder)
    for work in works:
        one.start(work)
    for number, line in enumerate(LINES):
        for work in works:
            one.epoch(work, {**line, "loss": work.point["detect.budget"] + number})
    for work in reversed(works):
        one.end(work, {"figures": {"tokens": work.config.detect.budget}, "stopped": True})
    for work in works:
        (run,) = runs(folder, work)
        found = read(run)
        budget = work.point["detect.budget"]
        assert [each["loss"] for each in found["history"].values()] == [budget, budget + 1, budget + 2]
        assert (found["id"], found["summary"]["tokens"]) == (run_id(folder, work), budget)
        assert found["summary"]["stopped"] is True


def test_what_an_unfinished_attempt_left_is_removed(works: list[Work], folder: Folder) -> None:
    first, other = works
    killed = Path(folder.path("wandb", f"offline-run-20200101_000000-{run_id(folder, first)}"))
    others = Path(folder.path("wandb", f"offline-run-20200101_000000-{run_id(folder, other)}"))
    for left in (killed, others):
        left.mkdir(parents=True)
        (left / "run-x.wandb").write_bytes(b":W&B")
    attempt = tracker(folder)
    attempt.start(first)
    assert not killed.exists()
    attempt.epoch(first, LINES[0])
    attempt.close()
    (unfinished,) = runs(folder, first)
    assert read(unfinished)["exit"] == 1
    assert not first.run.exists(LOGGED_FILE)
    log(tracker(folder), first, folder)
    (run,) = runs(folder, first)
    found = read(run)
    assert found["exit"] == 0
    assert list(found["history"]) == [1, 2, 3]
    assert runs(folder, other) == [others]


def test_a_second_attempt_of_a_worker_goes_on_in_the_same_run(works: list[Work], folder: Folder) -> None:
    work, one = works[0], tracker(folder)
    one.start(work)
    for line in LINES[:2]:
        one.epoch(work, line)
    log(one, work, folder)  # from the first epoch again
    (run,) = runs(folder, work)
    found = read(run)
    assert [each["dev_accuracy"] for each in found["history"].values()] == [0.5, 0.75, 0.625]
    assert list(found["history"]) == [1, 2, 3]


def test_a_finished_trial_is_replayed_from_its_files_once(works: list[Work], folder: Folder) -> None:
    work = works[0]
    tracker(folder).replay(work, RESULT, LINES)
    (run,) = runs(folder, work)
    found = read(run)
    assert [each["dev_accuracy"] for each in found["history"].values()] == [0.5, 0.75, 0.625]
    assert found["summary"]["tokens"] == 12.0
    assert work.run.exists(LOGGED_FILE)
    before = sorted(Path(folder.path("wandb")).rglob("*"))
    again = tracker(folder)
    again.replay(work, RESULT, LINES)
    assert sorted(Path(folder.path("wandb")).rglob("*")) == before
    assert again.runs == {}


def test_a_whole_run_is_not_opened_again(works: list[Work], folder: Folder) -> None:
    """Optuna may draw a point again, in the same attempt or in the next one."""
    work = works[0]
    log(tracker(folder), work, folder)
    before = {path: path.stat().st_size for path in Path(folder.path("wandb")).rglob("*.wandb")}
    again = tracker(folder)
    log(again, work, folder, LINES[:1])
    again.close()
    assert {path: path.stat().st_size for path in Path(folder.path("wandb")).rglob("*.wandb")} == before


def test_sweeps_of_the_same_trial_have_runs_of_their_own(works: list[Work], folder: Folder) -> None:
    one, other = tracker(folder), tracker(Folder(folder.path() + "-again"))
    assert one.id_of(works[0]) != other.id_of(works[0])
    assert one.id_of(works[0]) == tracker(folder).id_of(works[0])


def test_wandb_advertises_nothing_to_who_asks_a_language_model(
    works: list[Work], folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(wandb, "termlog", lambda text, **more: said.append(text))
    monkeypatch.setitem(sys.modules, "openai", ModuleType("openai"))
    log(tracker(folder), works[0], folder)
    assert said == []


def test_a_tracker_that_fails_costs_no_sweep(
    works: list[Work], folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger=tracking.__name__):
        log(tracker(folder, project="no/such:project"), works[0], folder)
    assert works[0].name in caplog.text
    assert not works[0].run.exists(LOGGED_FILE)  # so that it is tried again


@pytest.mark.parametrize(
    ("asked", "said", "key", "mode"),
    [
        ("auto", None, KEY, "online"), ("auto", None, "", "offline"), ("auto", "", KEY, "online"),
        ("auto", "offline", KEY, "offline"), ("auto", "dryrun", KEY, "offline"), ("auto", "ofline", KEY, "offline"),
        ("auto", "online", "", "online"), ("offline", "online", KEY, "offline"), ("online", "offline", "", "online"),
    ],
)  # fmt: skip
def test_where_runs_go(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, asked: str, said: str | None, key: str, mode: str
) -> None:
    """`said` by WANDB_MODE."""
    monkeypatch.setenv("WANDB_API_KEY", key)
    if said is not None:
        monkeypatch.setenv("WANDB_MODE", said)
    found = tracker(folder, wandb=asked)
    assert (found.mode, found.folder) == (mode, folder.path())


def test_off_or_not_installed_is_silent(
    works: list[Work], folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracker(folder, wandb="off").mode == "off"
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        assert tracker(folder, wandb="auto").mode == "off"
        assert tracker(folder, wandb="offline").mode == "offline"
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    silent = tracker(folder, wandb="auto")
    assert silent.mode == "off"
    log(silent, works[0], folder)
    silent.replay(works[0], RESULT, LINES)
    silent.close()
    assert not Path(folder.path()).exists()


def test_offline_needs_a_local_folder(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    remote = Folder("memory://tracking-test/group")
    with pytest.raises(ConfigError, match="offline W&B needs a local folder"):
        tracker(remote)
    monkeypatch.setenv("WANDB_API_KEY", "")
    with caplog.at_level(logging.WARNING, logger=tracking.__name__):
        assert tracker(remote, wandb="auto").mode == "off"
    assert "offline W&B needs a local folder" in caplog.text
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    online = tracker(remote, wandb="auto")
    assert (online.mode, Path(online.folder).exists()) == ("online", True)
    online.close()
    assert not Path(online.folder).exists()


@pytest.mark.parametrize("broken", ["log", "finish"])
def test_a_run_that_breaks_costs_no_trial(
    works: list[Work], folder: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:  # fmt: skip
    finish = wandb.Run.finish

    def breaks(run: Any, *_: object, **__: object) -> None:
        if broken == "finish":  # W&B's process must let go of it: the next attempt is in this very process
            finish(run, exit_code=1)
        raise OSError("no space left on device")

    one = tracker(folder)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, logger=tracking.__name__):
        patch.setattr(wandb.Run, broken, breaks)
        log(one, works[0], folder)
        one.replay(works[1], RESULT, LINES)
        one.close()
    assert all(f"{work.name} is not logged (no space left" in caplog.text for work in works)
    assert not any(work.run.exists(LOGGED_FILE) for work in works)
    again = tracker(folder)
    again.replay(works[0], RESULT, LINES)
    again.close()
    (run,) = runs(folder, works[0])
    assert read(run)["exit"] == 0
