import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from rayclean.config import Plugin
from rayclean.models import inference
from rayclean.models.base import pad
from rayclean.models.ensemble import Ensemble
from rayclean.models.inference import infer
from rayclean.models.loading import build_encoder
from rayclean.models.read_ahead import ahead
from rayclean.tasks.probabilities import prediction_table, softmax
from tests.models import tiny
from tests.toy import SHARED


def some_texts(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(SHARED, size=rng.integers(1, 40))) for _ in range(count)]


@pytest.mark.parametrize("window", [64, 1 << 17])
@pytest.mark.parametrize("tokens", [1, 100, 100_000])
def test_batches_change_nothing(
    tokens: int, window: int, tiny_bert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "WINDOW_TOKENS", window)
    plugin = Plugin(name="transformer", model=tiny_bert, max_length=32)
    networks = [build_encoder(plugin, 3, seed=seed).eval() for seed in range(3)]
    tokenizer = networks[0].tokenizer(networks[0].config)
    texts = some_texts(40)
    which = np.arange(40) % 3
    found = infer(networks, tokenizer, texts, which, precision="float32", tokens_per_batch=tokens)
    for row, text in enumerate(texts):
        batch = pad(tokenizer([text])[0], tokenizer.pad_id)
        with torch.no_grad():
            features, logits = networks[0].encode(batch), networks[which[row]](batch)[1]
        np.testing.assert_allclose(found.features[row], features[0], atol=1e-5)
        np.testing.assert_allclose(found.logits[row], logits[0], atol=1e-5)
        assert found.cut[row] == (len(text.split()) > 30)  # 30 words, [CLS] and [SEP]


def test_padding_stays_small(tiny_bert: str) -> None:
    plugin = Plugin(name="bag_of_words", max_length=64)
    network = build_encoder(plugin, 2).eval()
    sizes = []
    encode = network.encode
    network.encode = lambda batch: sizes.append(batch["attention_mask"]) or encode(batch)  # type: ignore[method-assign,func-returns-value]
    infer(
        [network],
        network.tokenizer(network.config),
        some_texts(500),
        tokens_per_batch=512,
        precision="float32",
    )
    assert sum(int(mask.sum()) for mask in sizes) / sum(mask.numel() for mask in sizes) > 0.9
    assert max(mask.numel() for mask in sizes) <= 512


@pytest.mark.parametrize(("filled", "max_length"), [(200, 64), (5_000, 64), (1, 8), (10**6, 64)])
def test_windows_of_a_gpu_fill_batches_and_hold_every_row_once(filled: int, max_length: int) -> None:
    texts = some_texts(500)
    windows = list(inference._windows(texts, max_length, filled))
    assert sorted(np.concatenate(windows)) == list(range(500))
    expected = [sum(min(len(texts[row]) / 4 + 2, max_length) for row in window) for window in windows]
    assert all(tokens <= filled + max_length for tokens in expected)
    assert all(tokens >= filled - max_length for tokens in expected[:-1])


