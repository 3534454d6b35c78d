"""A sweep on real parts: what trials share runs once, nothing runs twice whatever was killed, W&B has one run per trial."""

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

import rayclean
from rayclean import pipeline, progress
from rayclean.config import load_config
from rayclean.errors import ArtifactError, ConfigError, RaycleanError
from rayclean.evaluation.example_rows import changed_examples
from rayclean.fingerprints import fingerprint
from rayclean.folder import Folder
from rayclean.progress import say
from rayclean.runtime import serve, tune
from rayclean.runtime.trial_slots import TrialSlots
from rayclean.sweeps import shared
from rayclean.sweeps import trial as trials
from rayclean.sweeps.observer import SweepObserver
from rayclean.sweeps.plan import SweepPlan, base_values, make_plan
from rayclean.sweeps.resume import finished_trials, same_sweep, take_over
from rayclean.sweeps.shared import SharedVerbs
from rayclean.sweeps.spec import Sweep, Tracking, Trials
from rayclean.sweeps.sweep import report_sweep, run_sweep
from rayclean.sweeps.sweep_file import load_sweep
from rayclean.sweeps.tracking import Tracker
from tests import toy
from tests.annotators.hostile import serve_in_process
from tests.models import tiny
from tests.sweeps.offline import read

KEYS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "LLM_KEY": "sk-fedcba9876543210fedcba9876543210",
}
OFFLINE = {"wandb": "offline"}
DOWN = {"name": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "m", "health_timeout": 1.0}
"""An annotator that is not there."""


def spec(tmp_path: Path, **values: Any) -> Sweep:
    """A sweep over toy data with a bag of words; trials re-run from cached predictions unless `space` says otherwise."""
    base = tmp_path / "base.json"
    if not base.exists():
        config = toy.config(toy.write(tmp_path / "data", rows=200), tmp_path / "runs")
        config["predict"] = {"mode": "in_sample", "training": {"epochs": 3}}
        base.write_text(json.dumps(config))
    own = {
        "name": "toy",
        "base": str(base),
        "output": str(tmp_path / "sweeps"),
        "seeds": [0],
        "space": {"detect.budget": {"grid": [0.1, 0.2]}, "relabel.accept": {"grid": [0.5, 0.9]}},
        "tracking": {"wandb": "off"},
    }
    return Sweep(**{**own, **values})


def stored(tmp_path: Path, verb: str) -> list[str]:
    return sorted(
        path.name for path in (tmp_path / "sweeps" / "toy" / "store").glob(f"{verb}-*") if path.is_dir()
    )


def logged(tmp_path: Path) -> dict[str, Path]:
    """W&B's offline runs by id."""
    folders = list((tmp_path / "sweeps" / "toy" / "wandb").glob("offline-run-*"))
    by_id = {folder.name.rpartition("-")[2]: folder for folder in folders}
    assert len(by_id) == len(folders)
    return by_id


