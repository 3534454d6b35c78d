"""Weights & Biases: one group per sweep, one run per trial, whatever was killed in between.

A run's id is a hash of the sweep's folder and the trial's name, so it is the same in every attempt, and another one in
another sweep. Offline, where W&B keeps a folder per `init`, what an
unfinished attempt left is removed before the trial is logged again, and `logged.json` in the trial's folder says that its
run is whole. A finished trial without it (killed between the two) is logged from its own files when the sweep goes on.
The key is read by wandb from WANDB_API_KEY, and never passes through here.
"""

import importlib.util
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from rayclean.artifacts import Folder, fingerprint
from rayclean.sweeps.plan import Work
from rayclean.sweeps.spec import Tracking
from rayclean.sweeps.trial import EPOCHS, RESULT, changes

logger = logging.getLogger(__name__)

LOGGED = "logged.json"
KEPT = ("config.json", RESULT, EPOCHS)
"""Files of a trial that go to W&B as its artifact."""


def open_tracker(tracking: Tracking, sweep: str, root: str) -> "Tracker":
    """The tracker that the configuration asks for; a silent one where W&B is off or not installed.

    Args:
        tracking: of the sweep.
        sweep: its name.
        root: its folder; a remote one keeps W&B's own files in `./wandb`.
    """
    mode = tracking.wandb
    if mode == "off" or (mode == "auto" and importlib.util.find_spec("wandb") is None):
        return Tracker()
    if mode == "auto":
        mode = "online" if os.environ.get("WANDB_API_KEY") else "offline"
    return WandbTracker(tracking, sweep, Folder(root), mode)


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
    """One W&B run per trial, all in this process.

    Args:
        tracking: project, tables.
        sweep: group of the runs.
        root: folder of the sweep; W&B makes its own folder `wandb/` there, or here if that is remote.
        mode: `online` or `offline`.
    """

    def __init__(self, tracking: Tracking, sweep: str, root: Folder, mode: str):
        self.tracking, self.sweep, self.root, self.mode = tracking, sweep, root, mode
        self.folder = root.path() if root.is_local else "."
        self.runs: dict[str, Any] = {}
        # What an artifact holds waits here for `wandb sync`; W&B's own place would be the home directory.
        os.environ.setdefault("WANDB_DATA_DIR", os.path.abspath(os.path.join(self.folder, "wandb")))

    def id_of(self, work: Work) -> str:
        """Of a trial's run on W&B."""
        return fingerprint(self.root.url(), work.trial.name)

    def start(self, work: Work) -> None:
        """Open the run of a trial, unless it is whole; what an earlier attempt left of it offline goes."""
        import wandb

        name = work.trial.name
        if name in self.runs:  # its worker was lost: the lines of the second attempt have the same steps
            return
        if work.run(self.root.url()).exists(LOGGED):  # Optuna drew the point again
            return
        if self.mode == "offline":
            for left in Path(self.folder, "wandb").glob(f"offline-run-*-{self.id_of(work)}"):
                shutil.rmtree(left)
        try:
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
                    silent=True, console="off", disable_git=True, x_disable_stats=True, x_disable_meta=True
                ),
            )
        except Exception as error:  # a tracker that fails must not cost a sweep
            logger.warning(
                "W&B: %s is not logged (%s); it will be tried again when the sweep goes on", name, error
            )

    def line(self, work: Work, record: dict[str, Any]) -> None:
        """Log the numbers of an epoch under its step."""
        run = self.runs.get(work.trial.name)
        if run is not None:
            numbers = {key: value for key, value in record.items() if isinstance(value, int | float)}
            # A step that is not committed is written with the next one, or at the end over the result's summary.
            run.log(numbers, step=int(record["epoch"]), commit=True)

    def end(self, work: Work, result: dict[str, Any]) -> None:
        """Log the result and close the run; only then is it whole."""
        run = self.runs.pop(work.trial.name, None)
        if run is None:
            return
        own = work.run(self.root.url())
        run.summary.update({**result["figures"], "stopped": result["stopped"]})
        if self.tracking.changes and not result["stopped"]:
            import wandb

            rows = changes(own, self.tracking.changes)
            columns: list[str | int] = list(rows[0]) if rows else ["example_id"]
            run.log({"changes": wandb.Table(columns=columns, data=[list(row.values()) for row in rows])})
        self._keep(run, own)
        run.finish(exit_code=0)
        own.write_json({"run": self.id_of(work), "mode": self.mode}, LOGGED)

    def replay(self, work: Work, result: dict[str, Any], records: list[dict[str, Any]]) -> None:
        """From `epochs.jsonl` and `result.json`."""
        if work.run(self.root.url()).exists(LOGGED):
            return
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

    def close(self) -> None:
        """Close what is open as crashed: the next attempt logs it anew."""
        for run in self.runs.values():
            run.finish(exit_code=1)
        self.runs.clear()