def test_windows_do_not_change_results(tiny_bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_encoder(Plugin(name="transformer", model=tiny_bert, max_length=32), 3).eval()
    tokenizer, texts = network.tokenizer(network.config), some_texts(60)
    usual = infer([network], tokenizer, texts, precision="float32", tokens_per_batch=100)
    windows = inference._windows
    monkeypatch.setattr(
        inference, "_windows", lambda texts, longest, _, words: windows(texts, longest, 300, words)
    )
    filled = infer([network], tokenizer, texts, precision="float32", tokens_per_batch=100)
    np.testing.assert_allclose(filled.features, usual.features, atol=1e-5)
    np.testing.assert_allclose(filled.logits, usual.logits, atol=1e-5)
    assert (filled.cut == usual.cut).all()


def test_a_lowered_body_keeps_features_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 weights of a network of MiniLM's shape; what comes after the body is float32, and nothing is autocast."""
    shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    model = tiny.write(tmp_path / "model", **shape)
    plugin = Plugin(name="transformer", model=model, max_length=32)
    members = [build_encoder(plugin, 3, seed=seed) for seed in range(2)]
    for network in (build_encoder(plugin, 3).eval(), Ensemble.of(members, "transformer").eval()):
        tokenizer, texts = network.tokenizer(network.config), some_texts(40)
        exact = infer([network], tokenizer, texts, precision="float32")
        inference.lower_bodies([network], "bfloat16", torch.device("cpu"))
        assert not network.lowered  # autocast stays on CPUs
        with monkeypatch.context() as gpu:
            gpu.setattr(inference, "gains_by_bfloat16", lambda device: True)
            inference.lower_bodies([network], "float32", torch.device("cuda"))
            assert not network.lowered
            inference.lower_bodies([network], "auto", torch.device("cuda"))
        assert network.lowered
        bodies, rest = {torch.bfloat16}, {torch.float32}
        for name, value in network.named_parameters():
            assert value.dtype in (bodies if "body." in name else rest), name
        seen: list[bool] = []
        encode = network.encode
        monkeypatch.setattr(
            network,
            "encode",
            lambda batch, of=encode, to=seen: to.append(torch.is_autocast_enabled("cpu")) or of(batch),
        )
        found = infer([network], tokenizer, texts, precision="bfloat16")
        assert set(seen) == {False}
        assert found.features.dtype == found.logits.dtype == np.float32
        norms = np.linalg.norm(exact.features, axis=1) * np.linalg.norm(found.features, axis=1)
        assert ((exact.features * found.features).sum(axis=1) / norms).min() >= 0.999
        np.testing.assert_allclose(found.logits, exact.logits, atol=0.05)


def test_a_lowered_frozen_body_is_no_parameter(tiny_bert: str) -> None:
    network = build_encoder(Plugin(name="transformer", model=tiny_bert, trainable="head"), 3).eval()
    network.lower()
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    assert next(network.open_body().parameters()).dtype == torch.bfloat16  # type: ignore[operator]
    assert not build_encoder(Plugin(name="bilstm"), 3).lowered


def test_padding_golden() -> None:
    batch = pad([np.array([5, 6], np.int32), np.array([7], np.int32), np.array([], np.int32)], 9)
    assert batch["input_ids"].tolist() == [[5, 6], [7, 9], [9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0], [0, 0]]
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64
    assert pad([], 9)["input_ids"].shape == (0, 1)
    assert pad([np.array([], np.int32)], 9)["input_ids"].tolist() == [[9]]


def test_the_next_texts_are_tokenised_before_the_device_is_free(tiny_bert: str) -> None:
    network = build_encoder(Plugin(name="transformer", model=tiny_bert, max_length=64), 2).eval()
    tokenizer, turn = network.tokenizer(network.config), threading.Lock()
    tokenised, found = threading.Event(), []

    class Heard:
        def __getattr__(self, name: str) -> object:
            return getattr(tokenizer, name)

        def __call__(self, texts: list[str]) -> object:
            tokenised.set()
            return tokenizer(texts)

    def work() -> None:
        found.append(infer([network], Heard(), ["dog"], precision="float32", turn=turn))  # type: ignore[arg-type]

    with turn:
        thread = threading.Thread(target=work)
        thread.start()
        assert tokenised.wait(60)
        assert not found
    thread.join(60)
    assert len(found) == 1


def test_ahead_gives_all_and_raises_what_the_producer_raises() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("no")

    assert list(ahead(lambda: iter(range(50)))) == list(range(50))
    items = ahead(broken)
    assert next(items) == 1
    with pytest.raises(KeyError):
        next(items)


def test_ahead_stops_its_thread_when_the_consumer_stops() -> None:
    before = threading.active_count()
    items = ahead(lambda: iter(range(10**9)))
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_prediction_table_golden() -> None:
    p = np.array([[0.5, 0.3, 0.2], [0.25, 0.5, 0.25], [0.4, 0.4, 0.2]], np.float32)
    table = prediction_table(
        np.array([7, 8, 9]), pa.array([1, None, 1], pa.int32()), p, np.array([0, 1, -1], np.int16)
    )
    rows = table.to_pylist()
    # row 7: given 1 has .3, best other .5 -> margin -.2; row 8 has no label; row 9: a tie goes to class 0, margin 0
    assert rows[0]["given_probability"] == pytest.approx(0.3)
    assert rows[0]["margin"] == pytest.approx(-0.2)
    assert [row["predicted_label"] for row in rows] == [0, 1, 0]
    assert [row["runner_up_label"] for row in rows] == [1, 0, 1]
    assert rows[1]["given_label"] is None
    assert rows[1]["given_probability"] is None
    assert rows[1]["margin"] is None
    assert rows[2]["margin"] == pytest.approx(0.0)
    assert rows[2]["fold"] == -1


def test_prediction_table_of_two_classes() -> None:
    p = softmax(np.array([[0.0, np.log(3.0)]], np.float32))  # 1/4, 3/4
    row = prediction_table(np.array([1]), pa.array([1], pa.int32()), p, np.array([0], np.int16)).to_pylist()[
        0
    ]
    assert row["margin"] == pytest.approx(0.5)
    assert (row["predicted_label"], row["runner_up_label"]) == (1, 0)
