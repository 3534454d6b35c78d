"""Ray Tune: the same function over many trials, some stopped early, the next ones suggested by those before.

Tune decides which trial runs and which one stops; it keeps nothing. A trial's function writes its result into
the trial's own folder, so a sweep that was killed is started anew with the trials that have no result:
restoring Tune's own state would also restore a changed space, and would repeat what its last snapshot missed.

A trial holds a little CPU and lets Ray Train hold what training needs. Holding it twice, or so many trials
that no training fits beside them, would wait for ever: `trial_slots.py` computes how many fit before anything
starts.
"""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rayclean.errors import RaycleanError
from rayclean.runtime import environment as environment
from rayclean.runtime.engines import Workplace
from rayclean.runtime.threads import own_threads
from rayclean.runtime.trial_slots import TrialSlots
from rayclean.runtime.tune_rules import (
    NEVER_EARLY,
    PLATEAU,
    EarlyStopping,
    ObjectiveDirection,
    Optuna,
    Record,
    plateau,
    scheduler,
    searcher,
)
from rayclean.scoped import working_in

import ray
from ray import tune
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.tune.experiment import Trial as TuneTrial

T = TypeVar("T")
_OnEpoch = Callable[[Record], None]


class TrialObserver(Protocol):
    """What the driver does when a trial starts, reports an epoch, or ends."""

    def started(self, trial: Record) -> None:
        """A trial begins (again, after its node was lost)."""

    def epoch_ended(self, trial: Record, record: Record) -> None:
        """A running trial has reported an epoch."""

    def ended(self, trial: Record, result: Record | None) -> None:
        """A trial is over.

        Args:
            trial: its parameters.
            result: what its function returned; None: it was stopped early, by comparison or by time. A trial
                that no longer improved has the key `plateau`, one whose process was lost too often or crashed
                has `error`.
        """


def run_side_by_side(
    function: Callable[[T, Workplace], None], items: Sequence[T], where: TrialSlots, *, alone: bool = False
) -> list[RaycleanError | None]:
    """`function(item)` for every item in workers of the cluster, so many at once.

    Args:
        function: takes an item, and what the items have in common.
        items: picklable values.
        where: how many run at once.
        alone: each item does all its work in its own process.

    Returns:
        For every item the RaycleanError that it raised, None where it succeeded. Any other exception is
        raised.
    """
    home, place = os.getcwd(), Workplace(where.per_node, in_process=alone)

    @ray.remote(num_cpus=where.cpus, max_retries=2)
    def call(item: T) -> RaycleanError | None:
        try:
            with working_in(home):
                function(item, place)
        except RaycleanError as error:
            return error
        return None

    errors: list[RaycleanError | None] = [None] * len(items)
    waiting, running = list(enumerate(items)), dict[Any, int]()
    while waiting or running:
        while waiting and len(running) < where.concurrent:
            position, item = waiting.pop(0)
            running[call.remote(item)] = position
        done, _ = ray.wait(list(running), num_returns=1)
        errors[running.pop(done[0])] = ray.get(done[0])
    return errors


def run_trials(
    function: Callable[[Record, _OnEpoch, Workplace], Record],
    trials: Sequence[Record],
    where: TrialSlots,
    observer: TrialObserver,
    *,
    trains: bool,
    objectives: Sequence[ObjectiveDirection] = (),
    early: EarlyStopping = NEVER_EARLY,
    optuna: Optuna | None = None,
    seconds: float | None = None,
    retries: int = 1,
) -> None:
    """Run trials until all have ended, or the time is over.

    Args:
        function: one trial, in a worker: takes the trial, a function to report epochs with, and what the
            trials have in common; returns its result.
        trials: small plain dicts; with `optuna` there are none, and a trial is what Optuna draws.
        where: how many run at once.
        observer: follows the trials in this process.
        trains: whether trials start trainings; those that do not do all their work in their own process.
        objectives: keys of epochs and results by which early stopping and Optuna decide.
        early: when to stop a trial.
        optuna: draws the trials.
        seconds: stop everything after so long.
        retries: how often a trial whose process or node was lost begins again.
    """
    first = objectives[0] if objectives else None
    search = searcher(optuna, objectives) if optuna is not None else None
    reporting = search is not None or early.scheduler != "none"
    with tempfile.TemporaryDirectory(prefix="rayclean-tune-", ignore_cleanup_errors=True) as storage:
        tune.Tuner(
            tune.with_resources(
                _trainable(function, trains, where.per_node), PlacementGroupFactory([{"CPU": where.cpus}])
            ),
            param_space={} if search is not None else tune.grid_search(list(trials)),
            tune_config=tune.TuneConfig(
                num_samples=optuna.samples if optuna is not None else 1,
                max_concurrent_trials=where.concurrent,
                search_alg=search,
                scheduler=scheduler(early, first) if reporting else None,
                time_budget_s=seconds,
                # Starting a process costs as much as a short training; but one that is stopped may have a
                # training under way, which only ends with its process.
                reuse_actors=not trains or early == NEVER_EARLY,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=storage,
                failure_config=tune.FailureConfig(max_failures=retries),
                stop=plateau(early, first),
                callbacks=[_Callback(observer)],
                verbose=0,
            ),
        ).fit()


def _trainable(
    function: Callable[[Record, _OnEpoch, Workplace], Record], trains: bool, per_node: int
) -> Callable[[Record], None]:
    home, place = os.getcwd(), Workplace(per_node, in_process=not trains)

    def trial(config: Record) -> None:
        import torch

        with working_in(home):
            torch.set_num_threads(own_threads(per_node))
            result = function(config, lambda line: tune.report({**_numbers(line), "record": line}), place)
        tune.report({**_numbers(result.get("figures", {})), "result": result})

    return trial


def _numbers(record: Mapping[str, Any]) -> Record:
    return {key: value for key, value in record.items() if isinstance(value, int | float)}


class _Callback(tune.Callback):
    """Passes Tune's events on to an observer."""

    def __init__(self, observer: TrialObserver):
        self.observer = observer

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self.observer.started(dict(trial.config))

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: Record, **info: Any
    ) -> None:
        if "record" in result:  # Tune has added keys of its own to those of the epoch
            self.observer.epoch_ended(dict(trial.config), result["record"])

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        last = trial.last_result or {}
        self.observer.ended(dict(trial.config), {PLATEAU: True} if PLATEAU in last else last.get("result"))

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        text = Path(trial.error_file).read_text()  # `get_error` reads a copy that is seconds late
        self.observer.ended(dict(trial.config), {"error": text.strip()[-1500:]})
