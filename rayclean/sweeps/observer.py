"""The driver's reaction to trials that start, report epochs and end: progress, tracking, results of stopped
trials.
"""

import math
import time

from rayclean import progress
from rayclean.folder import Folder
from rayclean.sweeps import trial as trials
from rayclean.sweeps.plan import SweepPlan, Work, work_of
from rayclean.sweeps.remote import ERROR
from rayclean.sweeps.resume import DRAWS_FILE, draws
from rayclean.sweeps.space import drawn
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.tracking import Tracker
from rayclean.sweeps.trial_run import TrialRecord


class SweepObserver:
    """Follows the trials of a sweep in the driver (a `runtime.tune.TrialObserver`).

    Args:
        spec: the sweep.
        folder: its folder.
        plan: its trials.
        values: the base config with [set] over it.
        tracker: logs the trials.
        total: how many trials are to be run.
    """

    def __init__(
        self, spec: Sweep, folder: Folder, plan: SweepPlan, values: TrialRecord, tracker: Tracker, total: int
    ):
        self.spec, self.folder, self.plan, self.values = spec, folder, plan, values
        self.tracker, self.total = tracker, total
        self.bar: progress.ProgressBar | None = None
        self.epochs: dict[str, list[TrialRecord]] = {}
        self.begun = 0.0

    def begin(self) -> None:
        """Start the clock of `trials.seconds`: what runs before the first trial does not count."""
        self.begun = time.monotonic()

    def started(self, trial: TrialRecord) -> None:
        """Open the run of a trial; a drawn point under several seeds is logged at its end."""
        work = self._work(trial)
        if work is not None:
            self.epochs[work.trial.name] = []
            self.tracker.start(work)

    def epoch_ended(self, trial: TrialRecord, record: TrialRecord) -> None:
        """Log an epoch, once."""
        work = self._work(trial)
        if work is None or "epoch" not in record:
            return
        records = self.epochs.setdefault(work.trial.name, [])
        if all(other["epoch"] != record["epoch"] for other in records):
            records.append({key: record[key] for key in record if key not in TUNE_KEYS})
            self.tracker.epoch(work, records[-1])

    def ended(self, trial: TrialRecord, result: TrialRecord | None) -> None:
        """Print and log the result of a trial."""
        work = self._work(trial)
        if result is not None and "trials" in result:
            self._point_ended(result)
            self._count_draw(trial)
        elif result is not None and "error" in result:
            self._crashed(trial, result)
        elif work is not None and result is not None and "plateau" not in result:
            self.tracker.end(work, result)
            self._note(f"{work.trial.title}: {brief(result, self.spec)}")
        elif work is not None and (result is not None or not self._out_of_time()):
            self._stopped(trial, work, True if result is None else "plateau")
        if self.bar is not None:
            self.bar.advance()

    def failed(self, work: Work, error: str) -> None:
        """Write down the error of a trial for the report; the same command tries the trial again."""
        work.run(self.folder.url()).write_json({"title": work.trial.title, "error": error}, ERROR)
        self._note(f"{work.trial.title}: FAILED: {error.splitlines()[-1]}")

    def _crashed(self, trial: TrialRecord, result: TrialRecord) -> None:
        """A point under several seeds fails under the seed that reported an error, or under all that have no
        result.
        """
        for work in self._works(trial):
            is_it = result.get("trial", work.trial.name) == work.trial.name
            if is_it and not work.run(self.folder.url()).exists(trials.RESULT):
                self.failed(work, result["error"])

    def _count_draw(self, trial: TrialRecord) -> None:
        """Count a draw of Optuna that came to a result."""
        if self.spec.search == "optuna":
            name, counts = self._works(trial)[0].trial.name, draws(self.folder)
            self.folder.write_json(counts | {name: counts.get(name, 0) + 1}, DRAWS_FILE)

    def _stopped(self, trial: TrialRecord, work: Work, stopped: trials.Stopped) -> None:
        """Make the last epoch of a stopped trial its result. A trial that has trained to its end was not
        stopped by a rule: the same command goes on with it.
        """
        records = self.epochs.get(work.trial.name)
        if not records or records[-1]["epoch"] >= records[-1].get("epochs", math.inf):
            return
        last = records[-1]
        figures = {key: last[key] for key in ("dev_accuracy", "dev_loss") if last.get(key) is not None}
        seconds = sum(record.get("seconds", 0.0) for record in records)
        result = trials.write_result(work, work.run(self.folder.url()), figures, records, seconds, stopped)
        self._count_draw(trial)
        self.tracker.end(work, result)
        why = "at a plateau " if stopped == "plateau" else ""
        self._note(f"{work.trial.title}: stopped {why}after epoch {last['epoch']}")

    def _point_ended(self, result: TrialRecord) -> None:
        for each in result["trials"]:
            work = work_of(self.spec, self.values, each["point"], each["seed"])
            self.tracker.replay(work, each, trials.trial_epochs(self.folder, each["trial"]))
            self._note(f"{work.trial.title}: {brief(each, self.spec)}")

    def _work(self, trial: TrialRecord) -> Work | None:
        works = self._works(trial)
        return works[0] if len(works) == 1 else None

    def _works(self, trial: TrialRecord) -> list[Work]:
        if "name" in trial:
            return [self.plan.work[trial["name"]]]
        point = drawn(self.spec, trial)
        return [work_of(self.spec, self.values, point, seed) for seed in self.spec.seeds]

    def _out_of_time(self) -> bool:
        seconds = self.spec.trials.seconds
        return seconds is not None and time.monotonic() - self.begun >= seconds

    def _note(self, text: str) -> None:
        if self.bar is not None:
            self.bar.note(text)


TUNE_KEYS = frozenset((
    "timestamp", "checkpoint_dir_name", "done", "training_iteration", "trial_id", "date", "time_this_iter_s",
    "time_total_s", "pid", "hostname", "node_ip", "config", "time_since_restore", "iterations_since_restore",
    "experiment_tag", "should_checkpoint", "warmup_time", "timesteps_total", "episodes_total", "plateau",
))  # fmt: skip
"""Keys that Tune and its stopping rules add to an epoch."""


def brief(result: TrialRecord, spec: Sweep) -> str:
    """The most important figures of a trial, in a line."""
    wanted = [objective.metric for objective in spec.objectives] or ["dev_accuracy", "changed", "noise_final"]
    figures = result["figures"]
    shown = [f"{name} {figures[name]:.4g}" for name in dict.fromkeys(wanted) if name in figures]
    return ", ".join(shown) + f" ({result['wall_seconds']:,.1f} s)"
