"""Copies do not weigh: a data set six times over has the predictions, the noise and the suspects of once."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayclean.config import parse_config
from rayclean.run import Run
from rayclean.verbs import detect, load, predict
from tests.toy import SHARED, TOPICS

ROWS, COPIES = 150, 6


def noisy_rows() -> list[tuple[str, str]]:
    """150 texts, a tenth with a wrong label."""
    rng = np.random.default_rng(5)
    names = list(TOPICS)[:2]
    rows = []
    for number in range(ROWS):
        topic = number % 2
        words = [*rng.choice(TOPICS[names[topic]], 3), *rng.choice(SHARED, 4), f"number{number}"]
        rows.append((" ".join(rng.permutation(words)), names[1 - topic if number % 10 == 0 else topic]))
    return rows


def in_other_letters(text: str, copy: int) -> str:
    return [text, text.upper(), text.replace(" ", "  "), text.title(), f" {text}", text][copy]


def cleaned(folder: Path, rows: list[tuple[str, str]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of the first three verbs; and by text, without case and blanks, its probabilities and whether it is doubted."""
    folder.mkdir()
    with (folder / "data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    config = parse_config({
        "name": "run", "output": str(folder), "encoder": {"name": "bag_of_words", "buckets": 2000}, "predict": {"folds": 2},
        "dataset": {"path": str(folder / "data.csv"), "rows_per_shard": 100},
    })  # fmt: skip
    run = Run(str(folder / "run"))
    figures: dict[str, Any] = {}
    for verb in (load, predict, detect):
        name = verb.__name__.rpartition(".")[2]
        out = run.begin(name, "test")
        metrics = verb.run(config, run, out)
        run.commit(name, "test", out, 0.0, metrics)
        figures |= metrics
    by_text: dict[str, Any] = {}
    for shard in run.sub("load").shards("examples"):
        texts = run.sub("load").read_table("examples", shard, columns=["example_id", "text"]).to_pylist()
        predicted = {
            row["example_id"]: row for row in run.sub("predict").read_table("predictions", shard).to_pylist()
        }
        found = {
            row["example_id"]: row for row in run.sub("detect").read_table("findings", shard).to_pylist()
        }
        for row in texts:
            key = " ".join(row["text"].lower().split())
            values = (predicted[row["example_id"]]["probabilities"], found[row["example_id"]]["suspect"])
            by_text.setdefault(key, []).append(values)
    return figures, by_text


def test_six_times_over_is_as_once(tmp_path: Path) -> None:
    once = noisy_rows()
    six_times = [(in_other_letters(text, copy), label) for copy in range(COPIES) for text, label in once]
    order = np.random.default_rng(1).permutation(len(six_times))
    first, of_once = cleaned(tmp_path / "once", once)
    second, of_six = cleaned(tmp_path / "six", [six_times[row] for row in order])
    assert (first["texts"]["repeated"], second["texts"]["repeated"]) == (0, ROWS)
    assert first["suspects"] == 15
    assert second["suspects"] == 15 * COPIES
    assert first["accuracy_given"] == pytest.approx(second["accuracy_given"])
    assert first["accuracy_given"] < 0.97  # wrong labels are not known by heart
    # counts of 150 and of 900 are rounded
    assert first["estimated_noise_rate"] == pytest.approx(second["estimated_noise_rate"], abs=1 / ROWS)
    assert first["estimated_noise_rate"] > 0.03
    assert of_once.keys() == of_six.keys()
    for text, ((probabilities, suspect),) in of_once.items():
        assert len(of_six[text]) == COPIES
        for each, doubted in of_six[text]:
            np.testing.assert_allclose(each, probabilities, atol=1e-4)
            assert doubted == suspect
