"""Logging to Weights & Biases: one group per sweep, one run per trial, also after interruptions.

A run's id is a hash of the sweep's folder and the trial's name, so all attempts have the same id. Offline,
W&B makes a folder per `init`; the folder of an unfinished attempt is removed before the trial is logged
again, and `logged.json` in the trial's folder marks a complete run. A finished trial without it is logged
from its files when the sweep is resumed.

W&B writes offline runs only to a disk, so a sweep on an object store is logged online or not at all.

wandb reads the key from WANDB_API_KEY; this module never handles it. `auto` gives WANDB_MODE precedence over
the key: nothing is sent if it is `offline` or `disabled`.
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
"""File that marks a trial whose W&B run is complete."""
ONLINE = ("online", "run", "shared")
"""Values of WANDB_MODE with which W&B sends data; with any other value it sends nothing."""


class Tracker:
    """One W&B run per trial, all in this process. A failing run only causes a warning, and its trial is
    logged when the sweep is resumed.

    Args:
        tracking: mode, project, tables.
        sweep: name of the group of the runs.
        root: folder of the sweep, in which W&B makes its folder `wandb/`; if it is remote, W&B uses a
            temporary one.

    Raises:
        ConfigError: offline runs are configured, but the folder is not on a disk.
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
        """The id of a trial's W&B run."""
        return fingerprint(self.root.url(), work.name)

    def start(self, work: Work) -> None:
        """Open the run of a trial, unless it is complete or open: a second attempt after the loss of a worker
        logs the same steps. Offline runs of earlier attempts are removed.
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
                # An uncommitted step is written with the next one, or at the end over the result's summary.
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
        """Close open runs as crashed, so that the next attempt logs them again."""
        for run in self.runs.values():
            with suppress(Exception):
                run.finish(exit_code=1)
        self.runs.clear()
        self.closing.close()

    @contextmanager
    def _guarded(self, work: Work) -> Iterator[None]:
        """Abandon a failing run with a warning; without `logged.json` it is logged again by the next attempt."""
        name = work.name
        try:
            yield
        except Exception as error:
            text = "W&B: %s is not logged (%s); the next attempt at the sweep will try again"
            logger.warning(text, name, error)
            with suppress(Exception):
                self.runs.pop(name).finish(exit_code=1)

    def _offline(self, work: Work) -> list[Path]:
        """W&B's folders of a trial's run, one per attempt."""
        return sorted(Path(self.folder, "wandb").glob(f"offline-run-*-{self.id_of(work)}"))


def _mode(asked: str, root: Folder) -> str:
    """The mode `online`, `offline` or `off` (nothing is logged). `auto` becomes that of WANDB_MODE if set,
    else `online` with a key and `offline` without.
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
    """Wait until W&B's process has written the end of a run, shortly after `finish` returns."""
    until, sizes = time.monotonic() + seconds, [-1]
    while sizes[-3:] != [sizes[-1]] * 3 and time.monotonic() < until:
        time.sleep(0.05)
        sizes.append(sum(path.stat().st_size for path in run.glob("*.wandb")))
