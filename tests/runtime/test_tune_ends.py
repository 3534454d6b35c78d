"""How trials of Ray Tune end when their process is lost or the time is over."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from rayclean.runtime.engines import Workplace
from rayclean.runtime.trial_slots import TrialSlots
from rayclean.runtime.tune import run_trials


class Heard:
    """Events by the trial's name."""

    def __init__(self) -> None:
        self.starts: dict[str, int] = {}
        self.epochs: dict[str, list[int]] = {}
        self.results: dict[str, Any] = {}

    def started(self, trial: dict[str, Any]) -> None:
        self.starts[trial["name"]] = self.starts.get(trial["name"], 0) + 1

    def epoch_ended(self, trial: dict[str, Any], record: dict[str, Any]) -> None:
        self.epochs.setdefault(trial["name"], []).append(record["epoch"])

    def ended(self, trial: dict[str, Any], result: dict[str, Any] | None) -> None:
        assert trial["name"] not in self.results
        self.results[trial["name"]] = result


def three_epochs(trial: dict[str, Any], tell: Any, place: Workplace) -> dict[str, Any]:
    """In the second one a trial meets its bug, or its process exits, as often as `dies` says."""
    deaths = Path(trial["deaths"], trial["name"])
    deaths.mkdir(parents=True, exist_ok=True)
    for epoch in (1, 2, 3):
        tell({"epoch": epoch, "dev_accuracy": epoch / 4})
        if epoch == 2 and "bug" in trial:
            raise TypeError(trial["bug"])
        if epoch == 2 and len(list(deaths.glob("*"))) < trial["dies"]:
            (deaths / str(os.getpid())).touch()
            time.sleep(0.5)  # until the driver has heard of the epoch
            os._exit(1)
    return {"figures": {"dev_accuracy": 0.75}}


@pytest.mark.slow
def test_what_is_lost_begins_anew(ray_embedded: None, tmp_path: Path) -> None:
    """One death is within the retries, two are not."""
    common = {"deaths": str(tmp_path / "deaths"), "method": {"name": "lane"}, "seed": 7}
    once, twice = {**common, "name": "once", "dies": 1}, {**common, "name": "twice", "dies": 2}
    bug = {**common, "name": "bug", "bug": "no such field"}

    heard = Heard()
    run_trials(three_epochs, [once, twice, bug], TrialSlots(1, 0.1), heard, trains=False, retries=1)
    assert heard.starts == {"once": 2, "twice": 2, "bug": 2}
    assert heard.epochs["once"] == [1, 2, 1, 2, 3]
    assert heard.results["once"] == {"figures": {"dev_accuracy": 0.75}}
    assert "its worker process has died" in heard.results["twice"]["error"]
    assert heard.results["bug"]["error"].endswith("TypeError: no such field")


def test_time_ends_all_trials_and_none_has_a_result(ray_embedded: None) -> None:
    def slow(trial: dict[str, Any], tell: Any, place: Workplace) -> dict[str, Any]:
        tell({"epoch": 1, "dev_accuracy": 0.5})
        time.sleep(60)
        return {"figures": {"dev_accuracy": 0.5}}

    heard = Heard()
    run_trials(slow, [{"name": "a"}, {"name": "b"}], TrialSlots(1, 0.1), heard, trains=False, seconds=1)
    assert heard.results == {}
