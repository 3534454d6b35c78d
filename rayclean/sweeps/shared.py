"""Runs the verbs that several trials share before the trials themselves."""

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
"""Shared verbs that hold nothing but the process they run in."""
ROUNDS = 2
"""With so many items for each core, items that compute in one process each keep the cores busy nearly to the
end; further processes for each would cost more."""


@dataclass
class SharedVerbs:
    """Runs what several trials share, once each, verb after verb."""

    wide: "TrialSlots"
    """How many verbs run at once, where each spreads over the cluster."""
    cores: "TrialSlots | None" = None
    """How many verbs run at once, where each computes in its own process; None: none does."""
    servers: Any = field(default_factory=dict)
    """Language models that run for all trials."""
    failed: dict[str, RaycleanError] = field(default_factory=dict)
    """Fingerprint of a verb that failed -> its error."""

    def run(self, levels: Sequence[SharedLevel]) -> None:
        """Run the verbs of some levels; a verb that depends on a failed one is not begun."""
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
        """The trials that can still run; the others fail with the verb that they share.

        Raises:
            RaycleanError: none can.
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
