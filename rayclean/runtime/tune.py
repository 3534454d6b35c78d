"""Trials with Ray Tune: one function over many trials, with early stopping and suggested points.

Tune decides which trials run and stop, but its state is not kept. A trial's function writes its result into
the trial's folder, and a killed sweep restarts with the trials without a result. Restoring Tune's state would
also restore an outdated space and repeat trials that finished after its last snapshot.

A trial holds a fraction of a CPU, and Ray Train holds the resources of its training. Too many trials would
leave no room for any training and deadlock, so `trial_slots.py` computes their number before anything starts.
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
    """Callbacks in the driver when a trial starts, reports an epoch, or ends."""

    def started(self, trial: Record) -> None:
        """Called when a trial begins, also after the loss of its node."""

    def epoch_ended(self, trial: Record, record: Record) -> None:
        """Called when a running trial has reported an epoch."""

    def ended(self, trial: Record, result: Record | None) -> None:
        """Called when a trial has ended.

        Args:
            trial: parameters of the trial.
            result: the result of its function; None: stopped early, by comparison or by time. It has the key
                `plateau` if the objective no longer improved, and `error` if the process crashed or was lost
                too often.
        """


def run_side_by_side(
    function: Callable[[T, Workplace], None], items: Sequence[T], where: TrialSlots, *, alone: bool = False
) -> list[RaycleanError | None]:
    """Run `function(item, place)` for every item in workers of the cluster, several at once.

    Args:
        function: takes an item and the resources that concurrent items share.
        items: picklable values.
        where: number of concurrent items.
        alone: whether each item does all its work in one process.

    Returns:
        The RaycleanError of every item, None if it succeeded. Any other exception is raised.
    """
    home, place = (
        os.getcwd(),
        Workplace(where.per_node, shares_cluster=where.concurrent > 1, in_process=alone),
    )

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
    """Run trials until all have ended or time is over.

    Args:
        function: runs one trial in a worker: takes the trial, a callback for its epochs, and the resources
            that concurrent trials share; returns its result.
        trials: parameters of each trial as small plain dicts; empty with `optuna`, which draws them.
        where: number of concurrent trials.
        observer: receives the events of trials in this process.
        trains: whether trials start trainings; other trials do all their work in one process.
        objectives: keys of epochs and results by which early stopping and Optuna decide.
        early: rules for stopping a trial.
        optuna: draws the trials; None: `trials` are run.
        seconds: time after which all trials are stopped.
        retries: number of restarts of a trial whose process or node was lost.
    """
    first = objectives[0] if objectives else None
    search = searcher(optuna, objectives) if optuna is not None else None
    reporting = search is not None or early.scheduler != "none"
    with tempfile.TemporaryDirectory(prefix="rayclean-tune-", ignore_cleanup_errors=True) as storage:
        tune.Tuner(
            tune.with_resources(
                _trainable(function, trains, where), PlacementGroupFactory([{"CPU": where.cpus}])
            ),
            param_space={} if search is not None else tune.grid_search(list(trials)),
            tune_config=tune.TuneConfig(
                num_samples=optuna.samples if optuna is not None else 1,
                max_concurrent_trials=where.concurrent,
                search_alg=search,
                scheduler=scheduler(early, first) if reporting else None,
                time_budget_s=seconds,
                # Starting a process takes as long as a short training; but the training of a stopped trial
                # only ends with its process.
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
    function: Callable[[Record, _OnEpoch, Workplace], Record], trains: bool, where: TrialSlots
) -> Callable[[Record], None]:
    per_node = where.per_node
    home, place = os.getcwd(), Workplace(per_node, shares_cluster=where.concurrent > 1, in_process=not trains)

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

    def __getstate__(self) -> Record:
        """Nothing: the copy that Tune writes for a later `restore` is never read, and the observer's bar in a terminal holds
        locks, which nobody can copy.
        """
        return {}

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self.observer.started(dict(trial.config))

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: Record, **info: Any
    ) -> None:
        if "record" in result:  # Tune adds further keys to those of the epoch
            self.observer.epoch_ended(dict(trial.config), result["record"])

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        last = trial.last_result or {}
        self.observer.ended(dict(trial.config), {PLATEAU: True} if PLATEAU in last else last.get("result"))

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        text = Path(trial.error_file).read_text()  # `get_error` reads a copy that is seconds late
        self.observer.ended(dict(trial.config), {"error": text.strip()[-1500:]})
