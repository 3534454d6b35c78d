"""Inference on the actor pool: layout changes nothing, unlabelled examples, networks that diverged."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from rayclean.config import Plugin, PredictConfig
from rayclean.errors import ArtifactError, RaycleanError
from rayclean.folder import Folder
from rayclean.models.loading import build_encoder
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.runtime.predict import InferencePlan, ShardRunner, predict_shards
from rayclean.schema import EXAMPLES, Label, LabelSet, matrix
from rayclean.tasks import TASKS
from rayclean.training.fold_table import write_folds
from tests.toy import SHARED
from tests.training import label_forms

BAG = Plugin(name="bag_of_words", buckets=500)
CONFIG = PredictConfig(precision="float32")
TASK = TASKS.build(
    Plugin(name="classification"), LabelSet(Label(n, name, name) for n, name in enumerate("abc"))
)


def examples(folder: Path, edges: list[int], order: np.ndarray) -> Folder:
    """40 examples in this order, cut at these edges; every fourth has no label."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(SHARED, rng.integers(1, 20))) for _ in range(40)]
    labels = [None if row % 4 == 0 else row % 3 for row in range(40)]
    for number, rows in enumerate(np.split(order, edges)):
        columns = {
            "example_id": rows * 1000 + 7,
            "text": [texts[row] for row in rows],
            "given_label": pa.array([labels[row] for row in rows], pa.int32()),
            "split": ["train"] * len(rows),
        }
        Folder(str(folder)).write_table(pa.table(columns, schema=EXAMPLES), f"part-{number:05d}.parquet")
    return Folder(str(folder))


def networks(folder: Path, count: int) -> list[str]:
    for seed in range(count):
        build_encoder(BAG, 3, seed=seed).save(folder / str(seed))
    return [str(folder / str(seed)) for seed in range(count)]


def folds_of(source: Folder, folder: Path, count: int) -> Folder:
    """The folds of all examples of a source, written to a folder."""
    out = Folder(str(folder))
    write_folds(source, out, map, seed=1, count=count)
    return out


def read(folder: Folder, column: str) -> dict[int, np.ndarray]:
    tables = [folder.read_table(shard) for shard in folder.shards()]
    return {
        int(i): row
        for t in tables
        for i, row in zip(t["example_id"].to_pylist(), matrix(t[column]), strict=True)
    }


