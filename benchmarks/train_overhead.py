"""What rayclean's training loop costs beside a plain PyTorch loop with the same networks, losses and batches.

    python benchmarks/train_overhead.py [--small] [--steps 24] [--repetitions 3] [--device cpu]

For NoiseAL and LANE: milliseconds per optimiser step of `rayclean.training.loop.fit` against a loop that a careful person
writes without rayclean: the same encoders, the same batches of the same examples, the same `functional/` losses, AdamW,
clipping, linear schedule, and nothing else (no per-example state, no ids, no collectives, no checkpoints). The plain
loop has its tokens in memory. Half of NoiseAL's examples are clean and half hard, in both loops. Both run in one process,
repetitions interleaved, medians compared. Also: the share of a step that per-example state takes (what the method notes
and its copy to NumPy, gathering, finding the rows, updating, handing back), and the memory of the state of a million
examples against a plain inventory of what a method must remember, float32 per probability (NoiseAL 29, LANE 20 bytes per
example). All of this is of the second epoch's steps, from the start of one to the start of the next.

What happens between epochs is no part of a step and stands apart, in seconds per epoch and per example: `partition`, and
for NoiseAL `review`, the pass of all networks over all examples, with the share of it that goes into columns
(`review_columns`).
Run through Ray Train, a step is the same code in another process; its start-up is not part of a step.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import claim, write_result
from rayclean.artifacts import Folder
from rayclean.config import Plugin, TrainingConfig
from rayclean.functional import contrastive, losses, mixing
from rayclean.functional.margins import margin
from rayclean.functional.partition import Subset
from rayclean.methods import METHODS
from rayclean.methods.base import Method
from rayclean.methods.noiseal import NoiseAL
from rayclean.models.base import pad
from rayclean.models.loading import encoder_class
from rayclean.plugins import build_options, resolve
from rayclean.schema import EXAMPLES
from rayclean.training import steps
from rayclean.training.collectives import Collectives
from rayclean.training.job import DataSpec, FitJob, FitSpec, Selection
from rayclean.training.loop import fit
from rayclean.training.sampler import batches
from rayclean.training.state import ExampleState

STRONG = {"name": "transformer", "model": "minilm", "trainable": "all", "max_length": 64}
BATCH, CLASSES, WARMUP = 32, 6, 1
METHODS_HERE: dict[str, dict[str, Any]] = {
    "noiseal": {"weak": {"name": "bilstm"}, "warmup_epochs": WARMUP, "budget": 0.0},
    "lane": {"views": ["dropout"]},
}
INVENTORY = {"noiseal": 29, "lane": 20}


def write_examples(folder: Path, rows: int, seed: int) -> str:
    """Texts of common words, 5 to 40 of them, and random labels."""
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    words = np.array(
        "what who is the of in a was did how many name city first world war year country film".split()
    )
    texts = [" ".join(rng.choice(words, rng.integers(5, 40))) for _ in range(rows)]
    columns = {
        "example_id": np.arange(rows), "text": texts, "given_label": rng.integers(0, CLASSES, rows).astype(np.int32),
        "split": ["train"] * rows,
    }  # fmt: skip
    Folder(str(folder)).write_table(pa.table(columns, schema=EXAMPLES), "part-00000.parquet")
    return str(folder)


SPLIT = NoiseAL._split


def half_and_half(self: NoiseAL, state: Any) -> Any:
    """Split as ever, so that `partition` takes its time, but train on half clean and half hard examples."""
    SPLIT(self, state)
    return np.where(state["example_id"] % 2, Subset.HARD, Subset.CLEAN)


class Stopwatch:
    """Time of every step of `fit`, of what it does for per-example state in it, and of what lies between epochs."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.starts: list[float] = []
        self.epochs: list[int] = []
        self.state: list[float] = []
        """Of each step."""
        self.between: dict[str, dict[int, float]] = {}
        """Name -> epoch -> seconds."""
        self._undo: list[Any] = []
        self._copies = False

    def install(self, method: type[Method]) -> Any:
        """Wrap what a step begins with, what handles state and what lies between epochs; returns what undoes it."""
        self._replace(steps, "step_batch", self._begin)
        for owner, name in (
            (method, "observe"),
            (ExampleState, "take"),
            (ExampleState, "rows"),
            (Collectives, "gather"),
        ):
            self._replace(owner, name, self._state)
        self._replace(method, "seen", self._seen)
        self._replace(method, "partition", lambda function: self._apart("partition", 2, function))
        self._replace(steps, "review", lambda function: self._apart("review", 3, function))
        self._replace(method, "review", lambda function: self._apart("review_columns", 4, function))

        def undo() -> None:
            for put_back in reversed(self._undo):
                put_back()

        return undo

    def _replace(self, owner: Any, name: str, wrap: Any) -> None:
        own, before = name in vars(owner), getattr(owner, name)
        setattr(owner, name, wrap(before))
        self._undo.append(lambda: setattr(owner, name, before) if own else delattr(owner, name))

    def _begin(self, function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.starts.append(time.perf_counter())
            self.epochs.append(arguments[4])
            self.state.append(0.0)
            return function(*arguments, **named)

        return call

    def _state(self, function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **named)
            if self.state:
                self.state[-1] += time.perf_counter() - start
            return result

        return call

    def _seen(self, function: Any) -> Any:
        """With the copies, which the loop makes right after and then finds done."""

        def noted(*arguments: Any) -> Any:
            found = {name: value.cpu() for name, value in function(*arguments).items()}
            self._copies = bool(found)
            return found

        timed = self._state(noted)

        def call(*arguments: Any) -> Any:
            if self._copies and self.device.startswith("cuda"):
                torch.cuda.synchronize()  # a copy waits for the forward passes, which are no part of the state
            return timed(*arguments)

        return call

    def _apart(self, name: str, place: int, function: Any) -> Any:
        """`place` of the epoch among the arguments."""

        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments)
            seconds = self.between.setdefault(name, {})
            epoch = arguments[place]
            seconds[epoch] = seconds.get(epoch, 0.0) + time.perf_counter() - start
            return result

        return call

    def figures(self, rows: int) -> dict[str, Any]:
        """Of the second epoch: the interval from its last step on has no end here, and no interval spans two epochs."""
        mine = np.array([epoch == 2 for epoch in self.epochs[:-1]])
        intervals, state = np.diff(self.starts)[mine], np.array(self.state[:-1])[mine]
        return {
            "milliseconds": float(np.median(intervals) * 1e3),
            "state_share": float(state.sum() / intervals.sum()),
            "between_epochs": {
                name: {"seconds_per_epoch": seconds[2], "seconds_per_example": seconds[2] / rows}
                for name, seconds in self.between.items()
            },
        }


