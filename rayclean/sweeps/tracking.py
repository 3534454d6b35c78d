"""Weights & Biases: one group per sweep, one run per trial, whatever was killed in between.

A run's id is a hash of the sweep's folder and the trial's name, so it is the same in every attempt, and another one in
another sweep. Offline, where W&B keeps a folder per `init`, what an
unfinished attempt left is removed before the trial is logged again, and `logged.json` in the trial's folder says that its
run is whole. A finished trial without it (killed between the two) is logged from its own files when the sweep goes on.

W&B writes to a disk only. Where the sweep's folder is remote, it gets a temporary folder; what it wrote offline of a finished
run is copied to `wandb/` of the sweep's folder before `logged.json` says that it is whole. A run names the files of its
artifact by their absolute paths, so `wandb sync` wants the copy where they lay (`folder` in `logged.json`):

    aws s3 cp --recursive s3://bucket/sweeps/name/wandb /tmp/rayclean-wandb-0123456789abcdef/wandb
    wandb sync /tmp/rayclean-wandb-0123456789abcdef/wandb/offline-run-*

The key is read by wandb from WANDB_API_KEY, and never passes through here. `auto` asks WANDB_MODE
before it looks for the key: nothing is sent where that says `offline` or `disabled`.
"""

import importlib.util
import logging
import os
import posixpath
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rayclean.fingerprints import fingerprint
from rayclean.folder import Folder
from rayclean.sweeps.plan import Work
from rayclean.sweeps.spec import Tracking
from rayclean.sweeps.trial import EPOCHS, RESULT, changed_examples

logger = logging.getLogger(__name__)

LOGGED = "logged.json"
ONLINE = ("online", "run", "shared")
"""Values of WANDB_MODE with which W&B sends what is logged."""
KEPT = ("config.json", RESULT, EPOCHS)
"""Files of a trial that go to W&B as its artifact."""


def open_tracker(tracking: Tracking, sweep: str, root: str) -> "Tracker":
    """The tracker that the configuration asks for; a silent one where W&B is off or not installed.

    Args:
        tracking: of the sweep.
        sweep: its name.
        root: its folder.
    """
    mode = _mode() if tracking.wandb == "auto" else tracking.wandb
    if mode == "off":
        return Tracker()
    return WandbTracker(tracking, sweep, Folder(root), mode)


def _mode() -> str:
    """What `auto` stands for: what WANDB_MODE says, and without it online where there is a key."""
    said = os.environ.get("WANDB_MODE")
    if said == "disabled" or importlib.util.find_spec("wandb") is None:
        return "off"
    if said:
        return "online" if said in ONLINE else "offline"  # also where it is no mode at all: nothing leaves
    return "online" if os.environ.get("WANDB_API_KEY") else "offline"


class Tracker:
    """Logs nothing."""

    def start(self, work: Work) -> None:
        """A trial begins, or begins again."""

    def line(self, work: Work, record: dict[str, Any]) -> None:
        """An epoch of it is over."""

    def end(self, work: Work, result: dict[str, Any]) -> None:
        """It has a result."""

    def replay(self, work: Work, result: dict[str, Any], records: list[dict[str, Any]]) -> None:
        """Log a finished trial from its files, unless its run is whole."""

    def close(self) -> None:
        """Leave what is under way unfinished."""


