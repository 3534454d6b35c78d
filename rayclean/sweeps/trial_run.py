"""The folder of a sweep: verbs are stored by fingerprint, so trials share the verbs of equal configs.

    <output>/<sweep>/
      sweep.json                  description of the sweep
      store/<verb>-<fingerprint>/ a finished verb of all trials whose configs agree up to it
      features/<encoder>/         features of a frozen encoder, for trials that load the same texts
      ledger/                     every answer of every trial; no trial repeats an answered question
      trials/<name>/              config.json, result.json, epochs.jsonl of one trial
      report.html  results.json  best.toml

On a shared disk, locks ensure that a verb runs once and that trials with a billable annotator relabel one
after another, so no question of relabel is paid for twice. Methods that ask during training run concurrently
and may ask the same question at once. Object stores have no locks: shared verbs run once, before the trials,
but concurrent trials may ask the same question.
"""

import os
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from filelock import FileLock

from rayclean.folder import Folder
from rayclean.results import RunResults
from rayclean.run import VERBS, Manifest

TrialRecord = dict[str, Any]
"""Parameters, one epoch, or the result of a trial, as plain JSON values."""
COMMON = ("features", "ledger", ".partial")
"""Folders that all trials share, in addition to those of the verbs."""


class TrialRun(RunResults):
    """One trial's view of the store, with the interface of any run.

    Args:
        root: folder of the sweep.
        name: name of the trial.
        fingerprints: fingerprint of each verb.
        pays: whether its annotator is billable.
    """

    shares_ledger = True

    def __init__(self, root: str, name: str, fingerprints: Mapping[str, str], *, pays: bool = False):
        super().__init__(root)
        self.trial, self.fingerprints, self.pays = name, dict(fingerprints), pays

    def path(self, *parts: str) -> str:
        """Path in the sweep's folder: verbs are in the store, shared folders beside it, other files in the trial's folder."""
        if parts and parts[0] in VERBS:
            return posixpath.join(self.root, "store", f"{parts[0]}-{self.fingerprints[parts[0]]}", *parts[1:])
        # Without locks two trials may run the same verb, so each needs a separate partial folder, which the
        # first to finish renames.
        if parts and parts[0] in COMMON and (self.is_local or parts[0] != ".partial"):
            return posixpath.join(self.root, *parts)
        return posixpath.join(self.root, "trials", self.trial, *parts)

    def alone(self) -> AbstractContextManager[Any]:
        """A lock on this trial: Optuna may draw a point again while it runs, and the second attempt then
        finds the result. Object stores have no locks, so both compute it.
        """
        return self._locked(self.path("trial.lock"))

    @contextmanager
    def exclusive(self, verb: str) -> Iterator[None]:
        """Locks for a verb: trials that share it wait for the one that runs it. Billable trials also relabel
        one after another, so each finds all earlier answers in the ledger, which is read when asking begins.
        The holder of the second lock waits for no other lock, so there is no deadlock.
        """
        paying = verb == "relabel" and self.pays
        last = self._locked(posixpath.join(self.root, "relabel.lock")) if paying else nullcontext()
        with self._locked(self.path(verb) + ".lock"), last:
            yield

    def kept_features(self) -> Folder:
        """The folder of cached features, shared by the whole sweep."""
        return self.sub("features")

    def outdate(self, verb: str) -> None:
        """Do nothing, as a folder of another fingerprint belongs to another trial."""

    def commit(
        self, verb: str, fingerprint: str, partial: Folder, seconds: float, metrics: dict[str, Any]
    ) -> Manifest:
        """Commit a verb; without locks, a verb that another trial finished meanwhile is kept, as it may be in use."""
        manifest = None if self.is_local else self.manifest(verb)
        if manifest is None or manifest.fingerprint != fingerprint:
            return super().commit(verb, fingerprint, partial, seconds, metrics)
        for partial_name in self._partials(verb):
            self.remove(".partial", partial_name)
        return manifest

    def _partials(self, verb: str) -> list[str]:
        return [f"{verb}-{self.fingerprints[verb]}"]  # other folders belong to other trials

    def _locked(self, path: str) -> AbstractContextManager[Any]:
        """A lock between processes on a disk, released when its process ends; object stores have no locks."""
        if not self.is_local:
            return nullcontext()
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return FileLock(path)
