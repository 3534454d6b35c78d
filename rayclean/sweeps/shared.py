"""Execution of the verbs that several trials share, before the trials themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rayclean import progress
from rayclean.errors import RaycleanError
from rayclean.sweeps.observer import SweepObserver
from rayclean.sweeps.plan import SharedLevel, Work
from rayclean.sweeps.trial import run_shared_work

if TYPE_CHECKING:
    from rayclean.runtime.trial_slots import TrialSlots

SINGLE = ("load", "detect")
"""Shared verbs that need only a single process."""
ROUNDS = 2
"""Least number of items per core for which each item runs in one process; with fewer, items use several
processes."""


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
                cores = self.cores if level[0][0] in SINGLE else None
                alone = cores is not None and len(items) >= ROUNDS * cores.concurrent
                where = cores if cores is not None and alone else self.wide
                function = partial(run_shared_work, servers=self.servers)
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
