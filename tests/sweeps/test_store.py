"""Where trials read and write, and that they leave each other alone."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rayclean.errors import ArtifactError
from rayclean.run import VERBS, Run
from rayclean.sweeps.trial_run import TrialRun

A = {verb: f"{verb[0]}aaa" for verb in VERBS}
B = A | {"detect": "dbbb", "relabel": "rbbb", "train": "tbbb", "evaluate": "ebbb"}


def test_everything_has_its_place(tmp_path: Path) -> None:
    run = TrialRun(str(tmp_path), "one", A)
    assert run.path("predict", "model", "x") == f"{tmp_path}/store/predict-paaa/model/x"
    assert run.path("ledger", "answers.jsonl") == f"{tmp_path}/ledger/answers.jsonl"
    assert run.path("features", "x") == f"{tmp_path}/features/x"
    assert run.path(".partial", "detect-daaa") == f"{tmp_path}/.partial/detect-daaa"
    assert run.path("config.json") == f"{tmp_path}/trials/one/config.json"
    assert run.path() == f"{tmp_path}/trials/one"
    assert run.path(".lock") == f"{tmp_path}/trials/one/.lock"


def finish(run: TrialRun, verb: str) -> None:
    out = run.begin(verb, run.fingerprints[verb])
    out.write_text(run.trial, "who")
    run.commit(verb, run.fingerprints[verb], out, 0.0, {"by": run.trial})


def test_equal_fingerprints_share_a_folder(tmp_path: Path) -> None:
    one, two = TrialRun(str(tmp_path), "one", A), TrialRun(str(tmp_path), "two", B)
    for verb in ("load", "predict", "detect"):
        finish(one, verb)
    assert two.done("predict", B["predict"])
    assert two.require("predict").read_text("who") == "one"
    assert two.manifest("predict").metrics == {"by": "one"}
    assert not two.done("detect", B["detect"])
    with pytest.raises(ArtifactError, match="rayclean detect"):
        two.require("detect")


def test_a_verb_makes_no_other_trials_verbs_stale(tmp_path: Path) -> None:
    one, two = TrialRun(str(tmp_path), "one", A), TrialRun(str(tmp_path), "two", B)
    for verb in VERBS:
        finish(one, verb)
    two.outdate("load")
    finish(two, "detect")
    assert all(one.done(verb, A[verb]) for verb in VERBS)
    assert one.require("detect").read_text("who") == "one"
    assert two.require("detect").read_text("who") == "two"
    # The folder of a run by itself, in contrast, has one verb of each kind.
    alone = Run(str(tmp_path / "alone"))
    for verb, print_ in A.items():
        alone.commit(verb, print_, alone.begin(verb, print_), 0.0, {})
    alone.outdate("load")
    assert alone.done("load", A["load"])
    assert not alone.done("predict", A["predict"])


def test_a_commit_leaves_unfinished_work_of_others(tmp_path: Path) -> None:
    one, two = TrialRun(str(tmp_path), "one", A), TrialRun(str(tmp_path), "two", B)
    two.begin("detect", B["detect"]).write_text("half", "part")
    two.begin("train", B["train"]).write_text("half", "part")
    finish(one, "detect")
    assert two.begin("detect", B["detect"]).read_text("part") == "half"
    assert two.begin("train", B["train"]).read_text("part") == "half"
    assert not one.exists(".partial", f"detect-{A['detect']}")


HOLD = """
import sys
from rayclean.sweeps.trial_run import TrialRun
run = TrialRun(sys.argv[1], "other", {"load": "laaa", "predict": "paaa"})
with run.exclusive("predict"):
    print("held", flush=True)
    sys.stdin.readline()
    run.write_text("other", "predict", "first")
