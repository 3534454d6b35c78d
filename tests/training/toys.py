"""A small data set on disk, small encoders, and the gloo workers that the exactness tests start."""

import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from rayclean.config import Plugin, TrainingConfig
from rayclean.errors import RaycleanError
from rayclean.folder import Folder
from rayclean.methods.base import Method, Stage, State
from rayclean.methods.batch import Output, StepBatch
from rayclean.methods.noiseal_ablations import NoiseALWithAblations
from rayclean.models.base import Encoder, Tokenizer
from rayclean.plugins import Options
from rayclean.schema import EXAMPLES
from rayclean.training.collectives import Collectives, Distributed
from rayclean.training.job import DataSpec, ExampleSelection, FitJob, FitSpec
from rayclean.training.loop import fit

WORDS = ("red green blue", "one two three", "cat dog bird")


class ToyTokenizer(Tokenizer):
    """One token per word: its hash into 64 buckets."""

    pad_id = 0
    max_length = 16
    vocabulary = 64
    special_ids = frozenset({0})

    def __call__(self, texts: Any) -> Any:
        tokens = [
            np.array([1 + sum(map(ord, w)) % 63 for w in t.split()][:16] or [1], dtype=np.int32)
            for t in texts
        ]
        return tokens, np.array([len(t.split()) > 16 for t in texts])


class ToyEncoder(Encoder):
    """Mean of embeddings, without dropout."""

    default_epochs = 3
    default_learning_rate = 1e-2

    def __init__(self, config: Any, num_classes: int):
        super().__init__(config, num_classes)
        self.embedding = nn.Embedding(64, 8)
        self.build_head(8)

    @classmethod
    def tokenizer(cls, config: Any) -> ToyTokenizer:
        return ToyTokenizer()

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        mask = batch["attention_mask"].unsqueeze(-1).float()
        return (self.embedding(batch["input_ids"]) * mask).sum(1) / mask.sum(1)


class DoubleEncoder(ToyEncoder):
    """In double precision: what differs between numbers of workers is then no rounding of the network."""

    def __init__(self, config: Any, num_classes: int):
        super().__init__(config, num_classes)
        self.double()


class SlowOnOneNode(ToyEncoder):
    """Tokenises for six seconds on the second worker, as a node does that has none of the tokens of millions of texts."""

    waited = False

    @classmethod
    def tokenizer(cls, config: Any) -> ToyTokenizer:
        if dist.is_initialized() and dist.get_rank() == 1 and not cls.waited:
            cls.waited = True
            time.sleep(6)
        return super().tokenizer(config)


class DriftingEncoder(ToyEncoder):
    """On the second worker its weights move a little by themselves."""

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        if self.training and dist.is_initialized() and dist.get_rank() == 1:
            self.head.bias.data[0] += 1e-5
        return super().encode(batch)


class NanEncoder(ToyEncoder):
    """A network whose output is not finite."""

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        return super().encode(batch) * float("nan")


class LaterNanEncoder(ToyEncoder):
    """A network whose gradient is not finite from its twelfth batch on, while what it says is."""

    batches = 0

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        features = super().encode(batch)
        if self.training:
            self.batches += 1
            if self.batches >= 12:
                features = features + (features * 0).abs().sqrt()  # the slope of a root at 0
        return features