def run_ids(tmp_path: Path, trials: Iterable[str]) -> set[str]:
    """The ids that the trials' runs must have."""
    return {fingerprint(str(tmp_path / "sweeps" / "toy"), name) for name in trials}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_cached_trials_share_and_grow(
    tmp_path: Path, ray_embedded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a terminal, where bars hold locks that nothing may copy to other processes.
    monkeypatch.setattr(progress, "console", Console(file=Terminal(), force_terminal=True))
    base = load_config(spec(tmp_path).base, ["cluster.ray=false"])
    knows = {"name": "simulated", "truth_path": rayclean.load(base).url("load", "truth")}
    first = spec(tmp_path, set={"annotator": knows})
    results = run_sweep(first)
    assert results.failed == {}
    assert "4/4" in progress.console.file.getvalue()  # type: ignore[attr-defined]
    assert [row.point for row in results.rows] == [
        {"detect.budget": b, "relabel.accept": a} for b in (0.1, 0.2) for a in (0.5, 0.9)
    ]
    assert [len(stored(tmp_path, verb)) for verb in ("load", "predict", "detect", "relabel", "train")] == [
        1,
        1,
        2,
        4,
        0,
    ]
    changed = [row.figures["changed"].mean for row in results.rows]
    assert changed[0] >= changed[1]
    assert changed[2] >= changed[3]
    assert changed[2] > changed[0]

    # The same command runs nothing; another space is refused, or grows when asked to.
    before = {
        name: os.stat(tmp_path / "sweeps/toy/store" / name).st_mtime_ns
        for name in stored(tmp_path, "relabel")
    }
    assert run_sweep(first).rows == results.rows
    space = {**first.model_dump()["space"], "detect.budget": {"grid": [0.1, 0.2, 0.3]}}
    larger = spec(tmp_path, set={"annotator": knows}, space=space)
    with pytest.raises(ArtifactError, match="--extend"):
        run_sweep(larger)
    grown = run_sweep(larger, extend=True)
    assert grown.rows[:4] == results.rows
    after = {
        name: os.stat(tmp_path / "sweeps/toy/store" / name).st_mtime_ns
        for name in stored(tmp_path, "relabel")
    }
    assert before.items() <= after.items()
    assert len(after) == 6
    assert len(stored(tmp_path, "predict")) == 1

    # Everything is there to be read again.
    assert report_sweep(larger).rows == grown.rows
    page = (tmp_path / "sweeps" / "toy" / "report.html").read_text()
    assert "detect.budget=0.1" in page


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder with a short path, for the sockets of a Ray."""
    folder = Path(tempfile.mkdtemp(prefix="key-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.ray
def test_trials_that_train_by_the_command_line(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All six verbs in every trial, of a config whose data lie where the command is given. The keys of W&B and of an
    annotator are in the environment before the sweep's own Ray starts, so that every worker has them, and are written
    nowhere.
    """
    monkeypatch.chdir(tmp_path)
    values = json.loads(Path(spec(tmp_path).base).read_text())
    for path in Path("data").iterdir():  # the annotator knows a label by the asterisk before its word
        table = pq.read_table(path)
        texts = [f"{row['text']} *{row['truth']}" for row in table.to_pylist()]
        pq.write_table(table.set_column(table.column_names.index("text"), "text", [texts]), path)
    values["dataset"]["path"] = "data"
    values["predict"]["training"]["epochs"] = 1
    values["annotator"] = {"name": "openai", "model": "tiny", "form": "choice", "api_key_env": "LLM_KEY"}
    Path("base.json").write_text(json.dumps(values))
    places = {
        name: str(temporary) for name in ("RAY_TMPDIR", "TMPDIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")
    }
    with serve_in_process() as server:
        one = spec(
            tmp_path,
            output="sweeps",
            set={"annotator.base_url": server.url},
            space={"train.epochs": {"grid": [1, 2]}},
            objectives="dev_accuracy",
            tracking={"wandb": "offline", "changes": 3},
        )
        Path("sweep.json").write_text(one.model_dump_json())
        told = subprocess.run(
            [sys.executable, "-m", "rayclean", "sweep", "sweep.json"],
            env=os.environ | places | KEYS,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=900,
            check=False,
        ).stdout
    assert {sent["authorization"] for sent in server.headers} == {f"Bearer {KEYS['LLM_KEY']}"}, told.decode()

    results = report_sweep(one)
    assert results.failed == {}, told.decode()
    assert [row.point["train.epochs"] for row in results.rows] == [1, 2]
    assert [len(row.epochs[0]) for row in results.rows] == [1, 2]
    assert all({"dev_accuracy", "accuracy", "noise_final"} <= set(row.figures) for row in results.rows)
    verbs = ("predict", "relabel", "train", "evaluate")
    assert [len(stored(tmp_path, verb)) for verb in verbs] == [1, 1, 2, 2]
    assert results.best is not None

    folder, plan, runs = tmp_path / "sweeps" / "toy", make_plan(one), logged(tmp_path)
    assert runs.keys() == run_ids(tmp_path, plan.work)
    for name, work in plan.work.items():
        table = changed_labels(runs[fingerprint(str(folder), name)])
        assert table == changed_examples(work.run, 3)
        assert len(table) == 3
        assert all(change["given"] != change["final"] for change in table)
        assert all(f"*{change['final']}" in change["text"] for change in table)
    assert list(temporary.glob("ray/session_*/logs/*worker*")), "no logs of Ray"
    files = [path for place in (tmp_path, temporary) for path in place.rglob("*") if path.is_file()]
    for key in KEYS.values():
        assert key.encode() not in told
        assert [path for path in files if key.encode() in path.read_bytes()] == []


def changed_labels(run: Path) -> list[dict[str, Any]]:
    """The table of changed labels in an offline run."""
    (file,) = [line["changes.path"] for line in read(run)["history"].values() if "changes.path" in line]
    table = json.loads((run / "files" / file).read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


@pytest.mark.slow
def test_time_ends_a_sweep_and_the_same_command_goes_on(
    tmp_path: Path, ray_embedded: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trials wait for an annotator that does not answer, until it does."""
    slow = [True]
    with serve_in_process(lambda prompt, before: "hang" if slow else None) as server:
        one = spec(
            tmp_path,
            set={"annotator": {"name": "openai", "base_url": server.url, "model": "tiny", "form": "choice"}},
            space={"detect.budget": {"grid": [0.05, 0.1]}},
            trials={"seconds": 1.0},
        )
        results = run_sweep(one)
        assert (results.rows, results.failed) == ([], {})
        assert "2 trials have no result yet; the same command goes on" in capsys.readouterr().err
        slow.clear()
        results = run_sweep(one.model_copy(update={"trials": Trials(seconds=500.0)}))
    assert [row.point["detect.budget"] for row in results.rows] == [0.05, 0.1]
    assert len(stored(tmp_path, "predict")) == 1


@pytest.mark.parametrize(("passed", "stopped"), [(2.0, []), (0.0, [True])])
def test_a_trial_ended_by_time_was_not_stopped_for_its_figures(
    tmp_path: Path, passed: float, stopped: list[bool]
) -> None:
    one = spec(
        tmp_path, space={"train.epochs": {"grid": [3]}}, objectives="dev_accuracy", trials={"seconds": 1.0}
    )
    plan, folder = make_plan(one), Folder(str(tmp_path / "sweeps" / "toy"))
    news = SweepObserver(plan, Tracker(Tracking(wandb="off"), "toy", folder), 1)
    news.begun = time.monotonic() - passed
    trial = {"name": next(iter(plan.work))}
    news.started(trial)
    news.epoch_ended(trial, {"epoch": 1, "epochs": 3, "dev_accuracy": 0.5})
    news.ended(trial, None)
    assert [result["stopped"] for result in trials.trial_files(folder, trials.RESULT).values()] == stopped


@pytest.mark.slow
def test_a_frozen_encoder_reads_each_text_once(tmp_path: Path, ray_embedded: None) -> None:
    """For all noise rates and seeds, which give other labels and other predictions."""
    one = spec(tmp_path)
    values = json.loads(Path(one.base).read_text())
    body = tiny.write(tmp_path / "tiny")
    values["encoder"] = {"name": "transformer", "model": body, "trainable": "head", "max_length": 32}
    values["predict"]["training"]["epochs"] = 1
    del values["dataset"]["truth"]
    Path(one.base).write_text(json.dumps(values))
    noise = {"dataset.noise.rate": {"grid": [0.1, 0.3]}}
    own = spec(tmp_path, seeds=[0], space=noise, trains=False)
    tables, rates = [], []
    for work in make_plan(own).work.values():
        run = work.run
        pipeline.run_verbs(work.config, ("load", "predict"), run=run)
        metrics = run.manifest("predict").metrics
        rates.append(metrics["examples_per_second"])
        tables.append({
            name: [run.sub("predict", name).read_table(shard) for shard in run.shards("predict", name)]
            for name in ("features", "test_features", "predictions")
        })  # fmt: skip
    assert rates[0] > 0
    assert rates[1] is None  # nothing was left to compute
    for name in ("features", "test_features"):
        assert all(a.equals(b) for a, b in zip(*(table[name] for table in tables), strict=True))
    assert not all(a.equals(b) for a, b in zip(*(table["predictions"] for table in tables), strict=True))


@pytest.mark.slow
def test_no_question_of_relabel_is_paid_twice(
    tmp_path: Path, ray_embedded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trials side by side ask the same: the second one finds the answers of the first. A language model would start
    when what is shared is ready, and before anybody asks.
    """
    hosting, ready = serve.hosting, []

    def late(annotators: Any, owner: str) -> Any:
        assert owner == str(tmp_path / "sweeps" / "toy")  # what an earlier attempt has left is taken down
        ready.append({verb: len(stored(tmp_path, verb)) for verb in ("predict", "detect", "relabel")})
        return hosting(annotators, owner)

    monkeypatch.setattr(serve, "hosting", late)
    with serve_in_process(latency=0.1) as server:
        annotator = {
            "name": "openai",
            "base_url": server.url,
            "model": "tiny",
            "form": "choice",
            "concurrency": 2,
        }
        results = run_sweep(
            spec(
                tmp_path,
                set={"annotator": annotator, "detect.budget": 0.2},
                space={"relabel.accept": {"grid": [0.5, 0.9]}},
            )
        )
        assert results.failed == {}
        assert len(stored(tmp_path, "relabel")) == 2
        assert ready == [{"predict": 1, "detect": 1, "relabel": 0}]
        assert set(server.calls().values()) == {1}
        asked = results.rows[0].figures["asked"].mean  # suspects and control questions
        assert len(server.calls()) == 2 * asked  # in both orders of the options
        assert asked > results.rows[0].figures["suspects"].mean


@pytest.mark.parametrize(
    ("verb", "count", "alone"),
    [("load", 4, True), ("detect", 4, True), ("detect", 3, False), ("predict", 4, False), ("relabel", 4, False)],
)  # fmt: skip
def test_what_is_shared_spreads_over_the_cluster_unless_there_are_enough_to_fill_it(
    monkeypatch: pytest.MonkeyPatch, verb: str, count: int, alone: bool
) -> None:
    """And what trains or asks holds more than its own process."""
    seen: list[Any] = []

    def run(function: Any, items: list[Any], where: TrialSlots, *, alone: bool) -> list[None]:
        seen.append((len(items), where, alone))
        return [None] * len(items)

    monkeypatch.setattr(tune, "run_side_by_side", run)
    monkeypatch.setattr(shared, "_few_seconds", lambda items: False)
    works = [SimpleNamespace(fingerprints={verb: str(place)}) for place in range(count)]
    wide, cores = TrialSlots(1, 0.1), TrialSlots(2, 1.0)
    level: Any = [(verb, work) for work in works]
    for cores_or_none in (cores, None):
        verbs = SharedVerbs(wide, cores_or_none)
        verbs.run([level])
        assert verbs.failed == {}
    assert seen == [(count, cores if alone else wide, alone), (count, wide, False)]


def test_a_few_seconds_of_shared_work_start_no_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are done here, unseen, and one that fails is known by its fingerprint."""

    def run(item: tuple[str, Any], place: Any, servers: Any) -> None:
        say("not shown")
        assert place.in_process
        if item[1].name == "1":
            raise RaycleanError("no")

    needs = SimpleNamespace(needs=lambda config, run: SimpleNamespace(seconds=shared.FEW_SECONDS / 3))
    monkeypatch.setattr(shared, "verb_module", lambda verb: needs)
    monkeypatch.setattr(shared, "run_shared_work", run)
    works = [
        SimpleNamespace(name=str(place), config=None, run=None, fingerprints={"detect": f"f{place}"})
        for place in range(3)
    ]
    verbs = SharedVerbs(TrialSlots(1, 0.1), TrialSlots(2, 1.0))
    verbs.run([[("detect", work) for work in works]])  # type: ignore[misc]
    assert list(verbs.failed) == ["f1"]
    assert "not shown" not in capsys.readouterr().err


def test_results_of_changed_data_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They stay where they are; the report needs no data, and refuses another base."""
    one = spec(tmp_path, space={"detect.budget": {"grid": [0.1, 0.2]}})
    folder = Folder(str(tmp_path / "sweeps" / "toy"))
    same_sweep(one, folder, extend=False)

    def run(changed: float) -> None:
        plan = make_plan(one)
        take_over(plan)
        for work in plan.work.values():
            trials.write_result(work, {"changed": changed}, [], 1.0)

    run(7.0)
    assert capsys.readouterr().err == ""
    for path in (tmp_path / "data").rglob("*.*"):
        os.utime(path, ns=(1, 1))  # a copy of the same data
    run(8.0)
    assert capsys.readouterr().err == ""
    assert len(trials.trial_files(folder, trials.RESULT)) == 2
    for path in (tmp_path / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.slice(0, table.num_rows - 1), path)
    run(9.0)
    assert "2 finished trials" in capsys.readouterr().err
    assert len(trials.trial_files(folder, trials.RESULT)) == 4
    shutil.rmtree(tmp_path / "data")
    rows = report_sweep(one).rows
    assert [(row.point["detect.budget"], row.figures["changed"].mean) for row in rows] == [
        (0.1, 9.0),
        (0.2, 9.0),
    ]
    assert len(folder.read_json("results.json")) == 2
    base = json.loads(Path(one.base).read_text())
    Path(one.base).write_text(json.dumps(base | {"relabel": {"demonstrations": 3}}))
    with pytest.raises(ArtifactError, match="whose base differ"):
        report_sweep(one)


def test_finished_trials_of_optuna_are_known_by_their_results(tmp_path: Path) -> None:
    one = spec(
        tmp_path, space={"detect.budget": {"uniform": [0.1, 0.2]}}, search="optuna", objectives="changed"
    )
    work = SweepPlan(one, base_values(one)).work_at({"detect.budget": 0.15}, 0)
    known = {
        work.name: {"point": {"detect.budget": 0.15}, "seed": 0},
        "of-other-data": {"point": {"detect.budget": 0.12}, "seed": 0},
    }
    assert finished_trials(make_plan(one), known) == {work.name: work}


@pytest.mark.slow
def test_what_is_shared_and_fails_costs_only_those_who_share_it(tmp_path: Path, ray_embedded: None) -> None:
    """Two trials train from each of two relabellings, one of which has an annotator that is not there."""
    one = spec(
        tmp_path,
        space={"annotator": {"grid": [{"name": "knn"}, DOWN]}, "train.epochs": {"grid": [1, 2]}},
    )
    results = run_sweep(one)
    assert [row.point["train.epochs"] for row in results.rows] == [1, 2]
    assert len(results.failed) == 2
    assert all("127.0.0.1:9" in error for error in results.failed.values())
    # Where nobody can run, the error itself is what one is told.
    with pytest.raises(RaycleanError, match=r"127\.0\.0\.1:9"):
        run_sweep(
            spec(
                tmp_path,
                name="none",
                space={"train.epochs": {"grid": [1, 2]}},
                set={"annotator": DOWN},
            )
        )


@pytest.mark.slow
def test_a_trial_that_fails_costs_only_itself(tmp_path: Path, ray_embedded: None) -> None:
    one = spec(
        tmp_path,
        space={"annotator": {"grid": [{"name": "knn"}, DOWN]}},
    )
    results = run_sweep(one)
    assert len(results.rows) == 1
    assert len(results.failed) == 1
    assert "openai" in next(iter(results.failed))
    assert "127.0.0.1:9" in next(iter(results.failed.values()))


def test_a_wrong_value_is_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"detect.budget = 7\.5"):
        run_sweep(spec(tmp_path, space={"detect.budget": {"grid": [0.1, 7.5]}}))
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.slow
def test_a_point_that_optuna_draws_twice_is_run_once(tmp_path: Path, ray_embedded: None) -> None:
    """Also at the same time: the second one waits for the first, and takes its result."""
    one = spec(
        tmp_path,
        space={"detect.budget": {"choice": [0.2]}},
        search="optuna",
        samples=3,
        objectives="changed",
        tracking=OFFLINE,
        trials={"concurrent": 2},
    )
    results = run_sweep(one)
    assert results.failed == {}
    assert [row.point for row in results.rows] == [{"detect.budget": 0.2}]
    (run,) = logged(tmp_path).values()
    assert read(run)["exit"] == 0


@pytest.mark.slow
def test_optuna_learns_from_dev_and_early_stopping_leaves_results(tmp_path: Path, ray_embedded: None) -> None:
    one = spec(
        tmp_path,
        space={"train.learning_rate": {"log_uniform": [1e-5, 0.1]}, "train.batch_size": {"choice": [16, 32]}},
        search="optuna",
        samples=4,
        tracking=OFFLINE,
        objectives="dev_loss",
        scheduler={"name": "asha", "grace": 1, "reduction": 2},
        set={"train.epochs": 6},
    )
    results = run_sweep(one)
    assert len(results.rows) == 4
    assert results.best is not None
    assert (tmp_path / "sweeps" / "toy" / "best.toml").exists()
    assert len(logged(tmp_path)) == 4
    for row in results.rows:
        assert len(row.epochs[0]) == 6 or row.stopped
    more = run_sweep(one.model_copy(update={"samples": 5}), extend=True)
    assert len(more.rows) == 5
    assert {str(row.point) for row in results.rows} < {str(row.point) for row in more.rows}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_five_random_points(tmp_path: Path) -> None:
    """The driver is SIGKILLed five times; the same command ends with the table of a sweep that nobody touched."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    choose = random.Random(seed)
    space = {"method": {"grid": [{"name": "cross_entropy"}, {"name": "generalized_cross_entropy"}]},
             "detect.budget": {"grid": [0.1, 0.2]}}  # fmt: skip
    own = spec(
        tmp_path,
        space=space,
        seeds=[0, 1],
        tracking=OFFLINE,
        objectives="dev_accuracy",
        set={"train.epochs": 2},
    )
    files = {}
    for name in ("calm", "toy"):
        values = {**own.model_dump(mode="json"), "name": name}
        values["space"] = {path: {"grid": each["grid"]} for path, each in values["space"].items()}
        values["scheduler"] = {"name": "none"}
        values["trials"] = {}
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text(json.dumps(values))

    def start(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "rayclean", "sweep", str(files[name])]
        log = (tmp_path / f"{name}.log").open("ab")
        wide = os.environ | {"COLUMNS": "300"}  # lines must not be folded: they are read below
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=wide)

    def finished_trials() -> int:
        return len(list((tmp_path / "sweeps" / "toy" / "trials").glob("*/result.json")))

    begun = time.monotonic()
    assert start("calm").wait(timeout=1500) == 0, (tmp_path / "calm.log").read_text()
    length = time.monotonic() - begun
    # Five moments: some time after so many of the eight trials had a result.
    for count in sorted(choose.sample(range(6), 5)):
        process = start("toy")
        while finished_trials() < count:
            assert process.poll() is None, (tmp_path / "toy.log").read_text()
            time.sleep(0.2)
        delay = choose.uniform(0, (0.4 if count == 0 else 0.1) * length)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=delay)
        os.killpg(process.pid, signal.SIGKILL)
        print(f"killed {delay:.0f} s after {count} trials had ended, {finished_trials()} have now")
    assert start("toy").wait(timeout=1500) == 0, (tmp_path / "toy.log").read_text()
    tables = {}
    for name in files:
        rows = json.loads((tmp_path / "sweeps" / name / "results.json").read_text())
        for row in rows:
            del row["wall_seconds"], row["began"]
            row["figures"].pop("seconds")
            row["figures"].pop("dev_loss")  # equal but for the last digits
        tables[name] = rows
    assert tables["toy"] == tables["calm"]
    assert len(tables["toy"]) == 8
    runs = logged(tmp_path)
    assert runs.keys() == run_ids(tmp_path, (row["trial"] for row in tables["toy"]))
    for folder in runs.values():
        found = read(folder)
        assert (found["exit"], list(found["history"])) == (0, [1, 2])
    # Every attempt says which trials it finished: none was run twice. One that was killed between the result and the line
    # has said nothing of it.
    finished = re.findall(r"^sweep toy: (.* seed=\d): dev_accuracy", (tmp_path / "toy.log").read_text(), re.M)
    assert len(set(finished)) == len(finished)
    titles = {work.title for work in make_plan(load_sweep(files["toy"])).work.values()}
    assert set() < set(finished) <= titles
