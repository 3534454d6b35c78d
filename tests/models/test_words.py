"""Networks that answer for every word: which token stands for a word, what is cut, what comes of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rayclean.config import Plugin
from rayclean.errors import ConfigError
from rayclean.models.base import pad, pad_words
from rayclean.models.ensemble import Ensemble
from rayclean.models.inference import infer
from rayclean.models.loading import build_encoder, load_encoder
from rayclean.models.transformer import TransformerEncoder

KINDS = ["frozen", "trained", "normalised", "bilstm"]
TEXTS = [
    ["rose"],
    ["ship", "xyz", "anchor"],
    ["the", "oven"] * 20,  # 40 words, more than are read
    ["new", "", "soil"],
]


def plugin(kind: str, tiny_bert: str) -> Plugin:
    if kind == "bilstm":
        return Plugin(name="bilstm", max_length=16, buckets=500, embedding=8, hidden=8)
    options: dict[str, dict[str, Any]] = {"frozen": {"trainable": "head"}, "normalised": {"normalize": True}}
    return Plugin(name="transformer", model=tiny_bert, max_length=16, **options.get(kind, {}))


def built(kind: str, tiny_bert: str, outputs: int = 3, seed: int = 0) -> Any:
    return build_encoder(plugin(kind, tiny_bert), outputs, seed, per_token=True).eval()


def run(network: Any, texts: list[list[str]]) -> tuple[torch.Tensor, torch.Tensor]:
    tokenizer = network.tokenizer(network.config)
    tokens, first_tokens, _ = tokenizer.tokenize_words(texts)
    with torch.no_grad():
        return network(pad(tokens, tokenizer.pad_id) | pad_words(first_tokens))


def test_first_tokens_of_a_word_tokenizer(tiny_bert: str) -> None:
    tokenizer = built("bilstm", tiny_bert).tokenizer(
        plugin("bilstm", tiny_bert).model_copy(update={"buckets": 500, "max_length": 2})
    )
    tokens, first, cut = tokenizer.tokenize_words([["New", "York", "U.S."], [], ["york"]])
    assert [places.tolist() for places in first] == [[0, 1, -1], [], [0]]
    assert cut.tolist() == [True, False, False]
    assert [len(ids) for ids in tokens] == [2, 1, 1]
    assert tokens[0][1] == tokens[2][0]  # lower-cased, as texts are


def test_first_tokens_of_word_pieces(tiny_bert: str) -> None:
    """`xyz` is in no vocabulary: x ##y ##z. The first of them stands for it."""
    options = TransformerEncoder.Config(model=tiny_bert, max_length=8)
    tokenizer = TransformerEncoder.tokenizer(options)
    words = tokenizer.words()
    tokens, first, cut = tokenizer.tokenize_words(
        [["rose", "xyz", "ship"], ["xyz", "xyz", "xyz"], [], [" ", "rose"]]
    )
    assert [words[token] for token in tokens[0]] == ["[CLS]", "rose", "x", "##y", "##z", "ship", "[SEP]"]
    assert first[0].tolist() == [1, 2, 5]
    # Six tokens are read between [CLS] and [SEP].
    assert first[1].tolist() == [1, 4, -1]
    assert cut.tolist() == [False, True, False, False]
    assert first[2].tolist() == []
    assert first[3].tolist() == [-1, 1]
    whole, _ = tokenizer(["rose xyz ship"])
    assert whole[0].tolist() == tokens[0].tolist()


