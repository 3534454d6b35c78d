"""The driver's handling of trial events: progress, tracking, and results of stopped trials."""

import math
import time

from rayclean import progress
from rayclean.sweeps import trial as trials
from rayclean.sweeps.plan import SweepPlan, Work
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.tracking import Tracker
from rayclean.sweeps.trial_run import TrialRecord


class SweepObserver:
    """Follows the trials of a sweep in the driver (a `runtime.tune.TrialObserver`).

    Args:
        plan: the sweep and its trials.
        tracker: logs the trials.
        total: number of trials to run.
    """

    def __init__(self, plan: SweepPlan, tracker: Tracker, total: int):
        self.plan, self.tracker, self.total = plan, tracker, total
        self.bar: progress.ProgressBar | None = None
        self.epochs: dict[str, list[TrialRecord]] = {}
        self.begun = 0.0

    def begin(self) -> None:
        """Start the clock of `trials.seconds`, which excludes the work before the first trial."""
        self.begun = time.monotonic()

    def started(self, trial: TrialRecord) -> None:
        """Open the tracked run of a trial; a drawn point under several seeds is logged when it ends."""
        works = self.plan.works_of(trial)
        if len(works) == 1:
            self.epochs[works[0].name] = []
            self.tracker.start(works[0])

    def epoch_ended(self, trial: TrialRecord, record: TrialRecord) -> None:
        """Log an epoch, unless it was logged before."""
        work, *others = self.plan.works_of(trial)
        records = self.epochs.setdefault(work.name, [])
        if not others and all(other["epoch"] != record["epoch"] for other in records):
            records.append(record)
            self.tracker.epoch(work, record)

    def ended(self, trial: TrialRecord, result: TrialRecord | None) -> None:
        """Print and log the result of a trial."""
        works = self.plan.works_of(trial)
        if result is not None and "trials" in result:
            for work, each in zip(works, result["trials"], strict=True):
                if len(works) == 1:
                    self.tracker.end(work, each)
                else:
                    self.tracker.replay(work, each, trials.trial_epochs(self.plan.folder, each["trial"]))
                self._note(f"{work.title}: {brief(each, self.plan.spec)}")
            self._count_draw(works[0])
        elif result is not None and "error" in result:
            # For the seed that reported an error, or for all seeds without a result.
            for work in works:
                is_it = result.get("trial", work.name) == work.name
                if is_it and not work.run.exists(trials.RESULT):
                    self.failed(work, result["error"])
        elif len(works) == 1 and (result is not None or not self._out_of_time()):
            self._stopped(works[0], True if result is None else "plateau")
        if self.bar is not None:
            self.bar.advance()

    def failed(self, work: Work, error: str) -> None:
        """Store the error of a trial for the report; the same command retries the trial."""
        work.run.write_json({"title": work.title, "error": error}, trials.ERROR)
        self._note(f"{work.title}: FAILED: {error.splitlines()[-1]}")

    def _stopped(self, work: Work, stopped: trials.Stopped) -> None:
        """Make the last epoch of a stopped trial its result. A trial that was trained to its end was not
        stopped by a rule; the same command continues it.
        """
        records = self.epochs.get(work.name)
        if not records or records[-1]["epoch"] >= records[-1].get("epochs", math.inf):
            return
        last = records[-1]
        figures = {key: last[key] for key in ("dev_accuracy", "dev_loss") if last.get(key) is not None}
        seconds = sum(record.get("seconds", 0.0) for record in records)
        result = trials.write_result(work, figures, records, seconds, stopped)
        self._count_draw(work)
        self.tracker.end(work, result)
        reason = "at a plateau " if stopped == "plateau" else ""
        self._note(f"{work.title}: stopped {reason}after epoch {last['epoch']}")

    def _count_draw(self, first: Work) -> None:
        """Count a successful draw of Optuna in the result under the first seed."""
        if self.plan.spec.search == "optuna":
            result = first.run.read_json(trials.RESULT)
            times = result.get("draws", 0) + 1
            first.run.write_json(result | {"draws": times}, trials.RESULT)

    def _out_of_time(self) -> bool:
        seconds = self.plan.spec.trials.seconds
        return seconds is not None and time.monotonic() - self.begun >= seconds

    def _note(self, text: str) -> None:
        if self.bar is not None:
            self.bar.note(text)


def brief(result: TrialRecord, spec: Sweep) -> str:
    """A line with the most important figures of a trial."""
    wanted = [objective.metric for objective in spec.objectives] or ["dev_accuracy", "changed", "noise_final"]
    figures = result["figures"]
    shown = [f"{name} {figures[name]:.4g}" for name in dict.fromkeys(wanted) if name in figures]
    return ", ".join(shown) + f" ({result['wall_seconds']:,.1f} s)"
