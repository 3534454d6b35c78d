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
