"""Rates on a GPU: steps of training beside a plain PyTorch loop, rows read, questions answered by a served language model.

    python benchmarks/gpu.py [--small] [--device cuda] [--only train,features,questions]

* `train`: NoiseAL and LANE with BERT-base, batches of 32 and of 256: `fit` against the plain loop, in pairs of blocks
  (`benchmarks/train_overhead.py` says how), and the share of the time in which a kernel runs.
* `features`: rows per second of `rayclean.models.inference.infer` in the shapes of MiniLM and of BERT-base, 40 words a text:
  the tokenizer alone with one thread and with all, the networks alone (tokens known), both together with one thread and
  with all, and three processes on one GPU.
* `questions`: questions per second of SmolLM2-135M on vLLM behind Ray Serve, by the number of questions under way. Needs Ray
  and vLLM; the others need neither.

Networks have random weights (`benchmarks/random_networks.py`), which changes no rate. Every reading is a process of its own,
since a tokenizer's number of threads is settled when it is first used. `--small` is for CPUs and proves the script alone.

    python benchmarks/gpu_table.py        # the table of docs/gpus.md; a test compares it with the page
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import queue
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import claim, write_result
from benchmarks.random_networks import random_texts, words, write_network

PARTS = ("train", "features", "questions")
BATCHES = (32, 256)
SHAPES = ("minilm", "bert-base")
CONCURRENCIES = (32, 256, 1024)
MAX_LENGTH = 128
WARMUP_ROWS = 2048
READER_SECONDS = 300
"""Time after which processes that read are given up."""


# -- training ------------------------------------------------------------------------------------------------------


def train_rates(
    folder: Path, device: str, seed: int, small: bool, figures: dict[str, Any]
) -> list[dict[str, Any]]:
    """Fill `figures[method][batch]` with what `train_overhead.compared` and `profiled` find; returns claims."""
    from benchmarks import train_overhead

    strong = {
        "name": "transformer", "model": write_network(folder / "networks", "tiny" if small else "bert-base"),
        "trainable": "all", "max_length": 64,
    }  # fmt: skip
    block, blocks = (1, 2) if small else (5, 6)
    claims = []
    for method in train_overhead.METHODS_HERE:
        figures[method] = {}
        for batch in (4,) if small else BATCHES:
            steps = (train_overhead.LEFT_OUT + blocks) * block + 1
            common = words(20)  # a token each, as the words of `train_overhead` are for real tokenizers
            examples = train_overhead.write_examples(
                folder / f"examples-{batch}", steps * batch, seed, common
            )
            work = train_overhead.Workload(method, examples, seed, device, strong, batch)
            found = train_overhead.compared(work, block, blocks)
            found["examples_per_second"] = batch / found["milliseconds_per_step"]["rayclean"] * 1e3
            profile = train_overhead.profiled(work, min(steps - 2, 20))
            found["profile"] = profile
            figures[method][str(batch)] = found
            claims.append(
                claim(
                    f"{method}, batch {batch}: step / plain step, median of {blocks} pairs", goal="<= 1.05",
                    measured=round(found["ratio"], 3), holds=found["ratio"] <= 1.05,
                )
            )  # fmt: skip
    return claims


# -- reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """What one process reads."""

    network: str
    """Folder of the network."""
    shape: str
    """Whose words the texts have."""
    device: str
    rows: int
    seed: int
    threads: int
    """Of the tokenizer."""
    what: tuple[str, ...]
    """Of `tokenizer`, `network` and `together`, one after the other."""


def read(work: Reading, barrier: Any = None) -> dict[str, tuple[float, float]]:
    """Begin and end of everything that is read, on this machine's clock; `barrier` is waited at before each."""
    import numpy as np
    import torch

    from rayclean.config import Plugin
    from rayclean.models.base import Tokenizer
    from rayclean.models.inference import infer, lower_bodies
    from rayclean.models.loading import build_encoder

    class Known(Tokenizer):
        """Gives the tokens of texts that were tokenised before."""

        def __init__(self, of: Tokenizer, texts: Sequence[str]):
            self.pad_id, self.max_length, self.vocabulary = of.pad_id, of.max_length, of.vocabulary
            self.known = dict(zip(texts, of(texts)[0], strict=True))

        def __call__(self, texts: Sequence[str]) -> tuple[list[Any], Any]:
            return [self.known[text] for text in texts], np.zeros(len(texts), dtype=np.bool_)

    os.environ |= {"TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": str(work.threads)}
    plugin = Plugin(name="transformer", model=work.network, max_length=MAX_LENGTH)
    network = build_encoder(plugin, 5, seed=work.seed).eval().to(work.device)
    lower_bodies([network], "auto", torch.device(work.device))
    tokenizer = network.tokenizer(network.config)
    texts = random_texts(work.shape, work.rows + min(WARMUP_ROWS, work.rows), work.seed)
    warmup, rows = texts[work.rows :], texts[: work.rows]
    known = Known(tokenizer, texts) if "network" in work.what else None
    found: dict[str, tuple[float, float]] = {}
    for what in work.what:
        for part in (warmup, rows):
            if part is rows and barrier is not None:
                barrier.wait()
            begin = time.monotonic()
            if what == "tokenizer":
                for start in range(0, len(part), 4096):
                    tokenizer(part[start : start + 4096])
            else:
                outputs = infer([network], known if what == "network" and known else tokenizer, part)
                assert np.isfinite(outputs.features).all()
            if work.device.startswith("cuda"):
                torch.cuda.synchronize()
            found[what] = (begin, time.monotonic())
    return found


