"""Weights & Biases: one group per sweep, one run per trial, whatever was killed in between.

A run's id is a hash of the sweep's folder and the trial's name, so every attempt has the same id, and another
sweep has another one. Offline, where W&B keeps a folder per `init`, the folder of an unfinished attempt is
removed before the trial is logged again, and `logged.json` in the trial's folder says that its run is whole.
A finished trial without it (the sweep was killed between the two) is logged from its own files when the sweep
goes on.

W&B writes offline runs to a disk only: a sweep on an object store is logged online or not at all.

wandb reads the key from WANDB_API_KEY; it never passes through this module. `auto` asks WANDB_MODE before it
looks for the key: nothing is sent where that says `offline` or `disabled`.
"""

import importlib.util
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from rayclean.errors import ConfigError
from rayclean.evaluation.example_rows import changed_examples
from rayclean.fingerprints import fingerprint
from rayclean.folder import Folder
from rayclean.sweeps.plan import Work
from rayclean.sweeps.spec import Tracking
from rayclean.sweeps.trial_run import TrialRecord

logger = logging.getLogger(__name__)

LOGGED_FILE = "logged.json"
"""File of a trial whose W&B run is whole."""
ONLINE = ("online", "run", "shared")
"""Values of WANDB_MODE with which W&B sends what is logged; with any other one nothing leaves the machine."""


class Tracker:
    """One W&B run per trial, all in this process. A run that fails costs no trial and no sweep: there is a
    warning, and the trial is logged when the sweep goes on.

    Args:
        tracking: mode, project, tables.
        sweep: group of the runs.
        root: folder of the sweep; W&B makes its own folder `wandb/` there, or in a temporary one where it is
            remote.

    Raises:
        ConfigError: offline runs were asked for, and the folder is not on a disk.
    """

    def __init__(self, tracking: Tracking, sweep: str, root: Folder):
        self.tracking, self.sweep, self.root = tracking, sweep, root
        self.mode = mode = _mode(tracking.wandb, root)
        self.runs: dict[str, Any] = {}
        self.folder, self.closing = root.path(), ExitStack()
        if mode == "off":
            return
        if not root.is_local:
            self.folder = self.closing.enter_context(tempfile.TemporaryDirectory(prefix="rayclean-wandb-"))
        # Files of tables wait here for `wandb sync`; W&B's default would be the home directory. Weave would
        # advertise itself where `openai` is imported, and trace its calls.
        data = os.path.abspath(os.path.join(self.folder, "wandb"))
        for name, value in (("WANDB_DATA_DIR", data), ("WANDB_DISABLE_WEAVE", "true")):
            if name not in os.environ:
                os.environ[name] = value
                self.closing.callback(os.environ.pop, name, None)

    def id_of(self, work: Work) -> str:
        """The id of a trial's run on W&B."""
        return fingerprint(self.root.url(), work.name)

    def start(self, work: Work) -> None:
        """Open the run of a trial, unless it is whole or open: after its worker was lost, the epochs of the
        second attempt have the same steps. Offline runs of an earlier attempt are removed.
        """
        name = work.name
        if self.mode == "off" or name in self.runs:
            return
        with self._guarded(work):
            import wandb

            if work.run.exists(LOGGED_FILE):  # Optuna drew the point again
                return
            if self.mode == "offline":
                for left in self._offline(work):
                    shutil.rmtree(left)
            self.runs[name] = wandb.init(
                id=self.id_of(work),
                project=self.tracking.project,
                group=self.sweep,
                name=work.title[:128],
                dir=self.folder,
                mode=self.mode,  # type: ignore[arg-type]
                resume="allow" if self.mode == "online" else None,
                reinit="create_new",
                config={**work.overrides, "config": work.config.model_dump(mode="json")},
                settings=wandb.Settings(
                    silent=True, console="off", disable_git=True, x_disable_stats=True, x_disable_meta=True
                ),
            )

    def epoch(self, work: Work, record: TrialRecord) -> None:
        """Log the numbers of an epoch under its step."""
        if (run := self.runs.get(work.name)) is not None:
            numbers = {key: value for key, value in record.items() if isinstance(value, int | float)}
            with self._guarded(work):
                # A step that is not committed is written with the next one, or at the end over the result's
                # summary.
                run.log(numbers, step=int(record["epoch"]), commit=True)

    def end(self, work: Work, result: TrialRecord) -> None:
        """Write the figures and the table of changed labels, and finish the run."""
        if (run := self.runs.get(work.name)) is None:
            return
        with self._guarded(work):
            import wandb

            run.summary.update({**result["figures"], "stopped": result["stopped"]})
            if self.tracking.changes and not result["stopped"]:
                rows = changed_examples(work.run, self.tracking.changes)
                columns: list[str | int] = list(rows[0]) if rows else ["example_id"]
                run.log({"changes": wandb.Table(columns=columns, data=[list(row.values()) for row in rows])})
            run.finish(exit_code=0)
            del self.runs[work.name]
            if self.mode == "offline":
                (written,) = self._offline(work)
                _wait_until_written(written)
            work.run.write_json({"run": self.id_of(work), "mode": self.mode}, LOGGED_FILE)

    def replay(self, work: Work, result: TrialRecord, records: list[TrialRecord]) -> None:
        """Log a finished trial from `epochs.jsonl` and `result.json`."""
        self.start(work)
        for record in records:
            self.epoch(work, record)
        self.end(work, result)

    def close(self) -> None:
        """Close open runs as crashed: the next attempt logs them again."""
        for run in self.runs.values():
            with suppress(Exception):
                run.finish(exit_code=1)
        self.runs.clear()
        self.closing.close()

    @contextmanager
    def _guarded(self, work: Work) -> Iterator[None]:
        """A run that fails is abandoned, and without `logged.json` tried again: it must not cost a sweep."""
        name = work.name
        try:
            yield
        except Exception as error:
            text = "W&B: %s is not logged (%s); the next attempt at the sweep will try again"
            logger.warning(text, name, error)
            with suppress(Exception):
                self.runs.pop(name).finish(exit_code=1)

    def _offline(self, work: Work) -> list[Path]:
        """W&B's folders of a trial's run, one for each attempt."""
        return sorted(Path(self.folder, "wandb").glob(f"offline-run-*-{self.id_of(work)}"))


def _mode(asked: str, root: Folder) -> str:
    """`online`, `offline`, or `off`: nothing is logged. Of `auto` the mode that WANDB_MODE names; without it
    `online` where there is a key, else `offline`.
    """
    named, mode = os.environ.get("WANDB_MODE"), asked
    if asked == "auto":
        mode = "online" if named in ONLINE or (not named and os.environ.get("WANDB_API_KEY")) else "offline"
        if named == "disabled" or importlib.util.find_spec("wandb") is None:
            return "off"
    if mode == "offline" and not root.is_local:
        text = f"offline W&B needs a local folder, and this sweep's is {root.url()}"
        if asked == "offline":
            more = "set WANDB_API_KEY and tracking.wandb = 'online', or tracking.wandb = 'off'"
            raise ConfigError(f"{text}; {more}")
        logger.warning("W&B is off: there is no WANDB_API_KEY, and %s", text)
        return "off"
    return mode


def _wait_until_written(run: Path, seconds: float = 10.0) -> None:
    """Wait until W&B's process has written the end of a run, a moment after `finish` returns."""
    until, sizes = time.monotonic() + seconds, [-1]
    while sizes[-3:] != [sizes[-1]] * 3 and time.monotonic() < until:
        time.sleep(0.05)
        sizes.append(sum(path.stat().st_size for path in run.glob("*.wandb")))
