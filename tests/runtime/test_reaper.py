"""Nothing outlives its run: what a command has started ends with it, whoever is killed and in whatever order."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rayclean.runtime import reaper

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="processes are found in /proc"
)

OWNER = """
import os, subprocess, sys, time
from rayclean.runtime import reaper
from rayclean.runtime.last_words import told_if_killed

LEFT = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)"
mark = reaper.own_mark()
with told_if_killed("its own Ray", mark):
    with reaper.marking(mark):
        subprocess.run([sys.executable, "-c", LEFT])  # an orphan in a session of its own
    unmarked = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(mark, unmarked.pid, flush=True)
    {end}
"""


class Owner:
    """A process that has left an orphan behind, and started a process that is nobody's business."""

    def __init__(self, end: str):
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER.format(end=end)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.mark, unmarked = self.process.stdout.readline().split()
        self.unmarked = int(unmarked)

    def reapers(self) -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parts = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if self.mark.encode() in parts:
                found.append(int(folder.name))
        return found


def wait_until_gone(owner: Owner, seconds: float) -> None:
    until = time.monotonic() + seconds
    while reaper.marked(owner.mark) or owner.reapers():
        assert time.monotonic() < until, (reaper.marked(owner.mark), owner.reapers())
        time.sleep(0.05)


def end(owner: Owner) -> str:
    """Wait for the owner, and end what is not its reaper's to end."""
    os.kill(owner.unmarked, 0)  # it lives
    os.kill(owner.unmarked, signal.SIGKILL)
    return owner.process.communicate(timeout=30)[1]


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM to all"])
def test_what_a_killed_command_has_left_is_ended(how: str) -> None:
    owner = Owner("time.sleep(600)")
    assert len(reaper.marked(owner.mark)) == len(owner.reapers()) == 1
    if how == "SIGKILL":
        owner.process.kill()
    else:  # as a service manager does: the reaper gets it, too
        for pid in [*owner.reapers(), owner.process.pid]:
            os.kill(pid, signal.SIGTERM)
    owner.process.wait(timeout=30)
    wait_until_gone(owner, 3 * reaper.PATIENCE_SECONDS)
    assert "its own Ray is gone, or the process was killed" in end(owner)


def test_what_a_command_that_ended_in_order_has_left_is_ended_before_it_goes() -> None:
    owner = Owner("pass")
    assert owner.process.wait(timeout=30) == 0
    assert reaper.marked(owner.mark) == []
    assert end(owner) == ""


def test_the_next_command_makes_up_for_a_reaper_that_was_killed() -> None:
    owner, alive = Owner("time.sleep(600)"), Owner("time.sleep(600)")
    for pid in [*owner.reapers(), owner.process.pid]:
        os.kill(pid, signal.SIGKILL)
    owner.process.wait(timeout=30)
    left = reaper.marked(owner.mark)
    assert len(left) == 1
    assert set(left) <= set(reaper.kill_orphans())
    wait_until_gone(owner, 10)
    assert len(reaper.marked(alive.mark)) == 1, "another command's processes were killed"
    alive.process.kill()
    alive.process.wait(timeout=30)
    wait_until_gone(alive, 3 * reaper.PATIENCE_SECONDS)
    end(owner)
    end(alive)


def test_a_process_belongs_to_all_its_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(reaper.VARIABLE, "1-1-1")
    monkeypatch.delenv("SPT_NOENV", raising=False)
    with reaper.marking("2-2-2"):
        assert os.environ[reaper.VARIABLE] == "1-1-1;2-2-2"
    assert os.environ[reaper.VARIABLE] == "1-1-1"
    with reaper.marking(""):
        assert os.environ[reaper.VARIABLE] == "1-1-1"
