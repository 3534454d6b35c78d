"""Ray Tune: the same function over many trials, some stopped early, the next ones suggested by those before.

Tune decides who runs and who stops; it keeps nothing. What a trial found stands in the trial's own folder, written by
the function, so a sweep that was killed is started anew with the trials that have no result: restoring Tune's own
state would also restore a changed space, and repeats what its last snapshot missed.

A trial holds a little CPU and lets Ray Train hold what training needs. Holding it twice, or so many trials that no
training fits beside them, would wait for ever: `slots.py` computes how many fit before anything starts.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pyarrow.fs import copy_files

from rayclean.errors import RaycleanError
from rayclean.plugins import resolve
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

Record = dict[str, Any]
Tell = Callable[[Record], None]


class Watcher(Protocol):
    """Hears in the driver what becomes of trials."""

    def started(self, trial: Record) -> None:
        """A trial begins (again, after its node was lost)."""

    def told(self, trial: Record, record: Record) -> None:
        """A line of a trial that is under way."""

    def ended(self, trial: Record, result: Record | None) -> None:
        """A trial is over; None: it was stopped early, by comparison or by time. One that no longer moved has `plateau`, one
        whose processes were lost too often `error`.
        """


def run_side_by_side(
    function: Callable[[T, Workplace], None], items: Sequence[T], where: TrialSlots, *, alone: bool = False
) -> list[RaycleanError | None]:
    """`function(item)` for every item in workers of the cluster, so many at once.

    Args:
        function: takes an item, and what it shares with the others.
        items: anything that travels.
        where: how many at once.
        alone: each runs its Ray Data items in its own process.

    Returns:
        For every item what our own error says of it, None where it succeeded. Any other exception is raised.
    """
    home, workplace = os.getcwd(), Workplace(where.per_node, in_process=alone)

    @ray.remote(num_cpus=where.cpus, max_retries=2)
    def call(item: T) -> RaycleanError | None:
        try:
            with working_in(home):
                function(item, workplace)
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
    function: Callable[[Record, Tell, Workplace], Record],
    trials: Sequence[Record],
    where: TrialSlots,
    watcher: Watcher,
    *,
    trains: bool,
    objectives: Sequence[ObjectiveDirection] = (),
    early: EarlyStopping = NEVER_EARLY,
    optuna: Optuna | None = None,
    seconds: float | None = None,
    retries: int = 1,
    loggers: Sequence[str] = (),
    folder: str | None = None,
) -> None:
    """Run trials until all have ended, or the time is over.

    Args:
        function: one trial, in a worker: takes the trial and a function for its lines, and what it shares with other trials; returns its result.
        trials: small plain dicts, each with a `name` where there are loggers; with `optuna` there are none, and a trial is
            what it draws.
        where: how many at once.
        watcher: hears of everything, in this process.
        trains: whether trials start trainings; those that do not run their Ray Data items in their own process.
        objectives: what early stopping and Optuna go by: keys of lines and results.
        early: when to stop a trial.
        optuna: draws the trials.
        seconds: stop everything after so long.
        retries: of a trial whose process or node was lost.
        loggers: Tune callbacks as `module:Class`, whose config is the trial. Their files go to `folder`, into
            `trials/<name>/`, and replace those that an attempt which was killed has left of the same trial; what `optuna`
            draws has Tune's own, random names.
        folder: of further loggers.
    """
    keep = bool(loggers) and folder is not None
    storage = folder if keep and folder is not None else tempfile.mkdtemp(prefix="rayclean-tune-")
    first = objectives[0] if objectives else None
    resources = PlacementGroupFactory([{"CPU": where.cpus}])
    search = searcher(optuna, objectives) if optuna is not None else None
    further = [_Anew(), *(resolve("logger", {}, name)() for name in loggers), _Kept()] if loggers else []
    name = _name if loggers and search is None else None
    reporting = search is not None or early.scheduler != "none"
    try:
        tuner = tune.Tuner(
            tune.with_resources(_trainable(function, trains, where.per_node), resources),
            param_space={} if search is not None else tune.grid_search(list(trials)),
            tune_config=tune.TuneConfig(
                num_samples=optuna.samples if optuna is not None else 1,
                max_concurrent_trials=where.concurrent,
                search_alg=search,
                scheduler=scheduler(early, first) if reporting else None,
                time_budget_s=seconds,
                # Starting a process costs as much as a short training; but one that is stopped may have a training under
                # way, which only ends with its process.
                reuse_actors=not trains or early == NEVER_EARLY,
                trial_name_creator=name,
                trial_dirname_creator=name,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=storage,
                failure_config=tune.FailureConfig(max_failures=retries),
                stop=plateau(early, first),
                callbacks=[_Ears(watcher), *further],
                verbose=0,
            ),
        )
        tuner.fit()
    finally:
        if not keep:
            shutil.rmtree(storage, ignore_errors=True)


def _trainable(
    function: Callable[[Record, Tell, Workplace], Record], trains: bool, per_node: int
) -> Callable[[Record], None]:
    home, workplace = os.getcwd(), Workplace(per_node, in_process=not trains)

    def trial(config: Record) -> None:
        import torch

        with working_in(home):
            torch.set_num_threads(own_threads(per_node))
            result = function(config, lambda record: tune.report(_numbers(record)), workplace)
        tune.report({**_numbers(result.get("figures", {})), "result": result})

    return trial


def _numbers(record: Mapping[str, Any]) -> Record:
    return {key: value for key, value in record.items() if isinstance(value, int | float)}


class _Ears(tune.Callback):
    """Tune's callbacks, in words of trials."""

    def __init__(self, watcher: Watcher):
        self.watcher = watcher

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self.watcher.started(dict(trial.config))

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: Record, **info: Any
    ) -> None:
        if "result" not in result:
            self.watcher.told(dict(trial.config), result)

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        last = trial.last_result or {}
        self.watcher.ended(dict(trial.config), {PLATEAU: True} if PLATEAU in last else last.get("result"))

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        # Where the driver writes: the folder that `get_error` reads has it seconds later.
        said = Path(trial.error_file).read_text()
        self.watcher.ended(dict(trial.config), {"error": said.strip()[-1500:]})


class _Anew(tune.Callback):
    """Before loggers: a trial that begins again, after its worker or a whole attempt was lost, is logged anew."""

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        storage, here = trial.storage, trial.local_path
        assert storage is not None  # a trial that starts has both
        assert here is not None
        if os.listdir(here):  # its worker was lost; Tune may just be copying what was logged
            with suppress(Exception):  # of the copy, which Tune repeats
                storage.syncer.wait()
            shutil.rmtree(here)
            os.mkdir(here)
        with suppress(FileNotFoundError):
            storage.storage_filesystem.delete_dir(storage.trial_fs_path)


class _Kept(tune.Callback):
    """After loggers: what they wrote of a trial goes to their folder when it ends; Tune copies it seconds later, and a driver
    that is killed before would not log the trial again.
    """

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        assert trial.storage is not None
        files, folder = trial.storage.storage_filesystem, trial.storage.trial_fs_path
        with suppress(OSError):  # Tune would call the trial failed
            files.create_dir(folder)
            copy_files(trial.local_path, folder, destination_filesystem=files)


def _name(trial: TuneTrial) -> str:
    return str(trial.config["name"])
