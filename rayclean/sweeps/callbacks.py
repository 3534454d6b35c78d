"""What the driver of a sweep does with news of its trials: progress, tracking, results of those that were stopped."""

import math
import time
from typing import Any

from rayclean import progress
from rayclean.folder import Folder
from rayclean.sweeps import trial as trials
from rayclean.sweeps.plan import SweepPlan, Work, work_of
from rayclean.sweeps.remote import ERROR
from rayclean.sweeps.resume import DRAWS, draws
from rayclean.sweeps.space import drawn
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.tracking import Tracker

Record = dict[str, Any]


class Watch:
    """What the driver does with news of trials: progress, tracking, and the results of those that were stopped."""

    def __init__(
        self, spec: Sweep, folder: Folder, plan: SweepPlan, values: Record, tracker: Tracker, total: int
    ):
        self.spec, self.folder, self.plan, self.values = spec, folder, plan, values
        self.tracker, self.total = tracker, total
        self.task: progress.ProgressBar | None = None
        self.lines: dict[str, list[Record]] = {}
        self.begun = 0.0

    def begin(self) -> None:
        """Tune's clock starts: what was shared beforehand, and the start of a language model, are not in its time."""
        self.begun = time.monotonic()

    def started(self, trial: Record) -> None:
        """Open its run; with several seeds to a suggested point each of them is logged when all are done."""
        work = self._work(trial)
        if work is not None:
            self.lines[work.trial.name] = []
            self.tracker.start(work)

    def told(self, trial: Record, record: Record) -> None:
        """Log an epoch once."""
        work = self._work(trial)
        if work is None or "epoch" not in record:
            return
        lines = self.lines.setdefault(work.trial.name, [])
        if all(line["epoch"] != record["epoch"] for line in lines):
            lines.append({key: record[key] for key in record if key not in TUNE_KEYS})
            self.tracker.line(work, lines[-1])

    def ended(self, trial: Record, result: Record | None) -> None:
        """Say what came of it, and close its run."""
        work = self._work(trial)
        if result is not None and "trials" in result:
            self._point_ended(result)
            self._count(trial)
        elif result is not None and "error" in result:
            self._crashed(trial, result)
        elif work is not None and result is not None and "plateau" not in result:
            self.tracker.end(work, result)
            self._note(f"{work.trial.title}: {brief(result, self.spec)}")
        elif work is not None and (result is not None or not self._out_of_time()):
            self._stopped(trial, work, True if result is None else "plateau")
        if self.task is not None:
            self.task.advance()

    def failed(self, work: Work, error: str) -> None:
        """Write down why, for the report; the same command tries the trial again."""
        work.run(self.folder.url()).write_json({"title": work.trial.title, "error": error}, ERROR)
        self._note(f"{work.trial.title}: FAILED: {error.splitlines()[-1]}")

    def _crashed(self, trial: Record, result: Record) -> None:
        """A point under several seeds fails for the one that has said why, or for all that have no result."""
        for work in self._works(trial):
            is_it = result.get("trial", work.trial.name) == work.trial.name
            if is_it and not work.run(self.folder.url()).exists(trials.RESULT):
                self.failed(work, result["error"])

    def _count(self, trial: Record) -> None:
        """Of Optuna's draws, this one came to a result."""
        if self.spec.search == "optuna":
            name, counts = self._works(trial)[0].trial.name, draws(self.folder)
            self.folder.write_json(counts | {name: counts.get(name, 0) + 1}, DRAWS)

    def _stopped(self, trial: Record, work: Work, stopped: trials.Stopped) -> None:
        """Its last line is its result. What had trained to its end was not stopped by a rule: the same command goes on."""
        lines = self.lines.get(work.trial.name)
        if not lines or lines[-1]["epoch"] >= lines[-1].get("epochs", math.inf):
            return
        numbers = {
            key: lines[-1][key] for key in ("dev_accuracy", "dev_loss") if lines[-1].get(key) is not None
        }
        seconds = sum(line.get("seconds", 0.0) for line in lines)
        result = trials.write_result(work, work.run(self.folder.url()), numbers, lines, seconds, stopped)
        self._count(trial)
        self.tracker.end(work, result)
        why = "at a plateau " if stopped == "plateau" else ""
        self._note(f"{work.trial.title}: stopped {why}after epoch {lines[-1]['epoch']}")

    def _point_ended(self, result: Record) -> None:
        for each in result["trials"]:
            work = work_of(self.spec, self.values, each["point"], each["seed"])
            self.tracker.replay(work, each, trials.trial_epochs(self.folder, each["trial"]))
            self._note(f"{work.trial.title}: {brief(each, self.spec)}")

    def _work(self, trial: Record) -> Work | None:
        works = self._works(trial)
        return works[0] if len(works) == 1 else None

    def _works(self, trial: Record) -> list[Work]:
        if "name" in trial:
            return [self.plan.work[trial["name"]]]
        point = drawn(self.spec, trial)
        return [work_of(self.spec, self.values, point, seed) for seed in self.spec.seeds]

    def _out_of_time(self) -> bool:
        seconds = self.spec.trials.seconds
        return seconds is not None and time.monotonic() - self.begun >= seconds

    def _note(self, text: str) -> None:
        if self.task is not None:
            self.task.note(text)


TUNE_KEYS = frozenset((
    "timestamp", "checkpoint_dir_name", "done", "training_iteration", "trial_id", "date", "time_this_iter_s",
    "time_total_s", "pid", "hostname", "node_ip", "config", "time_since_restore", "iterations_since_restore",
    "experiment_tag", "should_checkpoint", "warmup_time", "timesteps_total", "episodes_total", "plateau",
))  # fmt: skip
"""What Tune, and what steers it, add to a line."""


def brief(result: Record, spec: Sweep) -> str:
    """The figures that matter, in a line."""
    wanted = [objective.metric for objective in spec.objectives] or ["dev_accuracy", "changed", "noise_final"]
    figures = result["figures"]
    shown = [f"{name} {figures[name]:.4g}" for name in dict.fromkeys(wanted) if name in figures]
    return ", ".join(shown) + f" ({result['wall_seconds']:,.1f} s)"
