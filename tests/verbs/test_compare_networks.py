"""When the network of `train` may stand for the one on cleaned labels."""

import json
from pathlib import Path
from typing import Any

import pytest

from rayclean.config import parse_config
from rayclean.run import Run
from rayclean.verbs.compare_networks import _chose_as_by_given

LINES = [
    {"epoch": 1, "dev_accuracy": 0.5, "dev_loss": 1.0, "dev_accuracy_final": 0.9, "dev_loss_final": 0.1},
    {"epoch": 2, "dev_accuracy": 0.7, "dev_loss": 0.5, "dev_accuracy_final": 0.8, "dev_loss_final": 0.1},
    {
        "epoch": 3,
        "dev_accuracy": 0.7,
        "dev_loss": float("nan"),
        "dev_accuracy_final": 0.8,
        "dev_loss_final": 0.1,
    },
    {"epoch": 4, "dev_accuracy": 0.7, "dev_loss": 0.5, "dev_accuracy_final": 0.8, "dev_loss_final": 0.1},
]


@pytest.mark.parametrize(
    ("metrics", "train", "same"),
    [
        ({"dev_labels": "settled", "best_epoch": 1}, {}, False),
        ({"dev_labels": "settled", "best_epoch": 2}, {}, True),
        (
            {"dev_labels": "final", "best_epoch": 4},
            {},
            False,
        ),  # a tie: the given labels choose the earlier one
        ({"dev_labels": "settled", "best_epoch": 2}, {"patience": 2}, False),  # might have ended elsewhere
        ({"dev_labels": "given", "best_epoch": 1}, {"patience": 2}, True),
    ],
)
def test_only_if_given_dev_labels_choose_the_same_epoch(
    tmp_path: Path, metrics: dict[str, Any], train: dict[str, Any], same: bool
) -> None:
    run = Run(str(tmp_path))
    out = run.begin("train", "print")
    out.write_text("".join(json.dumps(line) + "\n" for line in LINES), "metrics.jsonl")
    run.commit("train", "print", out, 0.0, metrics)
    config = parse_config({"dataset": {"path": "unused"}, "train": train})
    assert _chose_as_by_given(config, run) is same
