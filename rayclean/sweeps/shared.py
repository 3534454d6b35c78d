"""Execution of the verbs that several trials share, before the trials themselves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rayclean import progress
from rayclean.errors import RaycleanError
from rayclean.runtime.engines import Workplace
from rayclean.runtime.needs import is_on_cluster
from rayclean.sweeps.observer import SweepObserver
from rayclean.sweeps.plan import SharedLevel, Work
from rayclean.sweeps.trial import run_shared_work
from rayclean.verb_fingerprints import verb_module

if TYPE_CHECKING:
    from rayclean.runtime.trial_slots import TrialSlots

SINGLE = ("load", "detect")
"""Shared verbs that need only a single process."""
FEW_SECONDS = 10.0
"""Most seconds of work that this process does itself: worker processes take about as long to start."""
ROUNDS = 2
"""Least number of items per core for which each item runs in one process; with fewer, items use several processes."""


@dataclass
class SharedVerbs:
    """Runs every shared verb once, in the order of the verbs."""

    wide: "TrialSlots"
    """Number of concurrent verbs that use several processes of the cluster."""
    cores: "TrialSlots | None" = None
    """Number of concurrent verbs that compute in one process; None: no verb does."""
    servers: Any = field(default_factory=dict)
    """Language models that run for all trials."""
    failed: dict[str, RaycleanError] = field(default_factory=dict)
    """Error by fingerprint of the failed verb."""

    def run(self, levels: Sequence[SharedLevel]) -> None:
        """Run the verbs of some levels, except those that depend on a failed one."""
        from rayclean.runtime import tune

        if not levels:
            return
        with progress.progress_bar("shared by trials", sum(map(len, levels)), "verbs") as bar:
            for level in levels:
                items = [item for item in level if not self._errors(item[1])]
                function = partial(run_shared_work, servers=self.servers)
                cores = self.cores if level[0][0] in SINGLE else None
                if cores is not None and _few_seconds(items):
                    errors = [_error(function, item) for item in items]
                else:
                    alone = cores is not None and len(items) >= ROUNDS * cores.concurrent
                    where = cores if cores is not None and alone else self.wide
                    errors = tune.run_side_by_side(function, items, where, alone=alone)
                for (verb, work), error in zip(items, errors, strict=True):
                    if error is not None:
                        self.failed[work.fingerprints[verb]] = error
                bar.advance(len(level))

    def possible(self, todo: Mapping[str, Work], observer: SweepObserver) -> dict[str, Work]:
        """The trials whose shared verbs succeeded; the others are reported as failed.

        Raises:
            RaycleanError: no trial can run.
        """
        kept = {}
        for name, work in todo.items():
            if errors := self._errors(work):
                observer.failed(work, str(errors[0]))
            else:
                kept[name] = work
        if self.failed and not kept:  # also with Optuna, whose trials all depend on the shared verbs
            raise next(iter(self.failed.values()))
        observer.total -= len(todo) - len(kept)
        return kept

    def _errors(self, work: Work) -> list[RaycleanError]:
        return [self.failed[each] for each in work.fingerprints.values() if each in self.failed]


def _few_seconds(items: SharedLevel) -> bool:
    """Whether this process finishes the items before others would have started."""
    seconds: list[float] = [verb_module(verb).needs(work.config, work.run).seconds for verb, work in items]
    return sum(seconds) <= FEW_SECONDS and not is_on_cluster()  # this machine may be its weakest


def _error(
    function: Callable[[tuple[str, Work], Workplace], None], item: tuple[str, Work]
) -> RaycleanError | None:
    try:
        with progress.unseen():
            function(item, Workplace(in_process=True))
    except RaycleanError as error:
        return error
    return None
