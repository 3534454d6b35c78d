"""Rates count neither resumed work nor the time before the first sign of work."""

import pytest

from rayclean import progress


def test_rate_and_eta(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, lines = [0.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress.console, "print", lambda text, **_: lines.append(text))
    task = progress.ProgressBar("relabel", 300, "queries", None)
    task.advance(100, resumed=True)
    clock[0] = 100.0  # a server started meanwhile
    task.advance(1)
    clock[0] = 150.0
    task.advance(100)  # 100 queries in 50 s: 2 per second, 99 are left
    assert lines[-1] == "relabel: 201/300 queries, 2.0/s, 50 s left"


def test_work_under_way_moves_the_bar_and_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, lines = [0.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress.console, "print", lambda text, **_: lines.append(text))
    task = progress.ProgressBar("embed", 300, "examples", None)
    task.tell(50)
    clock[0] = 50.0
    task.tell(50)  # within the first item
    assert lines[-1] == "embed: 100/300 examples, 1.0/s, 200 s left"
    clock[0] = 100.0
    task.advance(150)  # it ends, and 50 of its units were not told
    assert lines[-1] == "embed: 150/300 examples, 1.0/s, 150 s left"
    clock[0] = 200.0
    task.tell(400)  # an item that was begun anew tells too much
    assert lines[-1].startswith("embed: 300/300 examples")


def test_what_is_slow_is_told_in_seconds_per_item(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, lines = [0.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress.console, "print", lambda text, **_: lines.append(text))
    task = progress.ProgressBar("train", 10, "epochs", None)
    task.advance(1)
    clock[0] = 50.0
    task.advance(2)  # two epochs in 50 s; seven are left
    assert lines[-1] == "train: 3/10 epochs, 25 s each, 175 s left"
