"""Where a sweep's artifacts lie: verbs by fingerprint, so that trials share what their configs share.

<output>/<sweep>/
sweep.json                  what was swept
store/<verb>-<fingerprint>/ a finished verb, of as many trials as agree up to there
features/<encoder>/         features of a frozen encoder by a hash of ids and texts, for trials that load the same texts with
                            other labels (a noise rate, a seed)
ledger/                     every answer of every trial: what was answered when a trial begins to ask, it does not ask
trials/<name>/              config.json, result.json, epochs.jsonl of one trial
report.html  results.json  best.toml

On a disk that all trials mount, locks see to it that a verb runs once, and that trials relabel one after the other where
answers cost: no question of relabel is paid twice. Methods that ask while they train do so side by side, and may ask the
same at the same time. Object stores have no locks: there, what is known to be shared runs beforehand and once, but
trials side by side may ask the same.
"""

import fcntl
import os
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rayclean.folder import Folder
from rayclean.run import VERBS, Manifest, Run

COMMON = ("features", "ledger", ".partial")
FREE = ("knn", "simulated")
"""Annotators that cost nothing: the same question may be asked twice at once."""


class TrialRun(Run):
    """One trial's view of the store: it reads and writes like any run.

    Args:
        root: folder of the sweep.
        name: of the trial.
        prints: fingerprint by verb.
        pays: whether its annotator's answers cost.
    """

    shares_ledger = True

    def __init__(self, root: str, name: str, prints: Mapping[str, str], *, pays: bool = False):
        super().__init__(root)
        self.trial, self.prints, self.pays = name, dict(prints), pays

    def path(self, *parts: str) -> str:
        """Verbs lie in the store, what all trials share beside it, everything else in the trial's own folder."""
        if parts and parts[0] in VERBS:
            return posixpath.join(self.root, "store", f"{parts[0]}-{self.prints[parts[0]]}", *parts[1:])
        # Without locks two trials may be at the same verb: a partial folder of its own each, or the one that is done
        # first would take it away from the other.
        if parts and parts[0] in COMMON and (self.is_local or parts[0] != ".partial"):
            return posixpath.join(self.root, *parts)
        return posixpath.join(self.root, "trials", self.trial, *parts)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One process at a time at this trial: Optuna may draw a point again while it runs, and the second one finds the
        result of the first. On object stores, without locks, both compute the same.
        """
        if not self.is_local:
            yield
            return
        with _locked(self.path("trial.lock")):
            yield

    @contextmanager
    def exclusive(self, verb: str) -> Iterator[None]:
        """Trials that share a verb wait for the one that runs it. Those that pay relabel one after the other, whatever
        they ask: the ledger is read when asking begins, so the next one finds all answers of those before.

        On a local or network disk only: object stores have no locks.
        """
        if not self.is_local:
            yield
            return
        with _locked(self.path(verb) + ".lock"):
            if verb != "relabel" or not self.pays:
                yield
                return
            # Always after the verb's own lock; who holds this one waits for no other: no two can wait for each other.
            with _locked(posixpath.join(self.root, "relabel.lock")):
                yield

    def kept_features(self) -> Folder:
        """One place for the whole sweep."""
        return self.sub("features")

    def outdate(self, verb: str) -> None:
        """Nothing: a folder of another fingerprint is another trial's."""

    def commit(
        self, verb: str, print_: str, partial: Folder, seconds: float, metrics: dict[str, Any]
    ) -> Manifest:
        """As in any run; without locks, what another trial has finished meanwhile stays: a third one may read it."""
        manifest = None if self.is_local else self.manifest(verb)
        if manifest is None or manifest.fingerprint != print_:
            return super().commit(verb, print_, partial, seconds, metrics)
        for own in self._partials(verb):
            self.remove(".partial", own)
        return manifest

    def _partials(self, verb: str) -> list[str]:
        return [f"{verb}-{self.prints[verb]}"]  # the others are other trials' work


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """The lock goes with the process, however it ends."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