class Accumulating(Method):
    """Sums, counts and subset means: what NoiseAL and LANE strain (two networks, a subset that is mostly empty)."""

    networks = ("strong", "weak")

    def state(self) -> dict[str, tuple[str, float]]:
        return {
            "sum": ("float64", 0.0),
            "exact": ("float64", 0.0),
            "visits": ("uint32", 0),
            "hard": ("uint8", 0),
            "last": ("float32", -1.0),
        }

    def seen(
        self, outputs: dict[str, Output], batch: StepBatch, rows: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        probabilities = outputs["strong"].logits.detach().softmax(-1)
        drawn = (
            torch.from_numpy(batch.example_id).double() * 0.1
        ).sin()  # depends on nothing that is trained
        return {"drawn": drawn, "given": probabilities.gather(1, batch.given_label[:, None])[:, 0]}

    def observe(self, state: State, rows: Any, seen: dict[str, Any], epoch: int) -> None:
        state["sum"][rows] += seen["given"].astype(np.float64) * epoch
        state["exact"][rows] += (
            seen["drawn"] * epoch + seen["drawn"].mean()
        )  # a statistic of the global batch
        state["visits"][rows] += 1
        state["last"][rows] = seen["given"]

    def partition(self, state: State, epoch: int, turn: int = 0) -> None:
        state["hard"][:] = (
            state["example_id"] % 11 == 0
        )  # about one in eleven: empty on most workers of most steps

    def loss(
        self, outputs: dict[str, Output], batch: StepBatch, rows: Mapping[str, Tensor], epoch: int
    ) -> dict[str, Tensor]:
        losses = {
            n: nn.functional.cross_entropy(o.logits, batch.given_label, reduction="none")
            for n, o in outputs.items()
        }
        return {
            "strong": batch.mean(losses["strong"]),
            "weak_hard": batch.mean_over(losses["weak"], rows["hard"] == 1),
        }

    def quality(self, state: State) -> Any:
        return state["sum"] / np.maximum(state["visits"], 1)


class LateChoice(Accumulating):
    """May be chosen from the fifth epoch on."""

    first_choice = 5


class Staged(Accumulating):
    """All that stages and turns can be: other outputs, a constant rate, networks carried on, examples left out, two
    turns in which `partition` sees what the turn before did, two networks that predict.
    """

    predictors = ("strong", "weak")
    turns = (("strong",), ("strong", "weak"))
    reviews = True

    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage("wide", 2, outputs=self.num_classes + 1, constant_rate=True),
            Stage("all"),
            Stage("kept", 2, fresh=False),
        )

    def state(self) -> dict[str, tuple[str, float]]:
        return {**super().state(), "judged": ("float32", 0.0), "judged_before": ("float32", 0.0)}

    def kept(self, state: State, stage: str) -> Any:
        """By a column that the stage itself changes: whoever resumes must not ask again."""
        return state["last"] >= np.median(state["last"]) if stage == "kept" else None

    def partition(self, state: State, epoch: int, turn: int = 0) -> None:
        super().partition(state, epoch, turn)
        if turn == 1:
            state["judged_before"][:] = state["judged"]

    def judged(
        self, outputs: dict[str, Output], labels: Tensor, rows: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        each = [output.logits.softmax(-1).gather(1, labels[:, None])[:, 0] for output in outputs.values()]
        return {"judged": torch.stack(each).mean(0) + rows["visits"].float()}

    def review(self, state: State, rows: Any, seen: dict[str, Any], epoch: int) -> None:
        state["judged"][rows] = seen["judged"]

    def loss(
        self, outputs: dict[str, Output], batch: StepBatch, rows: Mapping[str, Tensor], epoch: int
    ) -> Any:
        terms = super().loss(outputs, batch, rows, epoch)
        terms["progress"] = terms["strong"] * batch.progress / 10
        return terms if batch.turn == self.networks else {n: terms[n] for n in ("strong", "progress")}


class SelfKilling(Accumulating):
    """Kills its own process, as a node that goes away does, in the middle of the third epoch: once."""

    class Config(Options):
        marker: str

    def observe(self, state: State, rows: Any, seen: dict[str, Any], epoch: int) -> None:
        super().observe(state, rows, seen, epoch)
        if epoch == 3 and state["visits"].sum() > 2.5 * len(state["visits"]):
            try:
                os.close(os.open(self.config.marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)


class SelfKillingNoiseAL(NoiseALWithAblations):
    """Kills its own process, and so the whole group, in the middle of an epoch in which it has asked: once."""

    class Config(NoiseALWithAblations.Config):
        marker: str

    def queries(self, state: State, epoch: int) -> Any:
        found = super().queries(state, epoch)
        self.asked = found is not None
        self.steps = 0
        return found

    def loss(self, outputs: Any, batch: StepBatch, rows: Any, epoch: int) -> Any:
        if epoch > self.config.warmup_epochs and self.asked:
            self.steps += 1
            if self.steps == 3:
                try:
                    os.close(os.open(self.config.marker, os.O_CREAT | os.O_EXCL))
                    os.kill(os.getpid(), signal.SIGKILL)
                except FileExistsError:
                    pass
        return super().loss(outputs, batch, rows, epoch)


(
    TOY,
    DOUBLE,
    DRIFTING,
    NAN,
    LATER_NAN,
    SLOW,
    ACCUMULATING,
    LATE,
    STAGED,
    SELF_KILLING,
    SELF_KILLING_NOISEAL,
) = (
    f"tests.training.toys:{cls.__name__}"
    for cls in (
        ToyEncoder,
        DoubleEncoder,
        DriftingEncoder,
        NanEncoder,
        LaterNanEncoder,
        SlowOnOneNode,
        Accumulating,
        LateChoice,
        Staged,
        SelfKilling,
        SelfKillingNoiseAL,
    )
)

HALF = {"confidence": 5e-4}
"""Tolerance of columns in half precision, one step of it below 1."""


def write_examples(
    folder: Path,
    count: int,
    *,
    dev: int = 0,
    noise: float = 0.0,
    shards: int = 3,
    seed: int = 0,
    longest: int = 3,
) -> str:
    """Texts of three classes; `count` train and `dev` dev examples in shards of a random order; ids are not dense.

    Texts have 3 to `longest` words and a word of their own.
    """
    generator = np.random.default_rng(seed)
    total = count + dev
    classes = generator.integers(0, 3, total)
    lengths = np.random.default_rng([seed, 1]).integers(3, longest, total, endpoint=True)
    texts = [
        " ".join(generator.choice(WORDS[c].split(), length)) + f" x{i}"
        for i, (c, length) in enumerate(zip(classes, lengths, strict=True))
    ]
    given = np.where(generator.random(total) < noise, (classes + 1) % 3, classes).astype(np.int32)
    split = np.array(["train"] * count + ["dev"] * dev)
    ids = generator.permutation(total * 7)[:total].astype(np.int64) - total * 3  # half of them are negative
    ids[ids == -1] = total * 9  # the padding
    for number, rows in enumerate(np.array_split(generator.permutation(total), shards)):
        columns = [ids[rows], [texts[r] for r in rows], given[rows], split[rows]]
        Folder(str(folder)).write_table(pa.table(columns, schema=EXAMPLES), f"part-{number:05d}.parquet")
    return str(folder)


def job(examples: str, output: Path, **changes: Any) -> FitJob:
    values: dict[str, Any] = {
        "name": "toy",
        "data": DataSpec(examples),
        "select": ExampleSelection(),
        "seed": 3,
    }
    return FitJob(**{**values, "output": str(output), **changes})


class Answering:
    """An annotator that says what the nearest demonstration is labelled; it keeps what it was asked."""

    def __init__(self, folder: str | None = None):
        self.requests: list[Any] = []

    def demonstrations(self, count: int, selector: str) -> tuple[int, str]:
        return count, selector

    def __call__(self, asked: Any) -> tuple[Any, dict[str, float]]:
        self.requests.append(asked)
        shown = asked.neighbours[:, 0] != -1 if asked.neighbours.shape[1] else np.zeros(len(asked.ids), bool)
        labels = asked.predicted.copy()
        labels[shown] = asked.neighbour_labels[shown, 0]
        return labels, {"asked": len(labels), "from_ledger": 0}


def spec(encoder: str = TOY, method: str | Plugin = "cross_entropy", **training: Any) -> FitSpec:
    return FitSpec(
        Plugin(name=encoder),
        Plugin(name=method) if isinstance(method, str) else method,
        TrainingConfig(**{"batch_size": 8, **training}),
        ("a", "b", "c"),
    )


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


def errors_of(jobs: list[FitJob], spec: FitSpec, folder: Path) -> list[str]:
    """What `fit` raises on each worker of one group, where every worker has a job of its own; "" where nothing."""
    _start(_worker_with_its_own_job, (jobs, spec, str(folder)), len(jobs))
    return [(folder / f"error-{rank}").read_text() for rank in range(len(jobs))]


def _worker_with_its_own_job(rank: int, jobs: list[FitJob], spec: FitSpec, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(os.path.join(folder, "store"), len(jobs))
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=len(jobs), timeout=timedelta(seconds=60)
    )
    error = ""
    try:
        fit(jobs[rank], spec, Distributed())
    except RaycleanError as raised:
        error = f"{type(raised).__name__}: {raised}"
    finally:
        dist.destroy_process_group()
    Path(folder, f"error-{rank}").write_text(error)


Attempt = tuple[int, FitJob, FitSpec, int | None]
"""Number of workers, what to train, and the epoch after which they all die (None: they live)."""


def run_attempts(attempts: list[Attempt], folder: Path) -> None:
    """Run `fit` on gloo processes, attempt after attempt; the processes are started once."""
    _start(_worker, (attempts, str(folder)), max(workers for workers, *_ in attempts))


def _start(function: Callable[..., None], arguments: tuple[Any, ...], count: int) -> None:
    """Run a function of its rank in some processes, forked from one that imported PyTorch once for all of a test session.

    They get the environment of now rather than that of then.
    """
    # What fits import late takes seconds: torch._dynamo for the first optimiser, scikit-learn for the mixtures of DivideMix.
    multiprocessing.set_forkserver_preload([__name__, "torch._dynamo", "sklearn.mixture"])
    arguments = (function, dict(os.environ), arguments)
    mp.start_processes(_in_environment, arguments, count, start_method="forkserver")


def _in_environment(
    rank: int, function: Callable[..., None], environment: dict[str, str], arguments: tuple[Any, ...]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    function(rank, *arguments)


def _worker(rank: int, attempts: list[Attempt], folder: str) -> None:
    torch.set_num_threads(1)
    for number, (workers, job, spec, stop_after) in enumerate(attempts):
        if rank >= workers:
            continue
        if workers > 1:
            store = dist.FileStore(os.path.join(folder, f"store-{number}"), workers)
            dist.init_process_group(
                "gloo", store=store, rank=rank, world_size=workers, timeout=timedelta(seconds=60)
            )
        try:
            collectives = Distributed() if workers > 1 else Collectives()
            fit(
                job,
                spec,
                collectives,
                on_epoch=_killer(stop_after),
                checkpoint_share=math.inf,
                consult=Answering(),
            )
        except (Killed, RuntimeError):  # the first worker died; the others lose their connection
            if stop_after is None:
                raise
        finally:
            if workers > 1:
                dist.destroy_process_group()
    _end_worker()


def _end_worker() -> None:
    """End a worker without finalising its interpreter.

    A thread of PyTorch that waits for the interpreter's lock at that moment is unwound by force, and now and then the
    process aborts ("terminate called without an active exception") after all its work is done.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _killer(stop_after: int | None) -> Any:
    def on_epoch(record: dict[str, Any]) -> None:
        if record["epoch"] == stop_after:
            raise Killed

    return on_epoch
