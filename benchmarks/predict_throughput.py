"""Rows per second of self-prediction: rayclean on its Ray Data actor pool, a bare PyTorch loop, the Hugging Face pipeline.

    python benchmarks/predict_throughput.py [--small] [--repetitions 3]

Same MiniLM weights, same synthetic news-like rows, mean-pooled features from text. Every measurement is its own process,
one at a time, repetitions interleaved, medians compared. The bare loop is what a careful person writes: all rows
tokenised, sorted by length, batched by as many padded tokens as rayclean's batches, bfloat16 where the hardware gains
by it, all cores. The pipeline runs in the given order with its batch size, once as it comes (float32) and once in bfloat16.
Rates are steady: rayclean's from every actor's first finished shard to the last, the others' after a warm-up; start-up is
apart. The pipelines, which do not sort, run on the first quarter of the rows.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import claim, write_result

VARIANTS = ("rayclean", "bare_loop", "pipeline", "pipeline_bfloat16")
ENCODER = {"name": "transformer", "model": "minilm", "trainable": "head", "max_length": 128}


def texts(rows: int, seed: int) -> list[str]:
    """Words of the model's own vocabulary, Zipf-distributed; lengths log-normal, median 40 words as in news teasers."""
    from rayclean.config import Plugin
    from rayclean.models.loading import encoder_class

    cls, options = encoder_class(Plugin(**ENCODER))
    backend = cls.tokenizer(options)._backend  # type: ignore[attr-defined]
    words = sorted(word for word in backend.get_vocab() if word.isalpha() and len(word) > 2)
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(40), 0.5, rows), 5, 300).astype(int)
    ranks = [np.minimum(rng.zipf(1.3, n), len(words)) - 1 for n in lengths]
    order = rng.permutation(len(words))
    return [" ".join(words[order[rank]] for rank in row) for row in ranks]


def rayclean(rows: list[str], shards: int, folder: str) -> dict[str, float]:
    import pyarrow as pa

    from rayclean.config import ClusterConfig, Plugin, PredictConfig
    from rayclean.folder import Folder
    from rayclean.runtime.actor_pool import size_pool
    from rayclean.runtime.cluster import connected
    from rayclean.runtime.engines import Engines
    from rayclean.runtime.predict import compute_features
    from rayclean.schema import EXAMPLES

    examples, output = Folder(f"{folder}/examples"), Folder(f"{folder}/features")
    size = len(rows) // shards
    for number in range(shards):
        part = range(number * size, (number + 1) * size)
        columns = {
            "example_id": list(part),
            "text": [rows[i] for i in part],
            "given_label": [0] * size,
            "split": ["train"] * size,
        }
        examples.write_table(pa.table(columns, schema=EXAMPLES), f"part-{number:05d}.parquet")
    start = time.time()
    with connected(ClusterConfig()):
        actors = size_pool(ClusterConfig(), None, shards).actors
        compute_features(
            Engines(on_ray=True), examples, output, Plugin(**ENCODER), seed=0, config=PredictConfig()
        )
        total = time.time() - start
    ends = sorted(os.stat(output.path(shard)).st_mtime for shard in output.shards())
    rate = size * (shards - actors) / (ends[-1] - ends[actors - 1])  # each actor's first shard is its warm-up
    startup = total - len(rows) / rate
    return {"rows_per_second": rate, "startup_seconds": startup, "total_seconds": total, "actors": actors}


