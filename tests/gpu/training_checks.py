"""A1 to A7 and A9: training on a device is what it is on a CPU, alone, in a group, stopped and gone on with."""

import functools
import json
import math
import multiprocessing
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.numpy import load_file
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

import rayclean
from rayclean.config import Plugin, TrainingConfig
from rayclean.folder import Folder
from rayclean.models.inference import infer
from rayclean.models.loading import build_encoder
from rayclean.schema import EXAMPLES
from rayclean.training.collectives import Collectives, Distributed
from rayclean.training.job import FitJob, FitSpec
from rayclean.training.loop import fit
from tests.gpu.place import CheckSkippedError, Figures, Place, require
from tests.training.toys import ACCUMULATING, HALF, TOY, Killed, job, spec, write_examples

PACKAGE = Path(rayclean.__file__).parent
EPOCHS, ROWS = 3, 37
METHODS = {
    "cross_entropy": Plugin(name="cross_entropy"),
    "noiseal": Plugin(
        name="noiseal", weak={"name": TOY}, warmup_epochs=1, threshold="fixed", fixed_threshold=0.35
    ),
    "lane": Plugin(name="lane", views=["switch_out", "drop"]),
    "aum": Plugin(name="aum", margin_epochs=2, percentile=60),
    "dividemix": Plugin(name="dividemix", warmup_epochs=1, views=["switch_out", "drop"]),
}
"""Of networks without dropout, so that devices can be compared; low thresholds, so that all subsets have members."""
RESUMED = ("noiseal", "dividemix")
IN_A_GROUP = {
    "accumulating": Plugin(name=ACCUMULATING),
    **{name: METHODS[name] for name in ("noiseal", "lane")},
}
SYNCHRONISATIONS = {"cross_entropy": 4, "lane": 4, "noiseal": 6}
"""Most times that a step may wait for the device, by method: three, as counted by a double of the device, and its share of what
an epoch ends with (sums of losses; NoiseAL's review)."""
GIB = 2**30
MOST_GIB = 20.0
SMALL_WEAK = {"name": "bilstm", "buckets": 500, "embedding": 16, "hidden": 16, "dropout": 0.0}


def toys(method: Plugin, **training: Any) -> FitSpec:
    """A method on toy networks in float32."""
    values = {"epochs": EPOCHS, "learning_rate": 0.03, "precision": "float32", **training}
    return spec(method=method, **values)


def real_networks(place: Place) -> FitSpec:
    """NoiseAL on a transformer and a BiLSTM, both without dropout."""
    strong = Plugin(name="transformer", model=place.network("tiny"), max_length=16, dropout=0.0)
    method = Plugin(**{**METHODS["noiseal"].model_dump(), "weak": SMALL_WEAK})
    training = TrainingConfig(epochs=EPOCHS, batch_size=8, learning_rate=1e-4, precision="float32")
    return FitSpec(strong, method, training, ("a", "b", "c"))


# -- what a training leaves, and when two of them are the same ---------------------------------------------------


def columns(one: FitJob) -> dict[str, npt.NDArray[Any]]:
    """The columns of `dynamics/` as arrays."""
    table = Folder(one.output).read_table("dynamics", "part-00000.parquet")
    return {
        name: table[name].to_numpy(zero_copy_only=False)
        for name in table.column_names
        if not pa.types.is_nested(table.schema.field(name).type)
    }