def through_rayclean(name: str, examples: str, rows: int, seed: int, device: str) -> dict[str, Any]:
    """Median milliseconds of a step, the share of them that goes into state, and seconds between epochs."""
    watch = Stopwatch(device)
    NoiseAL._split = half_and_half  # type: ignore[method-assign]
    undo = watch.install(resolve("method", METHODS, name))
    try:
        with tempfile.TemporaryDirectory() as output:
            job = FitJob("overhead", DataSpec(examples), Selection(), seed, output)
            spec = FitSpec(
                Plugin(**STRONG), Plugin(name=name, **METHODS_HERE[name]),
                TrainingConfig(epochs=2, batch_size=BATCH), tuple("abcdef"),
            )  # fmt: skip
            fit(job, spec, device=device, checkpoint_share=1e-9)
    finally:
        undo()
    return watch.figures(rows)


def plain(name: str, examples: str, rows: int, seed: int, device: str) -> dict[str, float]:
    """The same steps without rayclean's loop."""
    table = Folder(examples).read_table("part-00000.parquet")
    texts, labels = (
        table["text"].to_pylist(),
        torch.from_numpy(table["given_label"].to_numpy().astype(np.int64)),
    )
    names = {"noiseal": ("strong", "weak"), "lane": ("main", "auxiliary")}[name]
    plugins = (Plugin(**STRONG), Plugin(name="bilstm") if name == "noiseal" else Plugin(**STRONG))
    torch.manual_seed(seed)
    networks, tokens, pads = {}, {}, {}
    for key, plugin in zip(names, plugins, strict=True):
        cls, options = encoder_class(plugin)
        networks[key] = cls(options, CLASSES).to(device).train()
        tokenizer = cls.tokenizer(options)
        tokens[key], _ = tokenizer(texts)
        pads[key] = tokenizer.pad_id
    groups = [{"params": list(n.parameters()), "lr": n.default_learning_rate} for n in networks.values()]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    lengths = np.array([len(t) for t in tokens[names[0]]])
    every = [batch for epoch in (1, 2) for batch in batches(rows, BATCH, seed, epoch, lengths)]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(every))
    subset = torch.full((rows,), int(Subset.HARD))
    subset[::2] = Subset.CLEAN
    times = []
    for positions in every:
        start = time.perf_counter()
        inputs = {
            k: {n: v.to(device) for n, v in pad([tokens[k][i] for i in positions], pads[k]).items()}
            for k in names
        }
        y = labels[positions].to(device)
        if name == "noiseal":
            total = _noiseal(networks, inputs, y, subset[positions].to(device))
        else:
            total = _lane(networks, inputs, y)
        total.backward()
        for network in networks.values():
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - start)
    return {"milliseconds": float(np.median(times[len(every) // 2 :]) * 1e3)}  # of the second epoch, as above


def _noiseal(networks: dict[str, nn.Module], inputs: Any, y: Tensor, subset: Tensor) -> Tensor:
    clean, hard = subset == Subset.CLEAN, subset == Subset.HARD
    said = {name: network(inputs[name]) for name, network in networks.items()}
    joint = torch.stack([logits.softmax(-1).detach() for _, logits in said.values()]).mean(0)
    targets = mixing.co_refined_target(y, joint.gather(1, y[:, None])[:, 0], joint)
    rows = hard.nonzero()[:, 0]
    partner = torch.arange(len(y), device=y.device)
    partner[rows] = rows[torch.randperm(len(rows), device=y.device)]
    weights = torch.full((len(y),), 0.7, device=y.device)
    total = torch.zeros((), device=y.device)
    for name, (features, logits) in said.items():
        total = total + losses.cross_entropy(logits, y).masked_fill(~clean, 0).mean()
        mixed = networks[name].classify(mixing.interpolate(features, features[partner], weights))  # type: ignore[operator]
        soft = losses.cross_entropy(mixed, mixing.interpolate(targets, targets[partner], weights))
        total = total + soft.masked_fill(~hard, 0).mean()
        again = {key: value[hard] for key, value in inputs[name].items()}
        longest = int(again["attention_mask"].sum(1).max())
        _, second = networks[name]({key: value[:, :longest] for key, value in again.items()})
        total = total + 0.3 * losses.symmetric_kl(logits[hard], second).sum() / len(y)
    return total


def _lane(networks: dict[str, nn.Module], inputs: Any, y: Tensor) -> Tensor:
    twice = {
        name: {key: value.repeat(2, 1) for key, value in batch.items()} for name, batch in inputs.items()
    }
    labels = y.repeat(2)
    features, logits = networks["main"](twice["main"])
    _, other = networks["auxiliary"](twice["auxiliary"])
    margin(logits[: len(y)].detach(), y)
    values, counted = contrastive.lscl(contrastive.pair(features, labels), other.softmax(-1))
    weighted = losses.cross_entropy(logits, labels).mean()
    return weighted + losses.cross_entropy(other, labels).mean() + values.sum() / counted.sum().clamp(min=1)


def state_bytes(name: str) -> float:
    """Bytes per example of a million examples' columns, as allocated."""
    cls = resolve("method", METHODS, name)
    method = cls(build_options("method", cls, {}), CLASSES)
    ids = np.arange(1_000_000)
    state = ExampleState(ids, np.zeros(len(ids), dtype=np.int64), method.state())
    return sum(column.nbytes for column in state.own.values()) / len(ids)


def between_epochs(runs: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians over the repetitions."""
    return {
        name: {unit: statistics.median(run[name][unit] for run in runs) for unit in units}
        for name, units in runs[0].items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a few steps, once")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    count = arguments.steps or (4 if arguments.small else 24)
    repetitions = arguments.repetitions or (1 if arguments.small else 3)
    figures: dict[str, Any] = {}
    claims = []
    with tempfile.TemporaryDirectory() as folder:
        examples = write_examples(Path(folder) / "examples", count * BATCH, arguments.seed)
        for name in METHODS_HERE:
            runs: dict[str, list[dict[str, Any]]] = {"rayclean": [], "plain": []}
            for repetition in range(repetitions):
                order = [("rayclean", through_rayclean), ("plain", plain)][
                    :: 1 if repetition % 2 == 0 else -1
                ]
                for label, run in order:
                    found = run(name, examples, count * BATCH, arguments.seed, arguments.device)
                    runs[label].append(found)
                    print(name, label, json.dumps(found), file=sys.stderr)
            median = {
                label: statistics.median(run["milliseconds"] for run in each) for label, each in runs.items()
            }
            ratio = median["rayclean"] / median["plain"]
            share = statistics.median(run["state_share"] for run in runs["rayclean"])
            per_example = state_bytes(name)
            figures[name] = {
                "median_milliseconds": median,
                "ratio": ratio,
                "state_share": share,
                "between_epochs": between_epochs([run["between_epochs"] for run in runs["rayclean"]]),
                "runs": runs,
            }
            figures[name]["state_bytes_per_example"] = per_example
            claims += [
                claim(f"{name}: step / plain step", goal="<= 1.05", measured=round(ratio, 3), holds=ratio <= 1.05),
                claim(f"{name}: state, share of the step", goal="< .02", measured=round(share, 4), holds=share < 0.02),
                claim(
                    f"{name}: bytes of state per example", goal=f"within 10 % of {INVENTORY[name]}",
                    measured=per_example, holds=abs(per_example / INVENTORY[name] - 1) <= 0.1,
                ),
            ]  # fmt: skip
    config = {
        "strong": STRONG,
        "methods": METHODS_HERE,
        "batch": BATCH,
        "steps": count,
        "repetitions": repetitions,
    }
    config["device"] = arguments.device
    write_result(__file__, config, arguments.seed, figures, claims, arguments.small)


if __name__ == "__main__":
    main()
