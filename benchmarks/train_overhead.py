"""What rayclean's training loop costs beside a plain PyTorch loop with the same networks, losses and batches.

    python benchmarks/train_overhead.py [--small] [--blocks 12] [--block 4] [--device cpu]

For NoiseAL and LANE: `rayclean.training.loop.fit` against a loop that a careful person writes without rayclean
(`benchmarks/plain_loop.py`): the same encoders, the same batches of the same examples in the same precision, the same
losses, AdamW, clipping and schedule. Half of NoiseAL's examples are clean and half hard, in both loops.

The two are paired: in the second epoch of `fit`, after every block of a few steps, the plain loop takes as many steps on
the very batches of that block, then `fit` goes on. So whatever else the machine does slows both alike. The first block
of both is left out; of the others the median of the ratios (time of the block / time of its pair) is compared with the
goal, and its quartiles say how much it is worth. On a GPU the device is waited for before and after every block.

Also: the share of a block that per-example state takes (what the method notes and its copy to NumPy, gathering, finding
the rows, updating, handing back), and the memory of the state of a million examples against a plain inventory of what a
method must remember, float32 per probability (NoiseAL 29, LANE 20 bytes per example). What happens between epochs is no
part of a step and stands apart, in seconds per epoch and per example: `partition`, and for NoiseAL `review`, the pass of
all networks over all examples, with the share of it that goes into columns (`review_columns`).

Last, without the plain loop, a few steps of `fit` under `torch.profiler`: the operators that take most time, and on a GPU
steps per second and the share of the wall time in which a kernel runs.

Run through Ray Train, a step is the same code in another process; its start-up is not part of a step.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import claim, write_result
from benchmarks.plain_loop import CLASSES, STRONG, PlainLoop
from benchmarks.stopwatch import Profile, Stopwatch
from rayclean.config import Plugin, TrainingConfig
from rayclean.folder import Folder
from rayclean.functional.partition import Subset
from rayclean.methods import METHODS
from rayclean.methods.noiseal import NoiseAL
from rayclean.schema import EXAMPLES
from rayclean.training.job import DataSpec, ExampleSelection, FitJob, FitSpec
from rayclean.training.loop import fit
from rayclean.training.state import ExampleState

BATCH, WARMUP = 32, 1
LEFT_OUT = 1
"""Blocks at the beginning that are run and not counted."""
METHODS_HERE: dict[str, dict[str, Any]] = {
    "noiseal": {"weak": {"name": "bilstm"}, "warmup_epochs": WARMUP, "budget": 0.0},
    "lane": {"views": ["dropout"]},
}
WORDS = "what who is the of in a was did how many name city first world war year country film".split()
INVENTORY = {"noiseal": 29, "lane": 20}


def write_examples(folder: Path, rows: int, seed: int, words: Sequence[str] = WORDS) -> str:
    """Texts of 5 to 40 of some words, and random labels."""
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(np.array(words), rng.integers(5, 40))) for _ in range(rows)]
    columns = {
        "example_id": np.arange(rows), "text": texts, "given_label": rng.integers(0, CLASSES, rows).astype(np.int32),
        "split": ["train"] * rows,
    }  # fmt: skip
    Folder(str(folder)).write_table(pa.table(columns, schema=EXAMPLES), "part-00000.parquet")
    return str(folder)


SPLIT: Callable[..., Any] = NoiseAL._split


def half_and_half(self: NoiseAL, state: Any) -> Any:
    """Split as ever, so that `partition` takes its time, but train on half clean and half hard examples."""
    SPLIT(self, state)
    return np.where(state["example_id"] % 2, Subset.HARD, Subset.CLEAN)


def state_bytes(name: str) -> float:
    """Bytes per example of a million examples' columns, as allocated."""
    method = METHODS.build(Plugin(name=name), CLASSES)
    ids = np.arange(1_000_000)
    state = ExampleState(ids, np.zeros(len(ids), dtype=np.int64), method.state())
    return sum(column.nbytes for column in state.own.values()) / len(ids)


@dataclass(frozen=True)
class Workload:
    """What is trained: a method, on examples, with networks of an encoder."""

    method: str
    examples: str
    seed: int
    device: str
    strong: Mapping[str, Any] = field(default_factory=lambda: STRONG)
    """All networks but NoiseAL's weak one."""
    batch: int = BATCH


