"""A signal while Ray starts, or while it ends: exit code, message, and nothing that outlives the command."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from rayclean.runtime.core_handlers import installed_flag

COMMAND = """
import os, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup, whose ignored SIGHUP would be inherited
from rayclean.cli import main as cli
from rayclean.config import ClusterConfig
from rayclean.interrupts import say_kept
from rayclean.runtime import cluster

import ray

def told(name, function):
    def call(*arguments, **named):
        print(f"{name} begins", flush=True)
        try:
            return function(*arguments, **named)
        finally:
            print(f"{name} ends", flush=True)
    return call

def command(**_):
    say_kept("runs/a: load done")
    ray.init, ray.shutdown = told("init", ray.init), told("shutdown", ray.shutdown)
    ray._raylet.CoreWorker = told("core", ray._raylet.CoreWorker)
    with cluster.connected(ClusterConfig(cpus=1)):
        pass
    print("work", flush=True)
    time.sleep(60)

cli.command_line = command
sys.argv = ["rayclean", "clean", "my.toml"]
cli.main()
"""
MOMENTS = [
    *[
        pytest.param(moment, seconds, number, marks=pytest.mark.slow)
        for moment, seconds, number in [
            ("core begins", 0.0, signal.SIGTERM),
            ("core ends", 0.0, signal.SIGTERM),
            ("work", 0.0, signal.SIGTERM),
            ("init begins", 0.0, signal.SIGINT),
            ("init begins", 0.02, signal.SIGTERM),
            ("init begins", 0.3, signal.SIGTERM),
            ("init begins", 1.0, signal.SIGINT),
            ("core begins", 0.01, signal.SIGINT),
            ("core begins", 0.05, signal.SIGTERM),
            ("core begins", 0.2, signal.SIGTERM),
            ("core ends", 0.0, signal.SIGHUP),
            ("init ends", 0.0, signal.SIGTERM),
            ("shutdown begins", 0.0, signal.SIGINT),
            ("shutdown begins", 0.2, signal.SIGTERM),
            ("shutdown ends", 0.0, signal.SIGTERM),
        ]
    ],
]


@pytest.mark.ray
@pytest.mark.parametrize(("moment", "seconds", "number"), MOMENTS)
def test_a_signal_at_any_moment_of_ray(moment: str, seconds: float, number: signal.Signals) -> None:
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"RAYCLEAN_TEST_MARK": mark},
    )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == moment:
                break
        time.sleep(seconds)
        process.send_signal(number)
        sent = time.monotonic()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert said.count("finished work is kept (runs/a: load done); go on with: rayclean clean my.toml") == 1, (
        said
    )
    assert "Traceback" not in said
    assert "ended at once" not in said
    while left := _marked(mark):
        assert time.monotonic() - sent < 20, left
        time.sleep(0.1)


def _marked(mark: str) -> list[str]:
    """The processes that the command has started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RAYCLEAN_TEST_MARK") == mark:
                found.append(f"{process.pid} {process.name()}")
        except psutil.Error:
            continue
    return found


def test_ray_has_the_flag_that_keeps_its_handlers_out() -> None:
    """Otherwise a signal while it starts would end a command without its exit code and its message."""
    flag = installed_flag()
    assert flag is not None
    assert flag.value in (True, False)
