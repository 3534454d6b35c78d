"""The tables of docs/gpus.md, made from the results that somebody with a GPU has left in benchmarks/results/.

    python benchmarks/gpu_table.py        # print them; a test compares them with the page

Until there is a result, every row says so.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

RESULTS = Path(__file__).parent / "results"
RATES, CHECKS = RESULTS / "gpu.json", RESULTS / "gpu_checks.json"
NOT_YET = "not yet measured"

Result = dict[str, Any] | None


def read(path: Path) -> Result:
    """A result, or None where there is none."""
    return json.loads(path.read_text()) if path.exists() else None


def rates_table(result: Result) -> str:
    """Rates by `benchmarks/gpu.py`."""
    from benchmarks.gpu import BATCHES, CONCURRENCIES, SHAPES
    from benchmarks.train_overhead import METHODS_HERE

    figures = result["figures"] if result else {}
    rows = []
    for method in METHODS_HERE:
        for batch in BATCHES:
            found = figures.get("train", {}).get(method, {}).get(str(batch))
            text = NOT_YET if found is None else (
                f"{found['examples_per_second']:,.0f} examples/s, {found['ratio']:.2f} of a plain loop's time, kernels run "
                f"{100 * found['profile']['utilisation']:.0f} % of it"
            )  # fmt: skip
            rows.append((f"{method}, BERT-base, batch {batch}", text))
    parts = ("tokenizer, one thread", "tokenizer, all threads", "network", "together, one thread",
             "together, all threads", "together, three processes")  # fmt: skip
    for shape in SHAPES:
        found = figures.get("features", {}).get(shape, {})
        for part in parts:
            text = f"{found[part]:,.0f} rows/s" if part in found else NOT_YET
            rows.append((f"features, {shape}: {part}", text))
    for level in CONCURRENCIES:
        rate = figures.get("questions", {}).get(str(level))
        text = NOT_YET if rate is None else f"{rate:,.0f} questions/s"
        rows.append((f"SmolLM2-135M, {level} questions under way", text))
    return "\n".join(["| rate | " + gpu(result) + " |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])


def checks_table(result: Result) -> str:
    """Checks by `tests/gpu/device.py`, with how they ended."""
    from tests.gpu.device import CHECKS as KNOWN

    ends = result["checks"] if result else {}
    lines = ["| check | what holds | " + gpu(result) + " |", "|---|---|---|"]
    for check in KNOWN:
        end = ends.get(check.name)
        why = f": {end['reason']}" if end and "reason" in end else ""
        text = "not yet run" if end is None else end["outcome"] + why
        lines.append(f"| {check.name} | {check.title} | {text} |")
    return "\n".join(lines)


def gpu(result: Result) -> str:
    """The heading of a column: which GPU, and when."""
    if not result:
        return "on a GPU"
    names = result["machine"]["gpus"] or ["an unnamed GPU"]
    return f"{names[0]}, torch {result['versions']['torch']}, {result['date']}"


if __name__ == "__main__":
    print(rates_table(read(RATES)), checks_table(read(CHECKS)), sep="\n\n")