def _reader(work: Reading, barrier: Any, results: Any) -> None:
    try:
        results.put(read(work, barrier))
    except BaseException as error:
        barrier.abort()
        results.put(f"{type(error).__name__}: {error}")
        raise


def reading_rates(work: Reading, processes: int) -> dict[str, float]:
    """Rows per second of all processes together, each of which reads the rows of `work`; 0: read in this process."""
    if processes == 0:
        each = [read(work)]
    else:
        context = multiprocessing.get_context("spawn")  # CUDA cannot be used in a fork
        barrier, results = context.Barrier(processes, timeout=READER_SECONDS), context.Queue()
        readers = [
            context.Process(
                target=_reader, args=(replace(work, seed=work.seed + i), barrier, results), daemon=True
            )
            for i in range(processes)
        ]
        for reader in readers:
            reader.start()
        each = []
        try:
            for _ in readers:
                answer = results.get(timeout=READER_SECONDS)
                if isinstance(answer, str):
                    raise RuntimeError(f"a process that read ended: {answer}")
                each.append(answer)
        except queue.Empty:
            raise TimeoutError(f"{processes} processes did not read in {READER_SECONDS} s") from None
        finally:
            for reader in readers:
                reader.kill() if len(each) < processes else reader.join(30)
    return {
        what: work.rows
        * len(each)
        / (max(found[what][1] for found in each) - min(found[what][0] for found in each))
        for what in work.what
    }