class WandbTracker(Tracker):
    """One W&B run per trial, all in this process. One that fails costs no trial and no sweep: there is a warning, and the
    trial is logged when the sweep goes on.

    Args:
        tracking: project, tables.
        sweep: group of the runs.
        root: folder of the sweep; W&B makes its own folder `wandb/` there, or has it copied there if that is remote.
        mode: `online` or `offline`.
    """

    def __init__(self, tracking: Tracking, sweep: str, root: Folder, mode: str):
        self.tracking, self.sweep, self.root, self.mode = tracking, sweep, root, mode
        self.folder = root.path() if root.is_local else _scratch(root)
        self.runs: dict[str, Any] = {}
        # What an artifact holds waits here for `wandb sync`; W&B's own place would be the home directory.
        self.data = os.environ.setdefault(
            "WANDB_DATA_DIR", os.path.abspath(os.path.join(self.folder, "wandb"))
        )

    def id_of(self, work: Work) -> str:
        """Of a trial's run on W&B."""
        return fingerprint(self.root.url(), work.trial.name)

    def start(self, work: Work) -> None:
        """Open the run of a trial, unless it is whole; what an earlier attempt left of it offline goes."""
        name = work.trial.name
        if name in self.runs:  # its worker was lost: the lines of the second attempt have the same steps
            return
        with self._guarded(work):
            import wandb

            if work.run(self.root.url()).exists(LOGGED):  # Optuna drew the point again
                return
            if self.mode == "offline":
                for left in self._offline(work):
                    shutil.rmtree(left)
            with _without_weave():
                self.runs[name] = wandb.init(
                    id=self.id_of(work),
                    project=self.tracking.project,
                    group=self.sweep,
                    name=work.trial.title[:128],
                    dir=self.folder,
                    mode=self.mode,  # type: ignore[arg-type]
                    resume="allow" if self.mode == "online" else None,
                    reinit="create_new",
                    config={**work.trial.overrides, "config": work.config.model_dump(mode="json")},
                    settings=wandb.Settings(
                        silent=True,
                        console="off",
                        disable_git=True,
                        x_disable_stats=True,
                        x_disable_meta=True,
                    ),
                )

    def line(self, work: Work, record: dict[str, Any]) -> None:
        """Log the numbers of an epoch under its step."""
        run = self.runs.get(work.trial.name)
        if run is not None:
            numbers = {key: value for key, value in record.items() if isinstance(value, int | float)}
            with self._guarded(work):
                # A step that is not committed is written with the next one, or at the end over the result's summary.
                run.log(numbers, step=int(record["epoch"]), commit=True)

    def end(self, work: Work, result: dict[str, Any]) -> None:
        """Log the result and close the run; only then is it whole."""
        run = self.runs.get(work.trial.name)
        if run is None:
            return
        with self._guarded(work):
            own, before = work.run(self.root.url()), self._staged()
            run.summary.update({**result["figures"], "stopped": result["stopped"]})
            if self.tracking.changes and not result["stopped"]:
                import wandb

                rows = changed_examples(own, self.tracking.changes)
                columns: list[str | int] = list(rows[0]) if rows else ["example_id"]
                run.log({"changes": wandb.Table(columns=columns, data=[list(row.values()) for row in rows])})
            self._keep(run, own)
            run.finish(exit_code=0)
            del self.runs[work.trial.name]
            whole = {"run": self.id_of(work), "mode": self.mode}
            if self.mode == "offline":
                (written,) = self._offline(work)
                _settle(written)
                if not self.root.is_local:
                    self._copy(work, written, self._staged() - before)
                    whole["folder"] = self.folder
            own.write_json(whole, LOGGED)

    def replay(self, work: Work, result: dict[str, Any], records: list[dict[str, Any]]) -> None:
        """From `epochs.jsonl` and `result.json`."""
        self.start(work)
        for record in records:
            self.line(work, record)
        self.end(work, result)

    def _keep(self, run: Any, own: Folder) -> None:
        """The trial's config, epochs and result as files: what repeats it. They hold no texts and no key."""
        import wandb

        artifact = wandb.Artifact(f"trial-{run.id}", type="trial")
        for name in KEPT:
            if own.exists(name):
                with artifact.new_file(name) as file:
                    file.write(own.read_text(name))
        run.log_artifact(artifact)

    @contextmanager
    def _guarded(self, work: Work) -> Iterator[None]:
        """A tracker that fails must not cost a sweep: the run is given up, and without LOGGED tried again."""
        name = work.trial.name
        try:
            yield
        except Exception as error:
            logger.warning(
                "W&B: %s is not logged (%s); it will be tried again when the sweep goes on", name, error
            )
            with suppress(Exception):
                self.runs.pop(name).finish(exit_code=1)

    def _offline(self, work: Work) -> list[Path]:
        """W&B's folders of a trial's run: one for each attempt."""
        return sorted(Path(self.folder, "wandb").glob(f"offline-run-*-{self.id_of(work)}"))

    def _staged(self) -> set[Path]:
        """Files of artifacts that wait for `wandb sync`."""
        return set(Path(self.data, "artifacts", "staging").glob("*"))

    def _copy(self, work: Work, run: Path, staged: set[Path]) -> None:
        """Put a finished run, and the files that its artifacts name, into the sweep's folder, in place of what a killed
        attempt has put there.
        """
        with suppress(FileNotFoundError):
            for path in self.root.fs.ls(self.root.path("wandb"), detail=False):
                left = posixpath.basename(str(path).rstrip("/"))
                if left.startswith("offline-run-") and left.endswith(f"-{self.id_of(work)}"):
                    self.root.remove("wandb", left)
        # Links lead to logs of W&B's own process, which are no part of the run.
        files = {path: path.relative_to(run.parent).parts for path in run.rglob("*") if not path.is_symlink()}
        files |= {path: ("artifacts", "staging", path.name) for path in staged}
        for path, parts in files.items():
            if path.is_file():
                self.root.make("wandb", *parts[:-1])
                self.root.fs.put_file(str(path), self.root.path("wandb", *parts))

    def close(self) -> None:
        """Close what is open as crashed: the next attempt logs it anew."""
        for run in self.runs.values():
            with suppress(Exception):
                run.finish(exit_code=1)
        self.runs.clear()
        if not self.root.is_local:
            shutil.rmtree(self.folder, ignore_errors=True)
            if os.environ.get("WANDB_DATA_DIR") == os.path.join(self.folder, "wandb"):
                del os.environ["WANDB_DATA_DIR"]


@contextmanager
def _without_weave() -> Iterator[None]:
    """W&B would tell whoever uses `openai` about another product, and trace its calls where that is imported."""
    name, said = "WANDB_DISABLE_WEAVE", os.environ.get("WANDB_DISABLE_WEAVE")
    os.environ[name] = said or "true"
    try:
        yield
    finally:
        if said is None:
            del os.environ[name]


def _scratch(root: Folder) -> str:
    """A folder on this machine for what W&B writes of a remote sweep: the same name everywhere, so that a copy can be put
    where its run looks for it, unless somebody else has a folder of that name here.
    """
    folder = os.path.join(tempfile.gettempdir(), f"rayclean-wandb-{fingerprint(root.url())}")
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        if os.path.islink(folder) or os.stat(folder).st_uid != os.getuid():
            return tempfile.mkdtemp(prefix="rayclean-wandb-")
    return folder


def _settle(run: Path, seconds: float = 10.0) -> None:
    """Wait until W&B's process has written the end of a run: a moment after `finish` returns."""
    until, sizes = time.monotonic() + seconds, [-1]
    while sizes[-3:] != [sizes[-1]] * 3 and time.monotonic() < until:
        time.sleep(0.05)
        sizes.append(sum(path.stat().st_size for path in run.glob("*.wandb")))
