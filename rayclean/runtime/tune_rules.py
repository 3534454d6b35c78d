"""The rules by which Ray Tune stops trials before their end, and draws the next point."""

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
"""Name of a figure, and which way is better."""
NEVER = 10**9
"""More epochs than any training has."""
PLATEAU = "plateau"
"""Key of the last epoch of a trial whose objective stood still."""


@dataclass(frozen=True)
class EarlyStopping:
    """When a trial is stopped before its end."""

    scheduler: Literal["none", "asha", "median"] = "none"
    grace: int = 1
    reduction: int = 3
    plateau: int | None = None


NEVER_EARLY = EarlyStopping()
"""Every trial runs to its end."""


@dataclass(frozen=True)
class Optuna:
    """Points drawn by Optuna from what the ones before came to."""

    suggest: Callable[[Any], None]
    """Optuna's define-by-run function."""
    samples: int
    """Points to draw."""
    seed: int
    study: str | None
    """File of its journal, from which a restarted sweep learns again; None: a restarted sweep learns from new
    points only."""


def scheduler(early: EarlyStopping, first: ObjectiveDirection | None) -> TrialScheduler | None:
    """Tune's rule for stopping by comparison; None where nothing is compared.

    A record has its `epoch` and the number of `epochs`: after the last epoch no trial is stopped, which would
    save nothing and lose the work that follows the training.
    """
    if early.scheduler == "none" or first is None:
        return None
    metric, mode = first
    if early.scheduler == "median":
        return _Median(
            time_attr="epoch", metric=metric, mode=mode, grace_period=early.grace, hard_stop=True,
            # Never pause a trial: its training would begin again.
            min_time_slice=math.inf,  # type: ignore[arg-type]
        )  # fmt: skip
    return _Halving(
        time_attr="epoch", metric=metric, mode=mode, max_t=NEVER, grace_period=early.grace,
        reduction_factor=early.reduction, stop_last_trials=False,
    )  # fmt: skip


def plateau(early: EarlyStopping, first: ObjectiveDirection | None) -> Any:
    """Tune's rule for stopping trials whose objective stands still, which marks their last record; None
    without one.
    """
    if early.plateau is None or first is None:
        return None
    return _Plateau(
        metric=first[0], std=0.001, num_results=early.plateau, grace_period=max(early.grace, early.plateau)
    )


def is_last(record: Record) -> bool:
    """Whether a record is of the last epoch.

    >>> is_last({"epoch": 3, "epochs": 3}), is_last({"epoch": 2, "epochs": 3}), is_last({"epoch": 2})
    (True, False, False)
    """
    return "epoch" in record and record["epoch"] >= record.get("epochs", NEVER)


class _Halving(AsyncHyperBandScheduler):
    """Successive halving that never stops a trial after its last epoch, but counts that epoch: other trials
    may go on.
    """

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Record) -> str:
        action: str = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if is_last(result) else action


class _Plateau(TrialPlateauStopper):
    """A plateau rule for epochs alone: Tune applies it to final results, too, which have no epoch."""

    def __call__(self, trial_id: str, result: Record) -> bool:
        still = bool(super().__call__(trial_id, result))
        if not still or "epoch" not in result or is_last(result):
            return False
        result[PLATEAU] = True
        return True


class _Median(MedianStoppingRule):
    """A median rule for epochs alone: a trial's last record is its result, which has no epoch."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Record) -> str:
        action: str = super().on_trial_result(tune_controller, trial, result)
        if not is_last(result):
            return action
        self._stopped_trials.discard(trial)  # after a lost node the trial reports its epochs again
        return TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: Record) -> None:
        """Does nothing: every epoch was counted before."""


def searcher(how: Optuna, objectives: Sequence[ObjectiveDirection]) -> Any:
    """Optuna behind Tune's interface, its journal opened."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage, seed = None, how.seed
    if how.study is not None:
        journal = Path(how.study)
        journal.parent.mkdir(parents=True, exist_ok=True)
        seed += journal.stat().st_size if journal.exists() else 0  # else it would draw the same ones again
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
    """The class of Optuna's search, defined when it is needed: importing Optuna takes a second."""
    from ray.tune.search.optuna import OptunaSearch

    class Search(OptunaSearch):
        """Ignores a trial without figures (one that failed), where Tune's own class would stop the whole
        sweep.
        """

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