def feature_rates(
    folder: Path, device: str, seed: int, small: bool, figures: dict[str, Any]
) -> list[dict[str, Any]]:
    """Fill `figures[shape]` with rows per second; returns claims."""
    cores = len(os.sched_getaffinity(0))
    rows, claims = 48 if small else 24_000, []
    for shape in ("tiny",) if small else SHAPES:
        network = write_network(folder / "networks", shape)
        rates: dict[str, float] = {}
        figures[shape] = rates
        work = Reading(network, shape, device, rows, seed, cores, ("tokenizer", "network", "together"))
        alone = reading_rates(work, 0 if small else 1)
        rates |= {
            "tokenizer, all threads": alone["tokenizer"], "network": alone["network"],
            "together, all threads": alone["together"],
        }  # fmt: skip
        if not small:
            one = reading_rates(replace(work, threads=1, what=("tokenizer", "together")), 1)
            rates |= {"tokenizer, one thread": one["tokenizer"], "together, one thread": one["together"]}
            three = replace(work, threads=max(1, cores // 3), rows=rows // 2, what=("together",))
            rates["together, three processes"] = reading_rates(three, 3)["together"]
        bound = min(rates["tokenizer, all threads"], rates["network"])
        best = max(rate for name, rate in rates.items() if name.startswith("together"))
        claims.append(
            claim(
                f"{shape}: best of together / the slower of tokenizer and network", goal=">= 0.8",
                measured=round(best / bound, 3), holds=best >= 0.8 * bound,
            )
        )  # fmt: skip
    return claims


# -- questions -----------------------------------------------------------------------------------------------------


def question_rates(
    folder: Path, seed: int, small: bool, figures: dict[str, Any], gpu: bool
) -> list[dict[str, Any]]:
    """Fill `figures` with questions per second by how many are under way; returns claims (none: no peer is known)."""
    from rayclean.annotators.engine import Engine
    from rayclean.annotators.ledger import Ledger
    from rayclean.annotators.model_server import ServerOptions
    from rayclean.annotators.query import Query
    from rayclean.annotators.served import ServedAnnotator
    from rayclean.config import ClusterConfig
    from rayclean.folder import Folder
    from rayclean.runtime.cluster import connected
    from rayclean.runtime.serve import hosted
    from rayclean.schema import Candidate, Label

    labels = [Label(i, name, name) for i, name in enumerate(("business", "sport", "politics"))]
    levels = (2,) if small else CONCURRENCIES
    server = ServerOptions(dtype="bfloat16" if gpu else "float32", gpu=gpu)
    config = ServedAnnotator.Config(concurrency=max(levels), deadline=900, health_timeout=300, server=server)

    async def answered(running: Any, level: int) -> float:
        count = 4 if small else 8 * level
        texts = random_texts("minilm", count + level, seed + level, median=100)
        candidates = tuple(map(Candidate.of, labels))
        queries = [Query(i, text, candidates) for i, text in enumerate(texts)]
        engine = Engine(
            running, Ledger(Folder(str(folder / f"ledger-{level}"))), concurrency=level, max_error_rate=0.0
        )
        await engine.answer(queries[:level])  # its start and probe, and the server's first batches
        begin = time.monotonic()
        answers = await engine.answer(queries[level:])
        seconds = time.monotonic() - begin
        await running.close()
        assert all(answer is not None and answer.error is None for answer in answers)
        return count / seconds

    with connected(ClusterConfig()), hosted(ServedAnnotator(config, labels)) as running:
        for level in levels:
            figures[str(level)] = asyncio.run(answered(running, level))
    return []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="seconds on a CPU; the rates mean nothing")
    parser.add_argument("--device", default="cuda", help="ignored with --small, which is for CPUs")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", help="file of the result")
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only: unknown parts {sorted(unknown)}; known: {', '.join(PARTS)}")
    device = "cpu" if arguments.small else arguments.device
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("--device: PyTorch sees no GPU here; --small runs on a CPU")
    figures: dict[str, Any] = {part: {} for part in parts}
    claims = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "train" in parts:
            claims += train_rates(folder, device, arguments.seed, arguments.small, figures["train"])
        if "features" in parts:
            claims += feature_rates(folder, device, arguments.seed, arguments.small, figures["features"])
        if "questions" in parts:
            gpu = device.startswith("cuda")
            claims += question_rates(folder, arguments.seed, arguments.small, figures["questions"], gpu)
    print(json.dumps(figures), file=sys.stderr)
    config = {"device": device, "batches": BATCHES, "shapes": SHAPES, "max_length": MAX_LENGTH,
              "concurrencies": CONCURRENCIES, "parts": parts}  # fmt: skip
    write_result(__file__, config, arguments.seed, figures, claims, arguments.small, arguments.output)


if __name__ == "__main__":
    main()
