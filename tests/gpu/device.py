"""Checks of a device (an NVIDIA GPU, or a CPU to prove the checks), with one JSON as their result. Pure PyTorch.

    python tests/gpu/device.py --output checks.json                    # on the GPU: nine minutes at most
    python tests/gpu/device.py --device cpu --small --output x.json    # here: a minute

Neither Ray nor vLLM, network or weights of models are needed: networks have random weights in the shapes of BERT-base and
MiniLM. To carry to a machine that has nothing of rayclean: this tree (`rayclean/`, `tests/`, `benchmarks/`), and of what
`pip download --no-deps` gives for its Python those of these packages that it lacks:

    pydantic, pydantic-core, annotated-types, typing-inspection, platformdirs, charset-normalizer, filelock, fsspec, rich

It must have Python 3.11 or later, torch >= 2.11, transformers >= 5.17 with tokenizers, safetensors, numpy, pyarrow, scipy,
scikit-learn. Then, in the root of the tree:

    pip install --no-index --no-deps --target site wheels/*.whl
    PYTHONPATH=site python tests/gpu/device.py --output checks.json

A check that raises does not stop the others. What there is no time for (`--limit-seconds`), or what this machine lacks, is
listed as skipped with the reason, never as passed. The result is written after every check, so that one which is cut off
holds what was finished. Exit code: 1 if a check failed.

Laid into `benchmarks/results/gpu_checks.json`, a result becomes the table in docs/gpus.md.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402

from benchmarks.common import commit, machine, versions  # noqa: E402
from tests.gpu import reading_checks, training_checks  # noqa: E402
from tests.gpu.place import Check, CheckSkippedError, Figures, Place  # noqa: E402

LIMIT_SECONDS = 540
PATIENCE = 4
"""A check that takes so many times its estimate hangs, and fails."""
SPARE_SECONDS = 20
"""By so much the last check may go over the limit before it fails."""

CHECKS = (
    Check("A1", "five methods train as on a CPU, in float32, to 1e-3", training_checks.same_on_device_and_cpu, 60),
    Check("A2", "a training stopped and gone on with, on either device, is as unbroken", training_checks.resumed_on_either_device, 40),
    Check("A3", "NCCL moves every dtype unchanged; a group of one is as no group", training_checks.collectives_of_one_rank, 15),
    Check("A4", "two workers on one device train as one does, to 1e-5", training_checks.two_workers_are_as_one, 60),
    Check("A5", "in bfloat16 nothing is float16, LSTMs are float32, gradients are finite", training_checks.bfloat16_is_finite, 25),
    Check("A6", "how often a step waits for the device is bounded", training_checks.waits_of_a_step, 20),
    Check("A9", "two BERTs in training and five in inference fit into 20 GB", training_checks.peak_memory, 25),
    Check("A10", "features in bfloat16 point where those in float32 do", reading_checks.features_in_bfloat16, 20),
    Check("A7", "steps of training beside a plain loop (rates)", reading_checks.training_rates, 120),
    Check("A8", "rows read by tokenizer, network and both (rates)", reading_checks.reading_rates, 120),
    Check("A11", "time of synonyms and of nearest demonstrations (rates)", reading_checks.views_and_demonstrations, 30),
)  # fmt: skip
"""In the order in which they run: those first that can say that something is wrong."""

Outcome = dict[str, Any]


def run_check(check: Check, place: Place, patience: float | None = None) -> Outcome:
    """How a check ended: `outcome` (passed, failed, skipped), its figures and seconds; `error` or `reason`.

    Args:
        check: which one.
        place: where.
        patience: seconds after which it is taken to hang; None: it may take any time.
    """
    figures: Figures = {}
    begin, end = time.monotonic(), {}
    try:
        with _given_up_after(patience):
            check.run(place, figures)
            place.wait()
        end["outcome"] = "passed"
    except CheckSkippedError as why:
        end |= {"outcome": "skipped", "reason": str(why)}
    except Exception as error:
        text = "".join(traceback.format_exception(error)[-12:])
        end |= {"outcome": "failed", "error": f"{type(error).__name__}: {error}", "traceback": text[-6000:]}
    return {"title": check.title, **end, "seconds": round(time.monotonic() - begin, 2), "figures": figures}


@contextmanager
def _given_up_after(seconds: float | None) -> Iterator[None]:
    """Raise TimeoutError in the block after some time; only the main thread can be stopped so."""
    if seconds is None:
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_checks(
    checks: Sequence[Check],
    place: Place,
    limit: float,
    done: Callable[[dict[str, Outcome]], None] = lambda ends: None,
) -> dict[str, Outcome]:
    """Run checks one after the other, as long as there is time for the next one.

    Args:
        checks: in this order.
        place: where.
        limit: seconds for all of them. A small run is not measured against the estimates of its checks.
        done: called after each check with what there is so far.
    """
    begin, ends = time.monotonic(), {}
    for check in checks:
        left = limit - (time.monotonic() - begin)
        if left < (1 if place.small else check.seconds):
            reason = f"{max(left, 0):.0f} s are left of --limit-seconds {limit:g}, it takes about {check.seconds} s"
            ends[check.name] = {"title": check.title, "outcome": "skipped", "reason": reason}
        else:
            ends[check.name] = run_check(check, place, min(PATIENCE * check.seconds, left + SPARE_SECONDS))
            if place.cuda:
                torch.cuda.empty_cache()
        done(ends)
        told = ends[check.name]
        line = f"{check.name:4} {told['outcome']:8} {told.get('seconds', 0):7.1f} s  {check.title}"
        print(line, told.get("error") or told.get("reason") or "", file=sys.stderr, flush=True)
    return ends


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny networks and few rows, for CPUs")
    parser.add_argument("--only", help="names of checks, with commas between")
    parser.add_argument("--limit-seconds", type=float, default=LIMIT_SECONDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("gpu_checks.json"))
    options = parser.parse_args(arguments)
    known = {check.name: check for check in CHECKS}
    names = options.only.split(",") if options.only else list(known)
    if unknown := set(names) - known.keys():
        parser.error(f"--only: unknown checks {sorted(unknown)}; known: {', '.join(known)}")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: PyTorch {torch.__version__} sees no GPU here")
    result: dict[str, Any] = {
        "device": options.device,
        "small": options.small,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit(),
        "machine": machine(),
        "versions": {**versions(), "torch": str(torch.__version__), "cuda": torch.version.cuda},
        "seed": options.seed,
        "limit_seconds": options.limit_seconds,
        "checks": {},
    }

    def write(ends: dict[str, Outcome]) -> None:
        result["checks"] = ends
        text = json.dumps(result, indent=1, ensure_ascii=False, default=str)
        part = options.output.with_suffix(".part")
        part.write_text(text + "\n")
        part.replace(options.output)

    if options.small:
        torch.set_num_threads(1)  # tiny tensors on several threads only wait for each other
    with (
        tempfile.TemporaryDirectory(prefix="rayclean-checks-") as folder,
        patch.dict(os.environ, RAYCLEAN_CACHE=str(Path(folder) / "cache")),
    ):
        place = Place(options.device, Path(folder), options.small, options.seed)
        ends = run_checks([known[name] for name in names], place, options.limit_seconds, write)
    print(options.output)
    return int(any(end["outcome"] == "failed" for end in ends.values()))


if __name__ == "__main__":
    # Under its own name: processes that it starts import this module again, and must find the same classes.
    from tests.gpu.device import main as run

    sys.exit(run())
