"""Where a sweep's artifacts lie: verbs by fingerprint, so that trials share what their configs share.

<output>/<sweep>/
sweep.json                  what was swept
store/<verb>-<fingerprint>/ a finished verb, of as many trials as agree up to there
ledger/                     every answer of every trial: no trial pays for what another one asked
trials/<name>/              config.json, result.json, epochs.jsonl of one trial
report.html  results.json  best.toml
"""

import fcntl
import os
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rayclean.artifacts import VERBS, Run

COMMON = ("ledger", ".partial")


class TrialRun(Run):
    """One trial's view of the store: it reads and writes like any run.

    Args:
        root: folder of the sweep.
        name: of the trial.
        prints: fingerprint by verb.
    """

    def __init__(self, root: str, name: str, prints: Mapping[str, str]):
        super().__init__(root)
        self.trial, self.prints = name, dict(prints)

    def path(self, *parts: str) -> str:
        """Verbs lie in the store, what all trials share beside it, everything else in the trial's own folder."""
        if parts and parts[0] in VERBS:
            return posixpath.join(self.root, "store", f"{parts[0]}-{self.prints[parts[0]]}", *parts[1:])
        if parts and parts[0] in COMMON:
            return posixpath.join(self.root, *parts)
        return posixpath.join(self.root, "trials", self.trial, *parts)

    @contextmanager
    def exclusive(self, verb: str) -> Iterator[None]:
        """Trials that share a verb wait for the one that runs it (on a local or network disk; object stores have no
        locks: there only what is known to be shared beforehand is run once).
        """
        if not self.is_local:
            yield
            return
        lock = self.path(verb) + ".lock"
        os.makedirs(os.path.dirname(lock), exist_ok=True)
        with open(lock, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def outdate(self, verb: str) -> None:
        """Nothing: a folder of another fingerprint is another trial's."""

    def _partials(self, verb: str) -> list[str]:
        return []
