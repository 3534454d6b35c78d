"""The folder of a sweep: verbs are stored by fingerprint, so that trials share what their configs share.

    <output>/<sweep>/
      sweep.json                  what was swept
      store/<verb>-<fingerprint>/ a finished verb, of as many trials as agree up to there
      features/<encoder>/         features of a frozen encoder, for trials that load the same texts
      ledger/                     every answer of every trial: a trial asks nothing that was answered before
      trials/<name>/              config.json, result.json, epochs.jsonl of one trial
      report.html  results.json  best.toml

On a disk that all trials mount, locks see to it that a verb runs once, and that trials relabel one after the
other where answers cost: no question of relabel is paid twice. Methods that ask while they train do so side
by side, and may ask the same at the same time. Object stores have no locks: there, what is known to be shared
runs beforehand and once, but trials side by side may ask the same.
"""

import os
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from filelock import FileLock

from rayclean.folder import Folder
from rayclean.run import VERBS, Manifest, Run

TrialRecord = dict[str, Any]
"""A trial's parameters, one of its epochs, or its result: plain JSON values."""
COMMON = ("features", "ledger", ".partial")
"""Folders that all trials share, beside those of the verbs."""


class TrialRun(Run):
    """One trial's view of the store: it reads and writes like any run.

    Args:
        root: folder of the sweep.
        name: name of the trial.
        fingerprints: fingerprint by verb.
        pays: whether its annotator's answers cost.
    """

    shares_ledger = True

    def __init__(self, root: str, name: str, fingerprints: Mapping[str, str], *, pays: bool = False):
        super().__init__(root)
        self.trial, self.fingerprints, self.pays = name, dict(fingerprints), pays

    def path(self, *parts: str) -> str:
        """Path inside the sweep: verbs in the store, shared folders beside it, everything else in the trial's
        folder.
        """
        if parts and parts[0] in VERBS:
            return posixpath.join(self.root, "store", f"{parts[0]}-{self.fingerprints[parts[0]]}", *parts[1:])
        # Without locks two trials may be at the same verb: a partial folder of its own each, or the one that
        # is done first would take it away from the other.
        if parts and parts[0] in COMMON and (self.is_local or parts[0] != ".partial"):
            return posixpath.join(self.root, *parts)
        return posixpath.join(self.root, "trials", self.trial, *parts)

    def alone(self) -> AbstractContextManager[Any]:
        """One process at a time at this trial: Optuna may draw a point again while it runs, and the second
        one finds the result of the first. On object stores, without locks, both compute the same.
        """
        return self._locked(self.path("trial.lock"))

    @contextmanager
    def exclusive(self, verb: str) -> Iterator[None]:
        """Trials that share a verb wait for the one that runs it. Trials that pay relabel one after the
        other, whatever they ask: the ledger is read when asking begins, so the next one finds all answers of
        the trials before it. The holder of the second lock waits for no other: no two wait for each other.
        """
        paying = verb == "relabel" and self.pays
        last = self._locked(posixpath.join(self.root, "relabel.lock")) if paying else nullcontext()
        with self._locked(self.path(verb) + ".lock"), last:
            yield

    def kept_features(self) -> Folder:
        """The folder of features, one for the whole sweep."""
        return self.sub("features")

    def outdate(self, verb: str) -> None:
        """Does nothing: a folder of another fingerprint belongs to another trial."""

    def commit(
        self, verb: str, print_: str, partial: Folder, seconds: float, metrics: dict[str, Any]
    ) -> Manifest:
        """Like any run's, but without locks a verb that another trial has finished meanwhile stays: a third
        trial may be reading it.
        """
        manifest = None if self.is_local else self.manifest(verb)
        if manifest is None or manifest.fingerprint != print_:
            return super().commit(verb, print_, partial, seconds, metrics)
        for partial_name in self._partials(verb):
            self.remove(".partial", partial_name)
        return manifest

    def _partials(self, verb: str) -> list[str]:
        return [f"{verb}-{self.fingerprints[verb]}"]  # the others are other trials' work

    def _locked(self, path: str) -> AbstractContextManager[Any]:
        """One process at a time, on a disk; object stores have no locks. The lock ends with the process that
        holds it.
        """
        if not self.is_local:
            return nullcontext()
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return FileLock(path)
