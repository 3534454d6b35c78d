"""Ray Tune: the same function over many trials, some stopped early, the next ones suggested by those before.

Tune decides who runs and who stops; it keeps nothing. What a trial found stands in the trial's own folder, written by
the function, so a sweep that was killed is started anew with the trials that have no result: restoring Tune's own
state would also restore a changed space, and repeats what its last snapshot missed.

A trial holds a little CPU and lets Ray Train hold what training needs. Holding it twice, or so many trials that no
training fits beside them, would wait for ever: `slots.py` computes how many fit before anything starts.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from rayclean.context import working_in
from rayclean.errors import RaycleanError
from rayclean.plugins import resolve
from rayclean.runtime.cluster import physical_threads
from rayclean.runtime.data import in_this_process
from rayclean.runtime.slots import Slots

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # results stand in the trials' folders
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is the caller's
os.environ.setdefault(
    "TUNE_DISABLE_STRICT_METRIC_CHECKING", "1"
)  # a trial that failed has no figures, and is told
os.environ.setdefault(
    "RAY_CHDIR_TO_TRIAL_DIR", "0"
)  # configs name files relative to where the command was given
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # rayclean shows its own progress
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")

import ray
from ray import tune
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.stopper import TrialPlateauStopper

T = TypeVar("T")

Record = dict[str, Any]
Tell = Callable[[Record], None]
NEVER = 10**9
"""More epochs than any training has."""


@dataclass(frozen=True)
class Early:
    """When a trial is stopped before its end."""

    scheduler: Literal["none", "asha", "median"] = "none"
    grace: int = 1
    reduction: int = 3
    plateau: int | None = None


@dataclass(frozen=True)
class Optuna:
    """Points drawn by Optuna from what the ones before came to."""

    suggest: Callable[[Any], None]
    """Its define-by-run function."""
    samples: int
    """Points to draw."""
    seed: int
    study: str | None
    """File of its journal, so that a restarted sweep has not forgotten; None: it forgets."""


class Watcher(Protocol):
    """Hears in the driver what becomes of trials."""

    def started(self, trial: Record) -> None:
        """A trial begins (again, after its node was lost)."""

    def told(self, trial: Record, record: Record) -> None:
        """A line of a trial that is under way."""

    def ended(self, trial: Record, result: Record | None) -> None:
        """A trial is over; None: it was stopped early, by rule or by time. One whose processes were lost too often has
        `error`.
        """


def run_side_by_side(
    function: Callable[[T], None], items: Sequence[T], where: Slots
) -> list[RaycleanError | None]:
    """`function(item)` for every item in workers of the cluster, so many at once.

    Returns:
        For every item what our own error says of it, None where it succeeded. Any other exception is raised.
    """
    home = os.getcwd()

    @ray.remote(num_cpus=where.cpus, max_retries=2)
    def call(item: T) -> RaycleanError | None:
        try:
            with working_in(home):
                function(item)
        except RaycleanError as error:
            return error
        return None

    said: list[RaycleanError | None] = [None] * len(items)
    waiting, running = list(enumerate(items)), dict[Any, int]()
    while waiting or running:
        while waiting and len(running) < where.concurrent:
            place, item = waiting.pop(0)
            running[call.remote(item)] = place
        done, _ = ray.wait(list(running), num_returns=1)
        said[running.pop(done[0])] = ray.get(done[0])
    return said


def run_trials(
    function: Callable[[Record, Tell], Record],
    trials: Sequence[Record],
    where: Slots,
    watcher: Watcher,
    *,
    trains: bool,
    objectives: Sequence[tuple[str, Literal["max", "min"]]] = (),
    early: Early = Early(),
    optuna: Optuna | None = None,
    seconds: float | None = None,
    retries: int = 1,
    loggers: Sequence[str] = (),
    folder: str | None = None,
) -> None:
    """Run trials until all have ended, or the time is over.

    Args:
        function: one trial, in a worker: takes the trial and a function for its lines, returns its result.
        trials: small plain dicts; with `optuna` there are none, and a trial is what it draws.
        where: how many at once.
        watcher: hears of everything, in this process.
        trains: whether trials start trainings; those that do not run their Ray Data items in their own process.
        objectives: what early stopping and Optuna go by: keys of lines and results.
        early: when to stop a trial.
        optuna: draws the trials.
        seconds: stop everything after so long.
        retries: of a trial whose process or node was lost.
        loggers: Tune callbacks as `module:Class`; their files go to `folder`.
        folder: of further loggers.
    """
    keep = bool(loggers) and folder is not None
    storage = folder if keep and folder is not None else tempfile.mkdtemp(prefix="rayclean-tune-")
    first = objectives[0] if objectives else None
    resources = PlacementGroupFactory([{"CPU": where.cpus}])
    search = _search(optuna, objectives) if optuna is not None else None
    reporting = search is not None or early.scheduler != "none"
    try:
        tuner = tune.Tuner(
            tune.with_resources(_trainable(function, trains, where.concurrent), resources),
            param_space={} if search is not None else {"trial": tune.grid_search(list(trials))},
            tune_config=tune.TuneConfig(
                num_samples=optuna.samples if optuna is not None else 1,
                max_concurrent_trials=where.concurrent,
                search_alg=search,
                scheduler=_scheduler(early, first) if reporting else None,
                time_budget_s=seconds,
                reuse_actors=not trains,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=storage,
                failure_config=tune.FailureConfig(max_failures=retries),
                stop=_plateau(early, first),
                callbacks=[_Ears(watcher), *(resolve("logger", {}, name)() for name in loggers)],
                verbose=0,
            ),
        )
        tuner.fit()
    finally:
        if not keep:
            shutil.rmtree(storage, ignore_errors=True)


def _trainable(
    function: Callable[[Record, Tell], Record], trains: bool, concurrent: int
) -> Callable[[Record], None]:
    home = os.getcwd()

    def trial(config: Record) -> None:
        import torch

        if not trains:
            torch.set_num_threads(max(1, physical_threads() // concurrent))
        with working_in(home), in_this_process() if not trains else nullcontext():
            result = function(config.get("trial", config), lambda record: tune.report(_numbers(record)))
        tune.report({**_numbers(result.get("figures", {})), "result": result})

    return trial


def _numbers(record: Mapping[str, Any]) -> Record:
    return {key: value for key, value in record.items() if isinstance(value, int | float)}


def _scheduler(early: Early, first: tuple[str, Literal["max", "min"]] | None) -> TrialScheduler | None:
    if early.scheduler == "none" or first is None:
        return None
    metric, mode = first
    if early.scheduler == "median":
        return _Median(
            time_attr="epoch", metric=metric, mode=mode, grace_period=early.grace, hard_stop=True,
            min_time_slice=math.inf,  # type: ignore[arg-type]  # never pause a trial: its training would begin again
        )  # fmt: skip
    return AsyncHyperBandScheduler(
        time_attr="epoch", metric=metric, mode=mode, max_t=NEVER, grace_period=early.grace,
        reduction_factor=early.reduction, stop_last_trials=False,
    )  # fmt: skip


def _plateau(early: Early, first: tuple[str, Literal["max", "min"]] | None) -> Any:
    if early.plateau is None or first is None:
        return None
    return TrialPlateauStopper(
        metric=first[0], std=0.001, num_results=early.plateau, grace_period=max(early.grace, early.plateau)
    )


class _Median(MedianStoppingRule):
    """Goes by the epochs alone: a trial's last record is its result, which has none."""

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: Record) -> None:
        """Nothing new: every epoch was told before."""