def history(one: FitJob) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`."""
    return [json.loads(line) for line in Folder(one.output).read_text("metrics.jsonl").splitlines()]


def weights(one: FitJob) -> dict[str, npt.NDArray[Any]]:
    """The weights after the last epoch."""
    files = sorted((Path(one.output) / "model_last").rglob("weights.safetensors"))
    return {f"{file.parent.name} {name}": value for file in files for name, value in load_file(file).items()}


def largest_difference(left: FitJob, right: FitJob, tolerance: float) -> float:
    """The largest difference in columns of floats, losses and weights.

    Raises:
        CheckFailedError: it is greater than `tolerance`, or counts, classes, subsets or what was right of the
            development examples are not equal.
    """
    found, losses = 0.0, ("loss", "dev_loss")
    ours, theirs = columns(left), columns(right)
    require(ours.keys() == theirs.keys(), f"other columns: {ours.keys() ^ theirs.keys()}")
    pairs: list[tuple[str, Any, Any]] = []
    for name, values in ours.items():
        if values.dtype.kind in "iub":
            different = int((values != theirs[name]).sum())
            require(different == 0, f"column {name}: {different} of {len(values)} values differ")
        else:
            pairs.append((name, values, theirs[name]))
    lines, others = history(left), history(right)
    require(len(lines) == len(others), f"{len(lines)} and {len(others)} epochs")
    for line, other in zip(lines, others, strict=True):
        right_ones, other_ones = line["dev_accuracy"], other["dev_accuracy"]
        require(
            right_ones == other_ones,
            f"epoch {line['epoch']}: {right_ones} and {other_ones} of the dev examples right",
        )
        pairs += [(name, line[name], other[name]) for name in line if name.startswith(losses)]
    after, others_after = weights(left), weights(right)
    pairs += [(name, values, others_after[name]) for name, values in after.items()]
    for name, one, two in pairs:
        apart = np.abs(np.asarray(one, np.float64) - np.asarray(two, np.float64))
        difference = float(np.nanmax(apart, initial=0.0))
        most = max(tolerance, HALF.get(name, 0.0), 2 * tolerance if name == "margin_sum" else 0.0)
        require(difference <= most, f"{name}: apart by {difference:.3g}, at most {most:g} expected")
        found = max(found, difference)
    return found


# -- A1, A2: devices -----------------------------------------------------------------------------------------------


@contextmanager
def without_tf32() -> Iterator[None]:
    """LSTMs in float32 while the block runs: cuDNN computes them with 10 bits of mantissa unless it is told not to."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def same_on_device_and_cpu(place: Place, figures: Figures) -> None:
    """A1: state to 1e-3, and the same decisions on development examples, for five methods, and for real networks."""
    folder = place.new("devices")
    examples = write_examples(folder / "examples", ROWS, dev=10, noise=0.2, longest=15)
    cases = {name: toys(method) for name, method in METHODS.items()}
    cases["noiseal of a transformer and a BiLSTM"] = real_networks(place)
    for number, (name, how) in enumerate(cases.items()):
        both = [
            job(examples, folder / f"{number}-{place_of}", keep_last=name in METHODS)
            for place_of in ("cpu", "device")
        ]
        with without_tf32():
            for one, device in zip(both, ("cpu", place.device), strict=True):
                fit(one, how, device=device)
        figures[name] = largest_difference(both[0], both[1], 1e-3)


def resumed_on_either_device(place: Place, figures: Figures) -> None:
    """A2: stopped after the first epoch and gone on with, on the same device or on the other one: as unbroken, to 1e-3."""
    folder = place.new("resumed")
    examples = write_examples(folder / "examples", ROWS, dev=10, noise=0.2, longest=15)
    device = place.device
    moves = dict.fromkeys([(device, device), ("cpu", device), (device, "cpu")])

    def dies(record: dict[str, Any]) -> None:
        if record["epoch"] == 1:
            raise Killed

    for name in RESUMED:
        how = toys(METHODS[name])
        unbroken = job(examples, folder / f"{name}-unbroken", keep_last=True)
        fit(unbroken, how, device=device)
        for before, after in moves:
            one = job(examples, folder / f"{name}-{before}-{after}".replace(":", ""), keep_last=True)
            with suppress(Killed):
                fit(one, how, device=before, on_epoch=dies, checkpoint_share=math.inf)
            lines: list[dict[str, Any]] = []
            fit(one, how, device=after, on_epoch=lines.append)
            told = [line["epoch"] for line in lines]
            require(
                told == list(range(1, 1 + len(told))) and len(told) == len(history(unbroken)),
                f"{name}: epochs {told}",
            )
            figures[f"{name}, {before} then {after}"] = largest_difference(unbroken, one, 1e-3)


# -- A3, A4: groups ------------------------------------------------------------------------------------------------


@contextmanager
def group(backend: str, store: Path, rank: int, workers: int) -> Iterator[None]:
    """A process group of `torch.distributed` while the block runs."""
    file_store = dist.FileStore(str(store), workers)  # type: ignore[attr-defined]
    dist.init_process_group(
        backend, store=file_store, rank=rank, world_size=workers, timeout=timedelta(seconds=60)
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def collectives_of_one_rank(place: Place, figures: Figures) -> None:
    """A3: NCCL (gloo on a CPU) moves every dtype as it is, sums and averages; a group of one is as no group."""
    backend = "nccl" if place.cuda else "gloo"
    figures["backend"] = backend
    rng = np.random.default_rng(place.seed)
    ids = np.array([7, -3, -1, 2**40, 5], dtype=np.int64)
    sent: dict[str, npt.NDArray[Any]] = {
        "int64": rng.integers(-(2**60), 2**60, 5),
        "float16": rng.random(5).astype(np.float16),
        "uint32": rng.integers(0, 2**32, 5, dtype=np.uint32),
        "uint8": rng.integers(0, 256, 5).astype(np.uint8),
        "float32": rng.random((5, 3)).astype(np.float32),
        "float64": rng.random(5),
        "bool": rng.random(5) < 0.5,
    }
    alone = Collectives()
    device = torch.device(place.device)
    with group(backend, place.new("one-rank") / "store", 0, 1):
        joined = Distributed(device)
        require((joined.rank, joined.world_size) == (0, 1), f"rank {joined.rank} of {joined.world_size}")
        (expected_ids, expected), (found_ids, found) = alone.gather(ids, sent), joined.gather(ids, sent)
        require(bool((expected_ids == found_ids).all()), "gather: other ids")
        for name, column in expected.items():
            same = found[name].dtype == column.dtype and bool((found[name] == column).all())
            require(same, f"gather: a column of {name} came as {found[name].dtype}, or with other values")
            values = joined.from_first(column)
            require(
                values.dtype == column.dtype and bool((values == column).all()), f"from_first: {name} changed"
            )
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            rows = torch.rand(4, 3, device=device).to(dtype).requires_grad_()
            every = joined.gather_rows(rows)
            torch.autograd.backward((every * torch.arange(12, device=device).view(4, 3)).sum())
            require(
                every.dtype == torch.float32 and torch.equal(every, rows.float()),
                f"gather_rows: {dtype} changed",
            )
            expected_gradient = torch.arange(12.0, device=device).view(4, 3)
            require(
                rows.grad is not None and torch.equal(rows.grad.float(), expected_gradient), "its gradient"
            )
        numbers = [0.1, -2.0, 2.0**53 + 2]
        require(
            bool((joined.sum(numbers) == alone.sum(numbers)).all()), "sum: other values, or not in float64"
        )
        parameters = [
            nn.Parameter(torch.rand(3, 2, device=device)),
            nn.Parameter(torch.rand(4, device=device)),
        ]
        parameters[0].grad = (before := torch.rand(3, 2, device=device)).clone()
        joined.average_gradients(parameters)
        require(torch.equal(parameters[0].grad, before), "average_gradients: a gradient changed")
        missing = parameters[1].grad
        require(
            missing is not None and not bool(missing.any()),
            "average_gradients: a missing gradient is not zero",
        )
        joined.barrier()
    figures["dtypes"] = len(sent)


def _in_group(
    rank: int, jobs: list[tuple[FitJob, FitSpec]], device: str, store: str, environment: dict[str, str]
) -> None:
    """A worker of a group over gloo whose networks are on a device that all workers share."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    with group("gloo", Path(store), rank, 2):
        for one, how in jobs:
            fit(one, how, Distributed(device), device)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(
        0
    )  # a thread of PyTorch that waits for the interpreter now and then aborts a process that ends by itself


def two_workers_are_as_one(place: Place, figures: Figures) -> None:
    """A4: two processes on one device, over gloo, which unlike NCCL lets ranks share one: as alone, to 1e-5."""
    folder = place.new("workers")
    examples = write_examples(folder / "examples", ROWS, dev=10, noise=0.2, longest=15)
    jobs = []
    for name, method in IN_A_GROUP.items():
        how = toys(method)
        alone, together = (
            job(examples, folder / f"{name}-{workers}", keep_last=True) for workers in ("1", "2")
        )
        fit(alone, how, device=place.device)
        jobs.append((name, alone, together, how))
    work = [(together, how) for _, _, together, how in jobs]
    multiprocessing.set_forkserver_preload(["tests.training.toys"])
    arguments = (work, place.device, str(folder / "store"), dict(os.environ))
    mp.start_processes(_in_group, arguments, 2, start_method="forkserver")  # type: ignore[attr-defined,no-untyped-call]
    for name, alone, together, _ in jobs:
        require(history(together)[-1]["workers"] == 2, f"{name}: was trained by one worker")
        figures[name] = largest_difference(alone, together, 1e-5)


# -- A5, A6: precision and waiting ---------------------------------------------------------------------------------


@contextmanager
def precisions() -> Iterator[dict[str, set[str]]]:
    """The dtypes of what modules give, by class, while the block runs."""
    found: dict[str, set[str]] = {}

    def note(module: nn.Module, _: Any, output: Any) -> None:
        names = {
            str(each.dtype).removeprefix("torch.") for each in _tensors(output) if each.is_floating_point()
        }
        found.setdefault(type(module).__name__, set()).update(names)

    handle = register_module_forward_hook(note)
    try:
        yield found
    finally:
        handle.remove()


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    """All tensors of what a module gives; packed sequences are tuples, too."""
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, tuple):
        for each in output:
            yield from _tensors(each)


@contextmanager
def gradients_watched() -> Iterator[Counter[str]]:
    """Steps of optimisers while the block runs, and how many met a gradient that is not finite or not in float32."""
    found: Counter[str] = Counter()

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [
            p.grad for group_ in optimizer.param_groups for p in group_["params"] if p.grad is not None
        ]
        found["steps"] += 1
        found["not finite"] += not bool(torch.stack([g.isfinite().all() for g in gradients]).all())
        found["not float32"] += any(g.dtype != torch.float32 for g in gradients)

    handle = register_optimizer_step_pre_hook(look)
    try:
        yield found
    finally:
        handle.remove()


def write_texts(place: Place, folder: Path, rows: int, median: int = 40) -> str:
    """Examples of random texts and random labels of three classes."""
    labels = np.random.default_rng(place.seed).integers(0, 3, rows).astype(np.int32)
    texts = place.texts(rows, median)
    table = pa.table([np.arange(rows), texts, labels, ["train"] * rows], schema=EXAMPLES)
    Folder(str(folder)).write_table(table, "part-00000.parquet")
    return str(folder)


def transformer(place: Place, shape: str, **options: Any) -> Plugin:
    """An encoder of a shape that is trained whole."""
    return Plugin(name="transformer", model=place.network(shape), **{"max_length": 64, **options})


def training_methods(place: Place) -> dict[str, Plugin]:
    """The methods whose steps are looked at, with real networks."""
    weak = SMALL_WEAK if place.small else {"name": "bilstm"}
    # Every example hard or purified after the first epoch: all parts of a step are run.
    return {
        "cross_entropy": Plugin(name="cross_entropy"),
        "lane": Plugin(name="lane", views=["dropout"]),
        "noiseal": Plugin(
            name="noiseal", weak=weak, warmup_epochs=1, threshold="fixed", fixed_threshold=0.35, budget=0.0
        ),
    }


def bfloat16_is_finite(place: Place, figures: Figures) -> None:
    """A5: under autocast in bfloat16 nothing is float16, an LSTM computes in float32, and gradients of 20 steps are finite."""
    folder = place.new("bfloat16")
    batch, steps = (4, 5) if place.small else (32, 20)
    examples = write_texts(place, folder / "examples", batch * steps)
    precision = "auto" if place.cuda else "bfloat16"
    for name, method in training_methods(place).items():
        training = TrainingConfig(epochs=2, batch_size=batch, precision=precision)
        how = FitSpec(transformer(place, "minilm"), method, training, ("a", "b", "c"))
        with precisions() as dtypes, gradients_watched() as steps_found:
            fit(job(examples, folder / name), how, device=place.device)
        figures[name] = {
            "dtypes": {key: sorted(value) for key, value in sorted(dtypes.items())},
            **steps_found,
        }
        every = set().union(*dtypes.values())
        require("float16" not in every, f"{name}: something computes in float16: {figures[name]['dtypes']}")
        require(
            "bfloat16" in dtypes["Linear"],
            f"{name}: nothing computes in bfloat16: {sorted(dtypes['Linear'])}",
        )
        if name == "noiseal":
            require(dtypes["LSTM"] == {"float32"}, f"{name}: the LSTM computes in {sorted(dtypes['LSTM'])}")
        require(steps_found["steps"] >= 2 * steps, f"{name}: {steps_found['steps']} steps")
        bad = steps_found["not finite"] + steps_found["not float32"]
        require(bad == 0, f"{name}: {bad} steps with gradients that are not finite or not in float32")


def place_in_rayclean() -> str:
    """File and function of rayclean that runs at the moment, for a breakdown."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            return f"{path.relative_to(PACKAGE)}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


@contextmanager
def synchronisations() -> Iterator[Counter[str]]:
    """How often the CPU waits for the GPU while the block runs, by file and function."""
    found: Counter[str] = Counter()

    def count(message: Warning | str, *_: Any, **__: Any) -> None:
        if "synchroniz" in str(message):
            found[place_in_rayclean()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = count
        with _told_of_waiting() if torch.cuda.is_available() else nullcontext():
            yield found


def _note(found: Counter[str], after: list[Counter[str]], record: dict[str, Any]) -> None:
    """Keep what was counted up to the end of an epoch."""
    after.append(found.copy())


@contextmanager
def _told_of_waiting() -> Iterator[None]:
    """PyTorch warns whenever the CPU waits for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def waits_of_a_step(place: Place, figures: Figures) -> None:
    """A6: how often a step of a method waits for the device, in the second epoch, its review included."""
    folder = place.new("waits")
    batch, steps = (4, 4) if place.small else (32, 16)
    examples = write_texts(place, folder / "examples", batch * steps)
    counts: dict[str, float] = {}
    for name, method in training_methods(place).items():
        how = FitSpec(
            transformer(place, "tiny"), method, TrainingConfig(epochs=2, batch_size=batch), ("a", "b", "c")
        )
        after: list[Counter[str]] = []
        with synchronisations() as found:
            fit(
                job(examples, folder / name),
                how,
                device=place.device,
                on_epoch=functools.partial(_note, found, after),
                checkpoint_share=1e-9,
            )
        first, last = after
        second = {where: (count - first[where]) / steps for where, count in last.items()}
        counts[name] = sum(second.values())
        top = sorted(second.items(), key=lambda each: -each[1])[:15]
        figures[name] = {"per_step": counts[name], "where": {where: round(each, 2) for where, each in top}}
    figures["most"] = SYNCHRONISATIONS
    for name, per_step in counts.items():
        most = SYNCHRONISATIONS[name]
        require(per_step <= most, f"{name}: waits {per_step:.1f} times in a step, at most {most} expected")
    if not place.cuda:
        raise CheckSkippedError("no GPU that could be waited for")


# -- A9: memory ----------------------------------------------------------------------------------------------------


def peak_memory(place: Place, figures: Figures) -> None:
    """A9: two BERTs in training at 128 tokens, and five networks in inference, fit into 20 GB."""
    folder = place.new("memory")
    batch, steps = (4, 2) if place.small else (32, 6)
    examples = write_texts(place, folder / "examples", batch * steps, median=200)
    strong = transformer(place, "bert-base", max_length=128)
    weak = {**strong.model_dump(), "dropout": 0.2}
    method = Plugin(**{**training_methods(place)["noiseal"].model_dump(), "weak": weak})
    how = FitSpec(strong, method, TrainingConfig(epochs=2, batch_size=batch), ("a", "b", "c"))

    def measured(name: str, work: Callable[[], Any]) -> None:
        if place.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        work()
        if place.cuda:
            figures[name] = torch.cuda.max_memory_allocated() / GIB

    measured("training_gib", lambda: fit(job(examples, folder / "out"), how, device=place.device))
    networks = [build_encoder(strong, 3, seed=seed).eval().to(place.device) for seed in range(5)]
    tokenizer = networks[0].tokenizer(networks[0].config)
    texts = place.texts(40 if place.small else 4096, median=100)
    measured("inference_gib", lambda: infer(networks, tokenizer, texts, np.arange(len(texts)) % 5))
    for name, value in figures.items():
        require(value <= MOST_GIB, f"{name}: {value:.1f} of at most {MOST_GIB:g}")
    if not place.cuda:
        raise CheckSkippedError("no GPU whose memory could be measured")
