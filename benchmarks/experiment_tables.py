"""Claims judged over pairs of (set, seed), and the tables of what was measured.

`run_of(number of the set, arm, seed)` is what was measured of one run; None where an arm is not trained on that set.
"""

import itertools
import statistics
from collections.abc import Callable
from typing import Any

RunOf = Callable[[int, str, int], dict[str, Any] | None]


def arms_of(experiment: dict[str, Any], number: int) -> list[str]:
    """The arms trained on a set: all, unless it names some."""
    return list(experiment["sets"][number].get("arms", experiment["arms"]))


def label_of(chosen: dict[str, Any]) -> str:
    """A set with its noise."""
    noise = chosen.get("noise")
    return chosen["name"] + (f" {noise['kind']} {noise['rate']:g}" if noise else "")


def judge(experiment: dict[str, Any], run_of: RunOf, seeds: list[int]) -> list[dict[str, Any]]:
    """Every claim with its pairs and its verdict.

    A claim of `greater` and `smaller` has a pair per (set, seed): its difference. A claim of `grows` and `along` has one
    per two sets of a seed: by how much more the one is where the other is greater.
    """
    judged = []
    for one in experiment["claims"]:
        chosen = [
            n for n in range(len(experiment["sets"])) if n in one.get("sets", range(len(experiment["sets"])))
        ]
        if "grows" in one:
            pairs = _growths(one, run_of, chosen, seeds)
            about = {key: one[key] for key in ("grows", "along")}
        else:
            pairs = _differences(one, run_of, chosen, seeds)
            about = {key: one[key] for key in ("greater", "smaller")}
        mean = statistics.mean(pairs) if pairs else None
        agree = sum(pair > 0 for pair in pairs)
        by = one.get("by", 0.0)
        holds = mean is not None and mean > by and agree >= 2 / 3 * len(pairs)
        judged.append({
            "text": one["text"], "mean_difference": mean, "agree": agree, "pairs": len(pairs), "reproduced": holds,
            **about, "by": by,
        })  # fmt: skip
    return judged


def _differences(claim: dict[str, Any], run_of: RunOf, numbers: list[int], seeds: list[int]) -> list[float]:
    pairs = []
    for number in numbers:
        for seed in seeds:
            left, right = (_value(run_of, claim[side], number, seed) for side in ("greater", "smaller"))
            if left is not None and right is not None:
                pairs.append(left - right)
    return pairs


def _growths(claim: dict[str, Any], run_of: RunOf, numbers: list[int], seeds: list[int]) -> list[float]:
    """Of `grows` (the first value minus the second), from the set of smaller to that of greater `along`."""
    growths = []
    for seed in seeds:
        points = []
        for number in numbers:
            values = [_value(run_of, side, number, seed) for side in (*claim["grows"], claim["along"])]
            if None not in values:
                left, right, along = values
                points.append((along, left - right))
        for (_, less), (_, more) in itertools.combinations(sorted(points), 2):
            growths.append(more - less)
    return growths


def _value(run_of: RunOf, side: str | float, number: int, seed: int) -> Any:
    if not isinstance(side, str):
        return side
    arm, _, name = side.partition(".")
    run = run_of(number, arm, seed)
    return None if run is None else run.get(name)


def summary(experiment: dict[str, Any], run_of: RunOf, seeds: list[int]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds of every measure, per set and arm."""
    rows = []
    for number, chosen in enumerate(experiment["sets"]):
        for arm in arms_of(experiment, number):
            each = [run for seed in seeds if (run := run_of(number, arm, seed)) is not None]
            row: dict[str, Any] = {"set": label_of(chosen), "arm": arm}
            for name in each[0]:
                values = [run.get(name) for run in each]
                if all(isinstance(value, int | float) for value in values):
                    spread = statistics.stdev(values) if len(values) > 1 else 0.0
                    row[name] = [round(statistics.mean(values), 4), round(spread, 4)]
            rows.append(row)
    return rows


SHOWN = (
    "accuracy_best", "accuracy_last", "auc_quality", "auc_strong_max", "auc_weak_max", "auc_co_prediction_max",
    "auc_margin_co_prediction_max", "precision_clean_last", "recall_purified_last", "noise_answered_last", "noise_answers_last", "questions", "asked",
    "weight_wrong_last", "weight_right_last", "weight_mass_last",
)  # fmt: skip
"""Measures in the tables; all others stand in the JSON file. `asked` stands in older results instead of `questions`:
without those that the run's ledger answered."""


def markdown(figures: dict[str, Any]) -> str:
    """The tables: per experiment its claims, then mean +- standard deviation over the seeds."""
    lines = [
        "# Claims of the papers, at a small scale",
        "",
        "Mean ± standard deviation over seeds; made by `benchmarks/experiments.py`, nothing by hand.",
        "",
    ]
    for name, experiment in figures.items():
        lines += [
            f"## {name}: {experiment['title']}",
            "",
            f"Seeds {', '.join(map(str, seeds_of(experiment)))}; trained at "
            f"{', '.join(commit[:17] for commit in experiment['commit'])}.",
            "",
            "| claim | | mean difference | pairs that agree |",
            "|---|---|---|---|",
        ]
        for one in experiment["claims"]:
            verdict = "reproduced" if one["reproduced"] else "**not reproduced**"
            mean = "no pair" if one["mean_difference"] is None else f"{one['mean_difference']:+.4f}"
            lines.append(f"| {one['text']} | {verdict} | {mean} | {one['agree']} of {one['pairs']} |")
        columns = [measure for measure in SHOWN if any(measure in row for row in experiment["rows"])]
        lines += ["", f"| set | arm | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
        for row in experiment["rows"]:
            cells = [f"{row[c][0]:.3f} ± {row[c][1]:.3f}" if c in row else "" for c in columns]
            lines.append(f"| {row['set']} | {row['arm']} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def seeds_of(experiment: dict[str, Any]) -> list[int]:
    """The seeds whose runs an experiment's results hold."""
    return sorted({run["seed"] for run in experiment["runs"]})


def runs_of(experiment: dict[str, Any], run_of: RunOf, seeds: list[int]) -> list[dict[str, Any]]:
    """Every run with its course over the epochs, to four digits."""
    found = []
    for number, chosen in enumerate(experiment["sets"]):
        for arm in arms_of(experiment, number):
            for seed in seeds:
                if (measured := run_of(number, arm, seed)) is not None:
                    short = {key: _rounded(value) for key, value in measured.items()}
                    about = {"set": chosen["name"], "noise": chosen.get("noise"), "arm": arm, "seed": seed}
                    found.append({**about, **short})
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value
