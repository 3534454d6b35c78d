"""The run folder: `runs/<name>/<verb>/...` on any file system that fsspec knows.

A verb writes into `.partial/<verb>-<fingerprint>/` and moves it to `<verb>/` last, with `manifest.json` as
the very last thing that appears: a verb folder with a manifest is whole. The fingerprint hashes the
fingerprints of the verb's inputs, the part of the config that it reads and the version of its code; the same
fingerprint means that the folder is reused, another one that the verb runs again. After a crash the same
command finds the partial folder of the same fingerprint and goes on with the shards that are not there yet.

`ledger/` lies beside the verbs and is never removed: it holds every answer an annotator was ever paid for.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from filelock import FileLock, Timeout

from rayclean.errors import ArtifactError, ConfigError
from rayclean.folder import Folder

VERBS = ("load", "predict", "detect", "relabel", "train", "evaluate")
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` of a finished verb says."""

    verb: str
    """Name of the verb."""
    fingerprint: str
    """Hash of everything that its result depends on."""
    seconds: float
    """Wall time of the attempt that finished it."""
    rayclean: str
    """Version of rayclean that wrote it."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Figures of the verb, for `metrics.json` and the report; plain JSON."""


class Run(Folder):
    """One run: `<output>/<name>/`."""

    shares_ledger = False
    """Whether other runs write into the same ledger; their answers then count towards this run's budgets,
    too."""

    def manifest(self, verb: str) -> Manifest | None:
        """The manifest of a verb; None if the verb is not finished."""
        if not self.exists(verb, MANIFEST):
            return None
        try:
            return Manifest(**json.loads(self.read_text(verb, MANIFEST)))
        except (TypeError, ValueError) as error:
            raise ArtifactError(
                f"{self.url(verb, MANIFEST)} was not written by this rayclean ({error}); "
                f"remove the folder {self.url(verb)} and run the verb again"
            ) from error

    def done(self, verb: str, fingerprint: str) -> bool:
        """Whether the verb is finished with exactly this fingerprint."""
        manifest = self.manifest(verb)
        return manifest is not None and manifest.fingerprint == fingerprint

    def require(self, verb: str) -> Folder:
        """The folder of a finished verb.

        Raises:
            ArtifactError: the verb has not run.
        """
        if self.manifest(verb) is None:
            raise ArtifactError(f"{self.url(verb)} is missing or unfinished: run `rayclean {verb}` first")
        return self.sub(verb)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time work in this run folder; the lock goes with the process, however it ends.

        Object stores have no locks; there the fingerprints still keep two runs of one config consistent.

        Raises:
            ConfigError: the folder cannot be made, as a part of its path is a file or its bucket is missing.
            OSError: its disk is full, read-only or gone.
            ArtifactError: another process works in it.
        """
        try:
            self.make()
            if not self.is_local:  # a missing or foreign bucket is noticed before anything runs
                self.write_text("", ".lock")
        except OSError as error:
            if self.is_local and not isinstance(error, NotADirectoryError | FileExistsError):
                raise
            raise ConfigError(
                f"output: cannot write to {self.url()} ({error}); choose another folder (output=...)"
            ) from error
        if not self.is_local:
            yield
            return
        try:
            held = FileLock(self.path(".lock")).acquire(blocking=False)
        except Timeout as error:
            raise ArtifactError(
                f"another rayclean works in {self.url()}; wait for it, or choose another name (name=...)"
            ) from error
        with held:
            yield

    @contextmanager
    def exclusive(self, verb: str) -> Iterator[None]:
        """Keep other processes from writing this verb while the block runs; `locked` already does so for a
        plain run.
        """
        yield

    def kept_features(self) -> Folder | None:
        """Folder where features of a frozen encoder outlive the verb that made them; None: a run computes
        them once.
        """
        return None

    def outdate(self, verb: str) -> None:
        """Make the verbs after this one look unfinished: they were made from what it was before."""
        for later in VERBS[VERBS.index(verb) + 1 :]:
            self.remove(later, MANIFEST)

    def begin(self, verb: str, fingerprint: str) -> Folder:
        """The folder to write into: a new one, or what a crashed attempt of the same fingerprint left."""
        partial = self.sub(".partial", f"{verb}-{fingerprint}")
        partial.make()
        partial.remove_unfinished()
        return partial

    def commit(
        self, verb: str, fingerprint: str, partial: Folder, seconds: float, metrics: dict[str, Any]
    ) -> Manifest:
        """Make a partial folder the verb's folder; `manifest.json` appears last."""
        from rayclean import __version__

        manifest = Manifest(verb, fingerprint, round(seconds, 3), __version__, metrics)
        self.remove(verb, MANIFEST)  # from here on the old folder no longer looks whole
        self.remove(verb)
        if self.is_local:
            partial.write_json(asdict(manifest), MANIFEST)
            os.makedirs(os.path.dirname(self.path(verb)), exist_ok=True)
            os.replace(partial.root, self.path(verb))  # at any moment the work is in one of the two places
        else:
            self.fs.copy(partial.root.rstrip("/") + "/", self.path(verb) + "/", recursive=True)
            self.write_json(asdict(manifest), verb, MANIFEST)
        for other in self._partials(verb):
            self.remove(".partial", other)
        return manifest

    def _partials(self, verb: str) -> list[str]:
        return [name for name in self.names(".partial") if name.startswith(f"{verb}-")]
