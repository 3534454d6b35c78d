"""A7, A8, A10 and A11: rates of training and of reading, features in bfloat16, and what views and demonstrations cost.

Rates fail no check: they are written down, with what is expected of them.
"""

import time
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import feature_rates, train_rates
from rayclean.functional.neighbours import NearestNeighbours
from rayclean.models.inference import infer
from rayclean.models.loading import build_encoder
from rayclean.training.augment import Synonyms
from tests.gpu.place import Figures, Place, require
from tests.gpu.training_checks import transformer

COSINE = 0.999
DEMONSTRATIONS = 5


def training_rates(place: Place, figures: Figures) -> None:
    """A7: steps of NoiseAL and LANE beside a plain loop, and the share of the time in which a kernel runs."""
    found: dict[str, Any] = figures.setdefault("train", {})
    claims = train_rates(place.new("train"), place.device, place.seed, place.small, found)
    figures["claims"] = claims
    for method, batches in found.items():
        for batch, each in batches.items():
            require(len(each["ratios"]) > 0, f"{method}, batch {batch}: no block was measured")


def reading_rates(place: Place, figures: Figures) -> None:
    """A8: rows per second of tokenizer, network, and both together, in one process and in three."""
    found: dict[str, Any] = figures.setdefault("features", {})
    figures["claims"] = feature_rates(place.folder, place.device, place.seed, place.small, found)
    require(
        all(rate > 0 for rates in found.values() for rate in rates.values()), f"a rate is missing: {found}"
    )


def features_in_bfloat16(place: Place, figures: Figures) -> None:
    """A10: features in bfloat16 point where those in float32 do, and in float32 the device gives what the CPU does."""
    texts = place.texts(40 if place.small else 2000)
    for shape in ("tiny",) if place.small else ("minilm", "bert-base"):
        plugin = transformer(place, shape)
        network = build_encoder(plugin, 5, seed=place.seed).eval()
        tokenizer = network.tokenizer(network.config)
        few = infer([network], tokenizer, texts[:40], precision="float32")
        network.to(place.device)
        single, half = (infer([network], tokenizer, texts, precision=p) for p in ("float32", "bfloat16"))
        network.lower()  # weights in bfloat16, as bodies are held on GPUs, instead of autocast
        lowered = infer([network], tokenizer, texts)
        cosines = _cosines(single.features, half.features)
        middle = single.features.mean(0)
        found = {
            "least_cosine": float(cosines.min()),
            "least_cosine_of_lowered": float(_cosines(single.features, lowered.features).min()),
            # Texts of a network with random weights are alike: without what they have in common more is seen.
            "least_cosine_about_the_mean": float(
                _cosines(single.features - middle, half.features - middle).min()
            ),
            "logits_apart": float(np.abs(single.logits - half.logits).max()),
            "float32_apart_from_cpu": float(np.abs(few.features - single.features[:40]).max()),
        }
        figures[shape] = found
        require(bool(np.isfinite(half.features).all()), f"{shape}: features in bfloat16 are not finite")
        require(not np.array_equal(single.features, half.features), f"{shape}: bfloat16 was not computed in")
        for name in ("least_cosine", "least_cosine_of_lowered"):
            require(found[name] >= COSINE, f"{shape}, {name}: {found[name]:.5f} < {COSINE}")
        apart = found["float32_apart_from_cpu"]
        require(apart <= 1e-3, f"{shape}: features in float32 are apart from the CPU's by {apart:.2g}")


def _cosines(one: Any, two: Any) -> Any:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return (one * two).sum(1) / np.maximum(norms, 1e-12)


def views_and_demonstrations(place: Place, figures: Figures) -> None:
    """A11: seconds for the synonyms of 1,000 words, and for the nearest demonstrations in a pool of 1e5."""
    network = build_encoder(transformer(place, "bert-base"), 2, seed=place.seed)
    words, table = network.tokenizer(network.config).words(), network.token_embeddings()
    assert words is not None
    assert table is not None
    begin = time.perf_counter()
    synonyms = Synonyms(words, table, min_cosine=0.1)
    figures["synonyms_table_seconds"] = time.perf_counter() - begin
    asked = synonyms.words[: 50 if place.small else 1000]
    begin = time.perf_counter()
    found = [synonyms.neighbours(word) for word in asked]
    figures["seconds_per_1000_words"] = (time.perf_counter() - begin) / len(asked) * 1000
    require(
        all(word not in near for word, near in zip(asked, found, strict=True)), "a word is its own synonym"
    )

    queries, pool, size = (20, 500, 32) if place.small else (1000, 100_000, 768)
    rng = np.random.default_rng(place.seed)
    features = rng.standard_normal((pool, size), dtype=np.float32)
    ids = np.arange(pool)
    begin = time.perf_counter()
    nearest = NearestNeighbours(features[:queries], ids[:queries], DEMONSTRATIONS)
    for start in range(0, pool, 4096):
        block = slice(start, start + 4096)
        nearest.add(features[block], ids[block], ids[block])
    figures["nearest_seconds"] = time.perf_counter() - begin
    figures |= {"queries": queries, "pool": pool}
    # The search is exact: the first query's neighbours are those of a product with everything.
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    moved = torch.from_numpy(units).to(place.device)
    cosines = (moved @ moved[0]).cpu()
    cosines[0] = -2
    expected = cosines.topk(DEMONSTRATIONS).values.numpy()
    apart = float(np.abs(nearest.cosines[0] - expected).max())
    require(apart < 1e-4, f"the nearest of the first query are apart from a full search by {apart:.2g}")
