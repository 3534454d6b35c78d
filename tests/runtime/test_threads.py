"""Threads of a process, where others share the machine."""

import os

import pytest

from rayclean.runtime.threads import own_threads, physical_threads


def test_no_more_than_what_the_machine_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = os.sched_getaffinity(0)
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    assert 1 <= physical_threads() <= len(cores)  # a container's quota may leave fewer
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert physical_threads() == 1
    finally:
        os.sched_setaffinity(0, cores)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert physical_threads() == 1


def test_runs_and_processes_share_them_and_each_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayclean.runtime.threads.physical_threads", lambda: 12)
    assert [own_threads(), own_threads(3), own_threads(2, 3), own_threads(5, 5)] == [12, 4, 2, 1]
