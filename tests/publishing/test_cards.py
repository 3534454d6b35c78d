"""Cards say what was measured, and of what was not that it was not."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard

from rayclean.evaluation.formatting import format_percent
from rayclean.publishing.cards import dataset_card, model_card
from rayclean.run import Run


@pytest.fixture
def run(published_run: Run, tmp_path: Path) -> Run:
    """A copy to change."""
    return Run(str(shutil.copytree(published_run.root, tmp_path / "tickets")))


def test_a_model_card_has_the_figures_of_the_run(run: Run) -> None:
    text = model_card(run, "me/tickets")
    card, metrics = ModelCard(text), run.read_json("evaluate", "metrics.json")
    header = card.data.to_dict()
    assert header["library_name"] == "transformers"
    result = header["model-index"][0]["results"][0]["metrics"][0]
    assert result["value"] == pytest.approx(metrics["accuracy"]["trained"], abs=1e-4)
    for figure in (
        metrics["noise"]["given"],
        metrics["noise"]["final"],
        metrics["harm"],
        metrics["accuracy"]["trained"],
    ):
        assert format_percent(figure) in text
    low, high = metrics["intervals"]["noise.given"]
    assert f"95 %: {format_percent(low)} to {format_percent(high)}" in text
    for name in ("garden", "kitchen", "harbour"):
        assert f"`{name}`" in text
    for sentence in ("`cross_entropy`", "Not certified", "Not audited", "tiny-bert"):
        assert sentence in text
    noise = run.read_json("load", "truth", "noise.json")
    assert f"{format_percent(noise['realised_rate'])} of the given labels were made wrong on purpose" in text
    assert run.manifest("train").rayclean in text  # type: ignore[union-attr]


def test_what_was_not_measured_is_not_stated(run: Run) -> None:
    shutil.rmtree(run.path("evaluate"))
    text = model_card(run, "me/tickets")
    assert "Nothing yet" in text
    assert "model-index" not in text
    assert "accuracy |" not in text
    data = dataset_card(run, "me/tickets", 128)
    assert "Nothing yet" in data
    assert DatasetCard(data).data.to_dict()["size_categories"] == ["n<1K"]


def test_labels_without_known_truth_have_no_noise_figure(run: Run) -> None:
    metrics = run.read_json("evaluate", "metrics.json")
    for name in ("given", "final"):
        metrics["noise"][name] = None
    for name in ("harm", "repaired"):
        metrics[name] = None
    run.write_json(metrics, "evaluate", "metrics.json")
    text = model_card(run, "me/tickets")
    assert "Wrong labels" not in text
    assert "Harm" not in text


def test_names_from_the_data_are_only_text(run: Run) -> None:
    labels = run.read_json("load", "labels.json")
    labels[0]["name"] = "a`|<script>\n# b"
    run.write_json(labels, "load", "labels.json")
    text = dataset_card(run, "me/tickets", 10)
    assert "`a' <script> # b`" in text
    assert "\n# b" not in text


def test_a_card_names_no_place_of_this_machine(run: Run, published_run: Run) -> None:
    place = str(Path(published_run.root).parents[1])
    assert place not in model_card(run, "me/tickets")
    assert place not in dataset_card(run, "me/tickets", 10)


def test_cards_of_taggers(run: Run) -> None:
    config = run.read_json("config.json")
    run.write_json(config | {"task": {"name": "tagging"}}, "config.json")
    described = run.read_json("train", "model", "rayclean.json")
    run.write_json(described | {"pipeline": "token-classification"}, "train", "model", "rayclean.json")
    text = model_card(run, "me/tickets")
    assert ModelCard(text).data.to_dict()["pipeline_tag"] == "token-classification"
    assert 'aggregation_strategy="first"' in text
    assert "tags are those of BIO" in text


def test_a_model_without_pipeline_says_why_and_how_to_run_it(run: Run) -> None:
    described = run.read_json("train", "model", "rayclean.json")
    del described["pipeline"]
    run.write_json(
        described | {"no_pipeline": "transformers has no BiLSTM"}, "train", "model", "rayclean.json"
    )
    text = model_card(run, "me/tickets")
    assert "transformers has no BiLSTM" in text
    assert "rayclean predict data.toml --model hf://me/tickets" in text
    assert ModelCard(text).data.to_dict()["library_name"] == "rayclean"
    assert "from transformers" not in text


@pytest.mark.parametrize(
    ("model", "revision", "base"),
    [
        ("minilm", None, "sentence-transformers/all-MiniLM-L6-v2"),
        ("some/encoder", "0" * 40, "some/encoder"),
        ("some/encoder", None, None),  # a folder that was there
        ("/models/encoder", None, None),
    ],
)
def test_a_base_model_is_named_where_it_is_known(
    model: str, revision: str | None, base: str | None, run: Run
) -> None:
    described = run.read_json("train", "model", "rayclean.json")
    described["options"] |= {"model": model, "revision": revision}
    run.write_json(described, "train", "model", "rayclean.json")
    text = model_card(run, "me/tickets")
    assert ModelCard(text).data.to_dict().get("base_model") == base
    assert "/models" not in text
