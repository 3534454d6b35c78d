"""The run folder: `runs/<name>/<verb>/...` on any file system that fsspec knows.

A verb writes into `.partial/<verb>-<fingerprint>/` and moves it to `<verb>/` last, with `manifest.json` as the very
last thing that appears: a verb folder with a manifest is whole. The fingerprint hashes the fingerprints of the
verb's inputs, the part of the config that it reads and the version of its code; the same fingerprint means that
the folder is reused, another one that the verb runs again. After a crash the same command finds the partial folder
of the same fingerprint and goes on with the shards that are not there yet.

`ledger/` lies beside the verbs and is never removed: it holds every answer an annotator was ever paid for.
"""

import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from rayclean.errors import ArtifactError
from rayclean.folder import Folder

VERBS = ("load", "predict", "detect", "relabel", "train", "evaluate")
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What a finished verb says of itself."""

    verb: str
    fingerprint: str
    seconds: float
    """Wall time of the attempt that finished it."""
    rayclean: str
    """Version of rayclean that wrote it."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Figures of the verb, for `metrics.json` and the report; plain JSON."""


class Run(Folder):
    """One run: `<output>/<name>/`."""

    shares_ledger = False
    """Whether others pay into the same ledger: then their answers count towards this one's budgets, too."""

    def manifest(self, verb: str) -> Manifest | None:
        """What the finished verb says of itself; None if it is not finished."""
        if not self.exists(verb, MANIFEST):
            return None
        try:
            return Manifest(**self.read_json(verb, MANIFEST))
        except (TypeError, ValueError) as error:
            raise ArtifactError(
                f"{self.url(verb, MANIFEST)} was not written by this rayclean ({error}); "
                f"remove the folder {self.url(verb)} and run the verb again"
            ) from error

    def done(self, verb: str, print_: str) -> bool:
        """Whether the verb is finished with exactly this fingerprint."""
        manifest = self.manifest(verb)
        return manifest is not None and manifest.fingerprint == print_

    def require(self, verb: str) -> Folder:
        """The folder of a finished verb.

        Raises:
            ArtifactError: the verb has not run.
        """
        if self.manifest(verb) is None:
            raise ArtifactError(f"{self.url(verb)} is missing or unfinished: run `rayclean {verb}` first")
        return self.sub(verb)

    @contextmanager
    def exclusive(self, verb: str) -> Iterator[None]:
        """Nobody else writes this verb while the block runs: whoever works in a run folder has it for themselves."""
        yield

    def kept_features(self) -> Folder | None:
        """Where features of a frozen encoder outlive the verb that made them; None: nowhere, a run computes them once."""
        return None

    def outdate(self, verb: str) -> None:
        """Verbs after this one are made from what it was: they no longer look whole."""
        for after in VERBS[VERBS.index(verb) + 1 :]:
            self.remove(after, MANIFEST)

    def begin(self, verb: str, print_: str) -> Folder:
        """The folder to write into: a new one, or what a crashed attempt of the same fingerprint left."""
        partial = self.sub(".partial", f"{verb}-{print_}")
        partial.make()
        return partial

    def commit(
        self, verb: str, print_: str, partial: Folder, seconds: float, metrics: dict[str, Any]
    ) -> Manifest:
        """Make a partial folder the verb's folder; `manifest.json` appears last."""
        from rayclean import __version__

        manifest = Manifest(verb, print_, round(seconds, 3), __version__, metrics)
        self.remove(verb, MANIFEST)  # from here on the old folder no longer looks whole
        self.remove(verb)
        if self.is_local:
            partial.write_json(asdict(manifest), MANIFEST)
            os.makedirs(os.path.dirname(self.path(verb)), exist_ok=True)
            os.replace(
                partial.root, self.path(verb)
            )  # one rename: at any moment the work is in one of the two places
        else:
            self.fs.copy(partial.root.rstrip("/") + "/", self.path(verb) + "/", recursive=True)
            self.write_json(asdict(manifest), verb, MANIFEST)
        for other in self._partials(verb):
            self.remove(".partial", other)
        return manifest

    def _partials(self, verb: str) -> list[str]:
        try:
            entries = self.fs.ls(self.path(".partial"), detail=False)
        except FileNotFoundError:
            return []
        names = [posixpath.basename(str(entry).rstrip("/")) for entry in entries]
        return [name for name in names if name.startswith(f"{verb}-")]
