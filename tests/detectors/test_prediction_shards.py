"""Shards of predictions whose examples have many units are read in blocks of rows."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rayclean.config import parse_config
from rayclean.detectors import prediction_shards
from rayclean.detectors.base import DetectorBatch
from rayclean.detectors.prediction_shards import PredictionShard
from rayclean.errors import DataError
from rayclean.verbs import detect
from tests.tasks import test_multi_label as sets
from tests.tasks import test_tagging as tags

DETECTORS = ["posterior", "confident_learning", "self_confidence", "normalized_margin"]
PROBABILITIES = {sets: 3 * 6, tags: 2 * 6}
"""Of all units of an example."""


@pytest.mark.parametrize("form", [sets, tags])
def test_blocks_give_what_the_whole_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any) -> None:
    read, found = PredictionShard.read, {}
    sizes: list[int] = []

    def watched(self: PredictionShard, features: bool = False, groups: bool = False) -> DetectorBatch:
        batch = read(self, features, groups)
        sizes.append(batch.probabilities.size)
        return batch

    monkeypatch.setattr(PredictionShard, "read", watched)
    for rows in (1, 7, 1000):
        sizes.clear()
        monkeypatch.setattr(prediction_shards, "MOST_PROBABILITIES", rows * PROBABILITIES[form] + 5)
        run, config = form.make(tmp_path / str(rows), 30, shards=2, **({"clean": 9} if form is tags else {}))
        values = config.model_dump(mode="json")
        values["detect"]["detectors"] = DETECTORS
        metrics = sets.do(parse_config(values), run, detect, "detect")
        tables = [run.read_table("detect", "findings", shard) for shard in run.shards("detect", "findings")]
        found[rows] = metrics, pa.concat_tables(tables)
        assert max(sizes) == min(rows, 15 if form is sets else 20) * PROBABILITIES[form]
    for rows in (1, 7):
        assert found[rows][0] == found[1000][0]
        assert found[rows][1].equals(found[1000][1])


def test_an_example_that_comes_twice_is_seen_across_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_shards, "MOST_PROBABILITIES", 1)
    run, config = sets.make(tmp_path, 4, shards=1)
    for verb, part in (("load", "examples"), ("predict", "predictions")):
        table = run.read_table(verb, part, "part-00000.parquet")
        run.write_table(pa.concat_tables([table, table.slice(0, 1)]), verb, part, "part-00000.parquet")
    with pytest.raises(DataError, match="occurs 2 times"):
        sets.do(config, run, detect, "detect")