def _search(how: Optuna, objectives: Sequence[tuple[str, Literal["max", "min"]]]) -> Any:
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
    return _searcher()(
        space=how.suggest,
        metric=metrics[0] if single else metrics,
        mode=modes[0] if single else modes,
        seed=seed % 2**32,
        storage=storage,
        study_name="rayclean",
    )


def _searcher() -> Any:
    """Optuna's search, made when it is needed: importing it takes a second."""
    from ray.tune.search.optuna import OptunaSearch

    class Search(OptunaSearch):
        """Learns nothing from a trial without figures (one that failed), where Tune's own would stop the whole sweep."""

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


class _Ears(tune.Callback):
    """Tune's callbacks, in words of trials."""

    def __init__(self, watcher: Watcher):
        self.watcher = watcher

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self.watcher.started(_what(trial))

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: Record, **info: Any
    ) -> None:
        if "result" not in result:
            self.watcher.told(_what(trial), result)

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        self.watcher.ended(_what(trial), (trial.last_result or {}).get("result"))

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        if trial.num_failures <= trial.max_failures:
            return  # it starts again
        text = str(trial.get_error() or trial.get_pickled_error() or "its process was lost")
        self.watcher.ended(_what(trial), {"error": text.strip()[-1500:]})


def _what(trial: TuneTrial) -> Record:
    return dict(trial.config.get("trial", trial.config))
