"""The command `doctor`: its table, its data and its exit code; what it finds is tested in `tests/runtime/test_gpus.py`."""

import json
from collections.abc import Callable

import pytest

from rayclean.runtime import machine
from rayclean.runtime.machine import MachineFact
from tests.command import Ended, run_command

FINE = MachineFact("cores", "8 for this process")
TOLD = MachineFact("wandb", "not installed", "pip install 'rayclean[wandb]'")
MISSING = MachineFact("GPUs", "2, none of which [PyTorch] can use", "look at nvidia-smi", missing=True)


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """`rayclean doctor` on a machine of which these facts are known."""

    def run(facts: list[MachineFact], *arguments: str) -> Ended:
        monkeypatch.setattr(machine, "machine_facts", lambda: facts)
        return run_command("doctor", *arguments, capsys=capsys, monkeypatch=monkeypatch)

    return run


def test_a_missing_thing_is_marked_and_is_the_exit_code(doctor: Callable[..., Ended]) -> None:
    ended = doctor([FINE, TOLD, MISSING])
    assert ended.code == 1
    lines = [line.strip() for line in ended.stdout.splitlines() if line.strip()]
    marks = [line.split()[0] for line in lines if line[0] in "✓!✗"]
    assert marks == ["✓", "!", "✗"]
    assert "2, none of which [PyTorch] can use" in ended.stdout  # no markup
    assert [TOLD.advice, MISSING.advice] == [line for line in lines if line in (TOLD.advice, MISSING.advice)]
    assert doctor([FINE, TOLD]).code == 0  # advice alone is no fault


def test_the_same_as_data(doctor: Callable[..., Ended]) -> None:
    ended = doctor([FINE, MISSING], "--json")
    assert ended.code == 1
    assert json.loads(ended.stdout) == {
        "facts": [
            {"name": "cores", "value": "8 for this process", "advice": "", "missing": False},
            {"name": "GPUs", "value": MISSING.value, "advice": "look at nvidia-smi", "missing": True},
        ]
    }
    assert doctor([FINE], "--json").code == 0
