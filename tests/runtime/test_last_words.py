"""A command whose process is ended at once says so."""

import subprocess
import sys

import pytest

RUN = """
import os, signal
from rayclean.runtime.last_words import told_if_killed
with told_if_killed("Ray at head:6379"):
    {end}
"""


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_end_is_told(end: str) -> None:
    ended = subprocess.run([sys.executable, "-c", RUN.format(end=end)], capture_output=True, text=True)
    assert ended.returncode in (1, -9)
    assert "Ray at head:6379 is gone" in ended.stderr
    assert "the same command goes on" in ended.stderr


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(3)", "raise KeyboardInterrupt"])
def test_nothing_is_told_of_an_orderly_end(end: str) -> None:
    ended = subprocess.run([sys.executable, "-c", RUN.format(end=end)], capture_output=True, text=True)
    assert "is gone" not in ended.stderr
