"""The rules by which Ray Tune stops trials early and draws the next point."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.stopper import TrialPlateauStopper

Record = dict[str, Any]
ObjectiveDirection = tuple[str, Literal["max", "min"]]
"""Name of a figure, and whether higher ("max") or lower ("min") is better."""
NEVER = 10**9
"""More epochs than any training has."""
PLATEAU = "plateau"
"""Key in the last epoch of a trial that was stopped at a plateau of its objective."""


@dataclass(frozen=True)
class EarlyStopping:
    """Rules for stopping a trial early."""

    scheduler: Literal["none", "asha", "median"] = "none"
    grace: int = 1
    reduction: int = 3
    plateau: int | None = None


NEVER_EARLY = EarlyStopping()
"""Rules under which every trial runs to its end."""


@dataclass(frozen=True)
class Optuna:
    """Settings of Optuna, which draws points by the results of earlier ones."""

    suggest: Callable[[Any], None]
    """Optuna's define-by-run function."""
    samples: int
    """Number of points to draw."""
    seed: int
    study: str | None
    """Journal file, from which a restarted sweep reads earlier points; None: it learns from new points
    only."""


def scheduler(early: EarlyStopping, first: ObjectiveDirection | None) -> TrialScheduler | None:
    """Tune's scheduler, which stops trials by comparison; None if no rule is configured.

    No trial is stopped after its last epoch (`epoch` = `epochs`), which would save nothing and lose the work
    after the training.
    """
    if early.scheduler == "none" or first is None:
        return None
    metric, mode = first
    if early.scheduler == "median":
        return _Median(
            time_attr="epoch", metric=metric, mode=mode, grace_period=early.grace, hard_stop=True,
            # Never pause a trial, as its training would restart.
            min_time_slice=math.inf,  # type: ignore[arg-type]
        )  # fmt: skip
    return _Halving(
        time_attr="epoch", metric=metric, mode=mode, max_t=NEVER, grace_period=early.grace,
        reduction_factor=early.reduction, stop_last_trials=False,
    )  # fmt: skip


def plateau(early: EarlyStopping, first: ObjectiveDirection | None) -> Any:
    """Tune's stopper of trials at a plateau, which marks their last record; None if no rule is configured."""
    if early.plateau is None or first is None:
        return None
    return _Plateau(
        metric=first[0], std=0.001, num_results=early.plateau, grace_period=max(early.grace, early.plateau)
    )


def is_last(record: Record) -> bool:
    """Whether a record is that of the last epoch.

    >>> is_last({"epoch": 3, "epochs": 3}), is_last({"epoch": 2, "epochs": 3}), is_last({"epoch": 2})
    (True, False, False)
    """
    return "epoch" in record and record["epoch"] >= record.get("epochs", NEVER)


class _Halving(AsyncHyperBandScheduler):
    """Successive halving that counts the last epoch of a trial but does not stop the trial after it."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Record) -> str:
        action: str = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if is_last(result) else action


class _Plateau(TrialPlateauStopper):
    """A plateau rule that ignores final results, which have no epoch but which Tune also passes to it."""

    def __call__(self, trial_id: str, result: Record) -> bool:
        still = bool(super().__call__(trial_id, result))
        if not still or "epoch" not in result or is_last(result):
            return False
        result[PLATEAU] = True
        return True


class _Median(MedianStoppingRule):
    """A median rule that ignores final results, which have no epoch."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Record) -> str:
        action: str = super().on_trial_result(tune_controller, trial, result)
        if not is_last(result):
            return action
        self._stopped_trials.discard(trial)  # after a lost node the trial reports its epochs again
        return TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: Record) -> None:
        """Do nothing, as every epoch was counted before."""


def searcher(how: Optuna, objectives: Sequence[ObjectiveDirection]) -> Any:
    """Optuna's search as a Tune search algorithm, with its journal opened."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage, seed = None, how.seed
    if how.study is not None:
        journal = Path(how.study)
        journal.parent.mkdir(parents=True, exist_ok=True)
        seed += journal.stat().st_size if journal.exists() else 0  # to draw no point again
        storage = JournalStorage(JournalFileBackend(how.study))
    metrics: list[str] = [name for name, _ in objectives]
    modes: list[str] = [mode for _, mode in objectives]
    single = len(objectives) == 1
    return _search_class()(
        space=how.suggest,
        metric=metrics[0] if single else metrics,
        mode=modes[0] if single else modes,
        seed=seed % 2**32,
        storage=storage,
        study_name="rayclean",
    )


def _search_class() -> Any:
    """The class of Optuna's search, defined on demand because importing Optuna takes a second."""
    from ray.tune.search.optuna import OptunaSearch

    class Search(OptunaSearch):
        """Optuna's search that ignores failed trials, for which Tune's class would stop the whole sweep."""

        def on_trial_result(self, trial_id: str, result: Record) -> None:
            if self._measured(result):
                super().on_trial_result(trial_id, result)

        def on_trial_complete(self, trial_id: str, result: Record | None = None, error: bool = False) -> None:
            measured = result is not None and self._measured(result)
            super().on_trial_complete(trial_id, result if measured else None, error or not measured)

        def _measured(self, result: Record) -> bool:
            wanted = [self.metric] if isinstance(self.metric, str) else self.metric
            return all(name in result for name in wanted)

    return Search