def bare_loop(rows: list[str], warmup: int) -> dict[str, float]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    start = time.time()
    tokenizer = AutoTokenizer.from_pretrained(_model())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModel.from_pretrained(_model(), dtype=torch.float32).eval().to(device)
    startup = time.time() - start

    def embed(part: list[str]) -> np.ndarray[Any, Any]:
        from rayclean.models.inference import default_tokens_per_batch
        from rayclean.models.precision import inference_autocast

        tokens = default_tokens_per_batch(torch.device(device))

        ids = tokenizer(part, truncation=True, max_length=128)["input_ids"]
        order = np.argsort([-len(x) for x in ids])
        features = np.empty((len(part), model.config.hidden_size), np.float32)
        position = 0
        with torch.inference_mode(), inference_autocast("auto", torch.device(device))():
            while position < len(order):
                batch = order[position : position + max(1, tokens // len(ids[order[position]]))]
                position += len(batch)
                inputs = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt").to(device)
                states = model(**inputs).last_hidden_state.float()
                mask = inputs["attention_mask"].unsqueeze(-1).float()
                features[batch] = ((states * mask).sum(1) / mask.sum(1)).cpu().numpy()
        return features

    embed(rows[:warmup])
    start = time.time()
    embed(rows[warmup:])
    return {"rows_per_second": (len(rows) - warmup) / (time.time() - start), "startup_seconds": startup}


def pipeline(rows: list[str], warmup: int, dtype: str) -> dict[str, float]:
    import torch
    from transformers import pipeline as build

    start = time.time()
    extract = build(
        "feature-extraction", model=_model(), dtype=getattr(torch, dtype), batch_size=32,
        tokenize_kwargs={"truncation": True, "max_length": 128}, return_tensors=True,
    )  # fmt: skip
    startup = time.time() - start

    def embed(part: list[str]) -> list[Any]:
        return [states[0].float().mean(0).numpy() for states in extract(part)]

    embed(rows[:warmup])
    start = time.time()
    embed(rows[warmup:])
    return {"rows_per_second": (len(rows) - warmup) / (time.time() - start), "startup_seconds": startup}


def _model() -> str:
    from rayclean.config import Plugin
    from rayclean.models.loading import encoder_class
    from rayclean.models.pretrained import _source

    return str(_source(encoder_class(Plugin(**ENCODER))[1])[0])


def measure(variant: str, rows: int, shards: int, seed: int) -> dict[str, float]:
    data = texts(rows, seed)
    if variant == "rayclean":
        with tempfile.TemporaryDirectory() as folder:
            return rayclean(data, shards, folder)
    if variant == "bare_loop":
        return bare_loop(data, rows // shards)
    return pipeline(
        data[: rows // 4], rows // 4 // shards, "bfloat16" if variant.endswith("bfloat16") else "float32"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a few rows, once")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rows = arguments.rows or (192 if arguments.small else 16384)
    shards = 3 if arguments.small else 8
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, rows, shards, arguments.seed)))
        return
    repetitions = 1 if arguments.small else arguments.repetitions
    figures: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    for repetition in range(repetitions):
        for variant in VARIANTS[:: 1 if repetition % 2 == 0 else -1]:
            command = [
                sys.executable,
                __file__,
                "--measure",
                variant,
                "--rows",
                str(rows),
                "--seed",
                str(arguments.seed),
            ]
            command += ["--small"] if arguments.small else []
            environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                raise SystemExit(f"{variant} failed:\n{done.stderr[-3000:]}")
            figures[variant].append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(variant, figures[variant][-1], file=sys.stderr)
    rate = {name: statistics.median(run["rows_per_second"] for run in runs) for name, runs in figures.items()}
    goals = (
        ("rayclean / bare PyTorch loop over length-sorted batches", "bare_loop", 0.95),
        ("rayclean / Hugging Face pipeline as it comes", "pipeline", 2.0),
        ("rayclean / Hugging Face pipeline in bfloat16", "pipeline_bfloat16", 2.0),
    )
    claims = []
    for text, other, goal in goals:
        ratio = rate["rayclean"] / rate[other]
        claims.append(claim(text, goal=f">= {goal}", measured=round(ratio, 3), holds=ratio >= goal))
    config = {
        "encoder": ENCODER,
        "rows": rows,
        "shards": shards,
        "repetitions": repetitions,
        "pipeline_batch_size": 32,
    }
    write_result(
        __file__,
        config,
        arguments.seed,
        {"median_rows_per_second": rate, "runs": figures},
        claims,
        arguments.small,
    )


if __name__ == "__main__":
    main()