@pytest.mark.parametrize("trims", [True, False])
def test_first_tokens_of_byte_pairs(tmp_path: Path, tiny_bert: str, trims: bool) -> None:
    """A blank belongs to the token behind it, whether the offsets of that token say so or not."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import AutoModel, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<pad>", *alphabet, "\u0120a", "ab"]
    backend = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, [("\u0120", "a"), ("a", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=trims)
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", model_max_length=64).save_pretrained(
        tmp_path
    )
    AutoModel.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    tokenizer = TransformerEncoder.tokenizer(TransformerEncoder.Config(model=str(tmp_path), max_length=16))
    tokens, first, _ = tokenizer.tokenize_words([["ab", "ac", "\u00e9"]])
    # ab, G-a, c, G, and the two bytes of the accented letter
    assert [names[token] for token in tokens[0]][:3] == ["ab", "\u0120a", "c"]
    assert first[0].tolist() == [0, 1, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_has_the_states_of_its_first_token_in_any_batch(kind: str, tiny_bert: str) -> None:
    network = built(kind, tiny_bert)
    features, logits = run(network, TEXTS)
    assert features.shape == (4, 40, network.feature_dim)
    assert logits.shape == (4, 40, 3)
    for row, text in enumerate(TEXTS):
        alone, alone_logits = run(network, [text])
        torch.testing.assert_close(features[row, : len(text)], alone[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(logits[row, : len(text)], alone_logits[0], atol=1e-5, rtol=0)
    assert not features[2, 16:].any()  # not read
    assert features[2, :14].any(1).all()
    assert (features[1, 0] - features[1, 1]).abs().max() > 1e-3
    swapped, _ = run(network, [["xyz", "ship", "anchor"]])
    assert (swapped[0, 2] - features[1, 2]).abs().max() > 1e-6  # a word's neighbours matter


@pytest.mark.parametrize("kind", KINDS)
def test_saved_network_comes_back_and_so_does_an_ensemble(kind: str, tiny_bert: str, folder: Path) -> None:
    networks = [built(kind, tiny_bert, 5, seed) for seed in (1, 2)]
    both = Ensemble.of(networks, plugin(kind, tiny_bert).name).eval()
    networks[0].save(folder / "one")
    both.save(folder / "both")
    for saved, name in ((networks[0], "one"), (both, "both")):
        again = load_encoder(str(folder / name))
        assert again.per_token
        assert not again.reads_features
        torch.testing.assert_close(run(again, TEXTS), run(saved, TEXTS))
    each = [run(network, TEXTS)[1] for network in networks]
    torch.testing.assert_close(run(both, TEXTS)[1], (each[0] + each[1]) / 2)


def test_bag_of_words_has_no_words_to_answer_for() -> None:
    with pytest.raises(ConfigError, match=r"'bag_of_words' answers for whole texts.*bilstm, transformer"):
        build_encoder(Plugin(name="bag_of_words"), 3, per_token=True)


@pytest.mark.parametrize("tokens", [1, 60, 100_000])
@pytest.mark.parametrize("kind", ["bilstm", "trained"])
def test_inference_gives_the_words_of_all_texts_one_after_another(
    kind: str, tiny_bert: str, tokens: int
) -> None:
    networks = [built(kind, tiny_bert, 3, seed) for seed in range(2)]
    which = np.array([0, 1, 1, 0])
    tokenizer = networks[0].tokenizer(networks[0].config)
    found = infer(networks, tokenizer, TEXTS, which, precision="float32", tokens_per_batch=tokens)
    assert found.offsets is not None
    assert found.offsets.tolist() == [0, 1, 4, 44, 47]
    assert found.logits.shape == (47, 3)
    assert found.cut.tolist() == [False, False, True, False]
    for row, text in enumerate(TEXTS):
        own = found.logits[found.offsets[row] : found.offsets[row + 1]]
        (features, _), (_, logits) = run(networks[0], [text]), run(networks[which[row]], [text])
        read = features[0].any(1).numpy()
        np.testing.assert_allclose(own[read], logits[0][read], atol=1e-5)
        np.testing.assert_allclose(found.features[row], features[0][read].mean(0), atol=1e-5)
        assert (own[~read] == [0.0, -1000.0, -1000.0]).all()
        if row == 2:
            assert (~read).sum() == (24 if kind == "bilstm" else 26)  # 16 tokens; [CLS] and [SEP] are two