"""


def test_only_one_process_works_on_a_verb(tmp_path: Path) -> None:
    """Another process holds the lock until it is told to go on: until then nobody else gets in, but to other verbs."""
    run = TrialRun(str(tmp_path), "own", A)
    seen: list[bool] = []

    def work() -> None:
        with run.exclusive("predict"):
            seen.append(run.exists("predict", "first"))

    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        waiting = threading.Thread(target=work)
        waiting.start()
        with run.exclusive("load"):
            pass
        with TrialRun(str(tmp_path), "third", A | {"predict": "pbbb"}).exclusive("predict"):
            pass
        waiting.join(0.3)
        assert waiting.is_alive()
        assert not seen
        other.stdin.write("go on\n")
        other.stdin.flush()
        waiting.join(30)
    assert other.returncode == 0
    assert seen == [True]


def test_the_same_trial_waits_for_itself(tmp_path: Path) -> None:
    """Drawn twice at once, it is run once: whoever comes second gets in when the first is done. Others need not wait."""
    seen: list[str] = []

    def work() -> None:
        with TrialRun(str(tmp_path), "own", A).alone():
            seen.append("second")

    with TrialRun(str(tmp_path), "own", A).alone():
        waiting = threading.Thread(target=work)
        waiting.start()
        with TrialRun(str(tmp_path), "other", A).alone():
            pass
        waiting.join(0.3)
        assert waiting.is_alive()
        seen.append("first")
    waiting.join(30)
    assert seen == ["first", "second"]
    with TrialRun("memory://alone", "own", A).alone(), TrialRun("memory://alone", "own", A).alone():
        pass  # no locks there


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        other.kill()
        other.wait()
        with TrialRun(str(tmp_path), "own", A).exclusive("predict"):
            assert not (tmp_path / "store" / "predict-paaa").exists()


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    run = TrialRun(str(tmp_path), "own", A)
    with pytest.raises(ArtifactError), run.exclusive("predict"):
        run.require("predict")
    with run.exclusive("predict"):
        finish(run, "predict")
    assert run.done("predict", A["predict"])


def test_object_stores_work_without_locks() -> None:
    one = TrialRun("memory://store-test/s", "one", A)
    with one.exclusive("load"):
        finish(one, "load")
    two = TrialRun("memory://store-test/s", "two", B)
    assert two.require("load").read_text("who") == "one"
    assert two.url("load") == "memory:///store-test/s/store/load-laaa"


def test_without_locks_what_another_one_has_finished_stays() -> None:
    """Two trials at one verb at the same time: neither takes the other's files away, the first to be done counts."""
    one, two = (TrialRun("memory://store-race/s", name, A) for name in ("one", "two"))
    outs = [run.begin("predict", A["predict"]) for run in (one, two)]
    for run, out in zip((one, two), outs, strict=True):
        out.write_text(run.trial, "who")
    first = one.commit("predict", A["predict"], outs[0], 1.0, {"by": "one"})
    assert outs[1].read_text("who") == "two"
    assert two.commit("predict", A["predict"], outs[1], 9.0, {"by": "two"}) == first
    assert two.require("predict").read_text("who") == "one"
    assert not [path for path in one.fs.find("/store-race/s") if ".partial" in path]


PAID = (
    HOLD.replace('"predict"', '"relabel"').replace("{", '{"relabel": "rrrr", ').replace("})", "}, pays=True)")
)


def test_trials_that_pay_relabel_one_after_the_other(tmp_path: Path) -> None:
    seen: list[bool] = []

    def work() -> None:
        with TrialRun(str(tmp_path), "own", A, pays=True).exclusive("relabel"):
            seen.append(True)

    command = [sys.executable, "-c", PAID, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        waiting = threading.Thread(target=work)
        waiting.start()
        with TrialRun(str(tmp_path), "free", B).exclusive("relabel"):
            pass
        with TrialRun(str(tmp_path), "own", A, pays=True).exclusive("predict"):
            pass
        waiting.join(0.3)
        assert waiting.is_alive()
        assert not seen
        other.stdin.write("go on\n")
        other.stdin.flush()
        waiting.join(30)
    assert seen == [True]