TOKENIZE = """
import os, sys
from rayclean.runtime.predict import InferencePlan, ShardRunner
from tokenizers import Tokenizer, models, pre_tokenizers
runner = ShardRunner(InferencePlan("nowhere", None, None), 3, sys.argv[1] == "gpu")
tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
before = len(os.listdir("/proc/self/task"))
tokenizer.encode_batch_fast(["a b c"] * 1000)
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.parametrize(("device", "threads"), [("gpu", 3), ("cpu", 0)])
def test_tokenizers_use_the_cores_of_an_actor_beside_a_gpu(device: str, threads: int) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "RAYON_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", TOKENIZE, device], capture_output=True, text=True, check=True,
        env={**environment, "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert int(done.stdout) == threads


def test_threads_of_an_actor_write_what_one_does(tmp_path: Path) -> None:
    """Beside a GPU several threads call a runner, of which one at a time runs its networks."""
    source = examples(tmp_path / "examples", [10, 11, 30], np.arange(40))
    folders = networks(tmp_path, 1)
    found = []
    for workers in (1, 3):
        output, features = (
            Folder(str(tmp_path / f"{name}-{workers}")) for name in ("predictions", "features")
        )
        plan = InferencePlan(
            source.url(), features.url(), output.url(), tuple(folders), task=TASK, precision="float32"
        )
        runner = ShardRunner(plan)
        with ThreadPoolExecutor(workers) as pool:
            assert sum(done["rows"] for done in pool.map(runner, source.shards())) == 40
        found.append([output.read_table(shard) for shard in output.shards()])
    assert found[0] == found[1]


def test_an_actor_works_on_several_items_at_once(ray_embedded: None) -> None:
    from rayclean.runtime.ray_data import map_actors

    class Meeting:
        def __init__(self) -> None:
            self.barrier = threading.Barrier(2)

        def __call__(self, item: int) -> int:
            self.barrier.wait(60)
            return item

    assert sorted(map_actors(Meeting, range(4), actors=1, calls=2)) == [0, 1, 2, 3]


def test_layout_order_and_engines_change_nothing(tmp_path: Path, on_ray: Engines) -> None:
    """Two actors of Ray, and this process."""
    found = []
    for engines, edges, order, actors in (
        (on_ray, [10, 11, 30], np.arange(40), 2),
        (IN_PROCESS, [], np.random.default_rng(3).permutation(40), 1),
    ):
        where = tmp_path / str(actors)
        source = examples(where / "examples", edges, order)
        output, features = Folder(str(where / "predictions")), Folder(str(where / "features"))
        config = CONFIG.model_copy(update={"actors": actors, "tokens_per_batch": 50 * actors})
        folds = folds_of(source, where / "folds", 3)
        figures = predict_shards(
            engines, source, output, networks(where, 3), TASK, folds=folds, config=config, features=features
        )
        assert figures["rows"] == 40
        assert figures["labelled"] == 30
        assert figures["resumed"] == 0
        expected = [folds.read_table(shard)["fold"] for shard in source.shards()]
        assert [output.read_table(shard)["fold"] for shard in source.shards()] == expected
        assert {fold for shard in expected for fold in shard.to_pylist()} == {0, 1, 2}
        found.append((read(output, "probabilities"), read(features, "features")))
    again = predict_shards(
        IN_PROCESS, source, output, networks(where, 3), TASK, folds=folds, config=config, features=features
    )
    assert again == {**figures, "resumed": 40}
    for one, other in zip(*found, strict=True):
        assert set(one) == set(other)
        assert len(one) == 40
        for key in one:
            np.testing.assert_allclose(one[key], other[key], atol=1e-6)


def test_tags_on_any_engine(tmp_path: Path, on_ray: Engines) -> None:
    """Every word of every text has its own row, whichever process it was predicted in."""
    source = Folder(label_forms.write(tmp_path / "examples", "tagging", 40, longest=20))
    task = TASKS.build(Plugin(name="tagging"), TASK.labels)
    folders = [str(tmp_path / str(seed)) for seed in range(2)]
    for seed, folder in enumerate(folders):
        build_encoder(label_forms.LSTM, task.outputs, seed, per_token=True).save(Path(folder))
    found, folds = [], folds_of(source, tmp_path / "folds", 2)
    for engines, actors in ((on_ray, 2), (IN_PROCESS, 1)):
        output = Folder(str(tmp_path / f"predictions-{actors}"))
        config = CONFIG.model_copy(update={"actors": actors, "tokens_per_batch": 50 * actors})
        figures = predict_shards(engines, source, output, folders, task, folds=folds, config=config)
        assert figures["rows"] == 40
        assert figures["cut"] > 3
        found.append([row for shard in output.shards() for row in output.read_table(shard).to_pylist()])
    words = [row for shard in source.shards() for row in source.read_table(shard).to_pylist()]
    assert {row["fold"] for row in found[0]} == {0, 1}
    for text, one, other in zip(words, *found, strict=True):
        assert len(one["probabilities"]) == len(text["tokens"])
        assert one["example_id"] == other["example_id"] == text["example_id"]
        np.testing.assert_allclose(one["probabilities"], other["probabilities"], atol=1e-6)


def test_features_of_an_untrained_network_depend_on_the_seed(tmp_path: Path) -> None:
    source = examples(tmp_path / "examples", [], np.arange(40))
    found = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        output = Folder(str(tmp_path / name))
        plan = InferencePlan(source.url(), output.url(), None, encoder=BAG, seed=seed)
        ShardRunner(plan)("part-00000.parquet")
        found[name] = read(output, "features")[7]
    assert np.array_equal(found["a"], found["b"])
    assert not np.allclose(found["a"], found["c"])


def test_features_are_computed_once_for_the_same_ids_and_texts(tmp_path: Path) -> None:
    """Whatever the labels; another encoder, other texts or another order of the rows find nothing."""
    kept = tmp_path / "kept"

    def embed(source: Folder, name: str, where: str = "one") -> tuple[int, Folder]:
        output = Folder(str(tmp_path / name))
        plan = InferencePlan(source.url(), output.url(), None, encoder=BAG, kept=str(kept / where))
        return ShardRunner(plan)("part-00000.parquet")["resumed"], output

    source = examples(tmp_path / "examples", [], np.arange(40))
    fresh, first = embed(source, "first")
    table = source.read_table("part-00000.parquet")
    relabelled = table.set_column(2, "given_label", pa.array([0] * 40, pa.int32()))
    source.write_table(relabelled, "part-00000.parquet")
    found, second = embed(source, "second")
    assert (fresh, found) == (0, 40)
    assert first.read_table("part-00000.parquet").equals(second.read_table("part-00000.parquet"))
    assert embed(source, "third", "of another encoder")[0] == 0
    source.write_table(relabelled.slice(1), "part-00000.parquet")
    assert embed(source, "fourth")[0] == 0
    other = [*table["text"].to_pylist()[:-1], "another text"]
    source.write_table(relabelled.set_column(1, "text", pa.array(other)), "part-00000.parquet")
    assert embed(source, "fifth")[0] == 0
    # What is kept is not written again in place: a folder that is made anew leaves it as it is.
    first.write_table(relabelled, "part-00000.parquet")
    assert "features" in second.read_table("part-00000.parquet").column_names


def test_a_diverged_network_is_an_error_that_names_the_example(tmp_path: Path) -> None:
    source = examples(tmp_path / "examples", [], np.arange(40))
    network = build_encoder(BAG, 3)
    with torch.no_grad():
        network.head.weight.fill_(float("nan"))
    network.save(tmp_path / "network")
    runner = ShardRunner(
        InferencePlan(source.url(), None, str(tmp_path / "out"), (str(tmp_path / "network"),), task=TASK)
    )
    with pytest.raises(RaycleanError, match=r"40 of 40 examples.*first example_id 7"):
        runner("part-00000.parquet")
    assert Folder(str(tmp_path / "out")).shards() == []


def test_a_shard_of_other_examples_is_made_again(tmp_path: Path) -> None:
    source = examples(tmp_path / "examples", [], np.arange(40))
    plan = InferencePlan(source.url(), None, str(tmp_path / "out"), tuple(networks(tmp_path, 1)), task=TASK)
    assert ShardRunner(plan)("part-00000.parquet")["resumed"] == 0
    assert ShardRunner(plan)("part-00000.parquet")["resumed"] == 40
    examples(tmp_path / "examples", [], np.arange(40)[::-1])
    assert ShardRunner(plan)("part-00000.parquet")["resumed"] == 0


def test_folds_of_other_examples_are_refused(tmp_path: Path) -> None:
    """Networks would predict what they were trained on."""
    source = examples(tmp_path / "examples", [], np.arange(40))
    folds = folds_of(source, tmp_path / "folds", 2)
    models, out = tuple(networks(tmp_path, 2)), str(tmp_path / "out")
    plan = InferencePlan(source.url(), None, out, models, folds.url(), task=TASK)
    assert ShardRunner(plan)("part-00000.parquet")["rows"] == 40
    examples(tmp_path / "examples", [], np.arange(40)[::-1])
    with pytest.raises(
        ArtifactError, match=r"holds other examples than part-00000.*rayclean predict CONFIG --again"
    ):
        ShardRunner(plan)("part-00000.parquet")
