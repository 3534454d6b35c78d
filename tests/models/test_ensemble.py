"""Networks that predict together: the mean of their logits, in one folder that every reader of networks reads."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rayclean.models.ensemble import Ensemble
from rayclean.models.inference import infer
from rayclean.models.loading import build_encoder, describe_encoder, load_encoder
from tests.models.test_encoders import KINDS, TEXTS, plugin, run


def ensemble(kind: str, tiny_bert: str, count: int = 2) -> Ensemble:
    encoder = plugin(kind, tiny_bert)
    return Ensemble.of([build_encoder(encoder, 3, seed=n).eval() for n in range(count)], encoder.name).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_its_logits_are_the_mean_and_name_the_class_of_the_sum(kind: str, tiny_bert: str) -> None:
    both = ensemble(kind, tiny_bert)
    each = [run(member, TEXTS)[1] for member in both.members]
    features, logits = run(both, TEXTS)
    torch.testing.assert_close(logits, (each[0] + each[1]) / 2)
    assert logits.argmax(1).tolist() == (each[0] + each[1]).argmax(1).tolist()
    assert not torch.equal(each[0], each[1])
    assert features.shape == (len(TEXTS), both.feature_dim)
    torch.testing.assert_close(both.logits(features), logits)
    assert both.frozen == both.members[0].frozen


def test_a_frozen_body_is_read_once_and_both_heads_use_its_features(tiny_bert: str) -> None:
    both = ensemble("frozen", tiny_bert)
    (features, _), (alone, _) = run(both, TEXTS), run(both.members[1], TEXTS)
    torch.testing.assert_close(features, alone)
    trained = ensemble("bag_of_words", tiny_bert)
    assert trained.feature_dim == 2 * trained.members[0].feature_dim


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_ensemble_comes_back_also_elsewhere(kind: str, tiny_bert: str, tmp_path: Path) -> None:
    both = ensemble(kind, tiny_bert, count=3)
    both.save(tmp_path / "model", ["a", "b", "c"], body=True)
    described = describe_encoder(str(tmp_path / "model"))
    assert (described["labels"], described["num_classes"]) == (["a", "b", "c"], 3)
    assert described["options"]["max_length"] == 32
    shutil.move(tmp_path / "model", tmp_path / "moved")
    again = load_encoder(str(tmp_path / "moved"))
    assert not again.training
    torch.testing.assert_close(run(again, TEXTS), run(both, TEXTS))
    files = {path.name for path in (tmp_path / "moved").rglob("*") if path.is_file()}
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in files)
    if kind == "frozen":  # its tokenizer is the one that was given away with it
        assert str(tmp_path / "moved") in again.config.member.options["model"]


@pytest.mark.parametrize("kind", ["trained", "bilstm"])
def test_inference_over_many_texts(kind: str, tiny_bert: str) -> None:
    both = ensemble(kind, tiny_bert)
    found = infer([both], both.tokenizer(both.config), TEXTS, precision="float32", tokens_per_batch=40)
    features, logits = run(both, TEXTS)
    np.testing.assert_allclose(found.logits, logits, atol=1e-5)
    np.testing.assert_allclose(found.features, features, atol=1e-5)