def fitted(work: Workload) -> None:
    """Two epochs of `fit`: a warm-up, and the one that is watched."""
    split, NoiseAL._split = NoiseAL._split, half_and_half  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as output:
            job = FitJob("overhead", DataSpec(work.examples), ExampleSelection(), work.seed, output)
            spec = FitSpec(
                Plugin(**work.strong), Plugin(name=work.method, **METHODS_HERE[work.method]),
                TrainingConfig(epochs=2, batch_size=work.batch), tuple("abcdef"),
            )  # fmt: skip
            fit(job, spec, device=work.device, checkpoint_share=1e-9)
    finally:
        NoiseAL._split = split  # type: ignore[method-assign]


def compared(work: Workload, block: int, blocks: int) -> dict[str, Any]:
    """Blocks of both loops, their ratios, the share of state, and seconds between epochs."""
    steps = (LEFT_OUT + blocks) * block
    other = PlainLoop(work.method, work.examples, steps, work.seed, work.device, work.strong)
    watch = Stopwatch(work.device, block, other.train)
    with watch.installed(METHODS.resolve(work.method)):
        fitted(work)
    pairs = watch.pairs[LEFT_OUT:]
    assert len(pairs) == blocks
    ratios = [pair.ours / pair.theirs for pair in pairs]
    return {
        "milliseconds_per_step": {
            "rayclean": statistics.median(pair.ours for pair in pairs) / block * 1e3,
            "plain": statistics.median(pair.theirs for pair in pairs) / block * 1e3,
        },
        "ratio": statistics.median(ratios),
        "ratio_quartiles": np.quantile(ratios, [0.25, 0.75]).tolist(),
        "ratios": ratios,
        "state_share": sum(pair.state for pair in pairs) / sum(pair.ours for pair in pairs),
        "between_epochs": watch.between_epochs(),
    }


def profiled(work: Workload, steps: int) -> dict[str, Any]:
    """Where the time of some steps of `fit` goes."""
    profile = Profile(work.device, steps)
    watch = Stopwatch(work.device, 0, None, on_step=profile.step)
    with watch.installed(METHODS.resolve(work.method)):
        fitted(work)
    return profile.figures()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="two blocks of one step")
    parser.add_argument("--blocks", type=int, help="pairs of blocks that are counted")
    parser.add_argument("--block", type=int, help="steps per block")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", help="file of the result")
    arguments = parser.parse_args()
    cuda = arguments.device.startswith("cuda")
    blocks = arguments.blocks or (2 if arguments.small else 12)
    block = arguments.block or (1 if arguments.small else 20 if cuda else 4)
    steps = (LEFT_OUT + blocks) * block + 1  # a block ends where the next step begins
    figures: dict[str, Any] = {}
    claims = []
    with tempfile.TemporaryDirectory() as folder:
        examples = write_examples(Path(folder) / "examples", steps * BATCH, arguments.seed)
        for name in METHODS_HERE:
            work = Workload(name, examples, arguments.seed, arguments.device)
            found = compared(work, block, blocks)
            found["profile"] = profiled(work, min(steps - 2, 20))
            found["state_bytes_per_example"] = per_example = state_bytes(name)
            print(name, json.dumps(found), file=sys.stderr)
            figures[name] = found
            ratio, share, (low, high) = found["ratio"], found["state_share"], found["ratio_quartiles"]
            claims += [
                claim(
                    f"{name}: step / plain step, median of {blocks} pairs", goal="<= 1.05",
                    measured=f"{ratio:.3f} (quartiles {low:.3f} to {high:.3f})", holds=ratio <= 1.05,
                ),
                claim(f"{name}: state, share of the step", goal="< .02", measured=round(share, 4), holds=share < 0.02),
                claim(
                    f"{name}: bytes of state per example", goal=f"within 10 % of {INVENTORY[name]}",
                    measured=per_example, holds=abs(per_example / INVENTORY[name] - 1) <= 0.1,
                ),
            ]  # fmt: skip
    config = {"strong": STRONG, "methods": METHODS_HERE, "batch": BATCH, "blocks": blocks, "block": block}
    config["device"] = arguments.device
    write_result(__file__, config, arguments.seed, figures, claims, arguments.small, arguments.output)


if __name__ == "__main__":
    main()
