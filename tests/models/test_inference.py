import threading
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch

from rayclean.config import Plugin
from rayclean.models import inference
from rayclean.models.ahead import ahead
from rayclean.models.base import pad
from rayclean.models.inference import infer
from rayclean.models.loading import build_encoder
from rayclean.tasks.probabilities import prediction_table, softmax
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
