"""A plugin of pytest (`-p tests.durations`) that writes how long a run and its tests took.

`make test-durations` runs the default suite with it. A test's seconds are those of its set-up, call and tear-down;
what several tests share is set up by the first of them. Figures of a parallel run are those of a busy machine.
"""

import json
import time
from collections import defaultdict
from typing import Any

import pytest

from benchmarks import common

FILE = common.RESULTS / "test_durations.json"
SLOWEST = 50
"""How many tests are listed one by one; all files are."""


class Durations:
    """Sums the seconds that every test reports and writes them at the end of the session."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.begun = time.monotonic()
        self.seconds: dict[str, dict[str, float]] = defaultdict(dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test is over."""
        name = report.nodeid.rpartition("@")[0] or report.nodeid  # without the group of pytest-xdist
        self.seconds[name][report.when or "call"] = report.duration

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the file."""
        FILE.write_text(json.dumps(self.result(exitstatus), indent=1) + "\n")

    def result(self, exitstatus: int) -> dict[str, Any]:
        """What the file holds."""
        machine = common.machine()
        files: dict[str, float] = defaultdict(float)
        for name, phases in self.seconds.items():
            files[name.partition("::")[0]] += sum(phases.values())
        slowest = sorted(self.seconds.items(), key=lambda entry: -sum(entry[1].values()))[:SLOWEST]
        return {
            "total_seconds": round(time.monotonic() - self.begun, 1),
            "tests": len(self.seconds),
            "exit_status": int(exitstatus),
            "workers": self.workers,
            "cores": machine["cores"],
            "machine": machine,
            "commit": common.commit(),
            "seconds_by_file": {
                name: round(seconds, 1)
                for name, seconds in sorted(files.items(), key=lambda entry: -entry[1])
            },
            "slowest": [
                {"test": name, **{phase: round(seconds, 1) for phase, seconds in phases.items()}}
                for name, phases in slowest
            ],
        }


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin in the process that collects the reports of all workers."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Durations(getattr(config.option, "numprocesses", None) or 1))
