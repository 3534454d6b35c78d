"""What simulated annotators do to labels: believed blindly, and judged by the posterior and their control questions.

    python benchmarks/judgement.py [--small] [--output FILE]

Synthetic suspects: a share of the suggestions is right (exactly on average), for some of the rest neither label is right;
the posterior's log-odds lp are off in scale and know of the right ones, or nothing. Annotators answer suspects and 150
control questions with the same accuracy; where neither label is right they guess. Every cell is drawn under several seeds.
Figures are shares of the suspects: how many of their labels are wrong before, and after

* `blind`: every answer believed;
* `controls alone`: nothing where the annotator is not surely better than chance, else changed where P >= .6;
* `one rate`: and nothing unless answers for the suggestion are more than were no suggestion right;
* `judge`: the rule (`decide`) of `rayclean/functional/decision.py`, whose gate asks whether most changes are right;
* `told`: the same, told for how many suspects neither label is right (where that is known, as from an audit).

Beside them: annotators that are .1 worse on suspects than on their control questions, which only an audit can see, and
what is left of an annotator's accuracy by ways to remove a bias.
"""

import argparse
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, logit
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import claim, write_result
from rayclean.functional.decision import (
    Decision,
    Gate,
    decide,
    fit_scale,
    suggestion_probability,
)
from rayclean.functional.worth import Worth, marginal_bias

ACCURACIES = (0.5, 0.65, 0.8, 0.9)
SUSPECTS = (100, 400)
RIGHT = (0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)
"""Share of the suggestions that are right; real sets have .02 to .85."""
INFORMED = (0.0, 1.5)
"""Log-odds of being right per standard deviation of lp."""
NEITHER = (0.0, 0.3)
"""Share of the suspects whose suggestion is not right that have a third label."""
CONTROLS, ACCEPT, SUSPECTS_OF_ALL = 150, 0.6, 0.1
RULES = ("blind", "controls alone", "one rate", "judge", "told")


def suspects(
    rng: np.random.Generator, number: int, right: float, informed: float, neither: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-odds lp [B] (mean -3: the posterior believes too much), whether the suggestion is right, and whether neither label is."""
    known = rng.normal(size=number)
    odds = logit(right) * np.sqrt(
        1 + 0.35 * informed**2
    )  # keeps the share of right suggestions for any `informed`
    is_right = rng.random(number) < expit(odds + informed * known)
    return 1.5 * known - 3, is_right, ~is_right & (rng.random(number) < neither)


def answers(
    rng: np.random.Generator, is_right: np.ndarray, is_neither: np.ndarray, accuracy: float
) -> np.ndarray:
    """[B] 1 for the suggestion, 0 for the given label."""
    share = np.where(is_right, accuracy, np.where(is_neither, 0.5, 1 - accuracy))
    return (rng.random(len(share)) < share).astype(np.int64)


def changes(lp: np.ndarray, answer: np.ndarray, right: int, neither: float) -> dict[str, np.ndarray]:
    """Whether each rule changes each label [B]; `right` control questions were answered rightly, and neither label is right
    for the share `neither`.
    """
    worth, given, suggested = Worth(right, CONTROLS), np.zeros_like(answer), np.ones_like(answer)
    judged = decide(lp, given, suggested, answer, worth, ACCEPT)
    changed = judged.decision == Decision.CHANGED
    if judged.gate == Gate.POSTERIOR_ALONE:
        return {"blind": answer == 1, **dict.fromkeys(RULES[1:], changed)}
    likely = suggestion_probability(lp, answer, worth.lower, fit_scale(lp, answer, worth.lower)) >= ACCEPT
    one_rate = likely & (binom.sf(int(answer.sum()) - 1, len(answer), 1 - worth.lower) <= 0.05)
    told = decide(lp, given, suggested, answer, worth, ACCEPT, neither).decision == Decision.CHANGED
    return {
        "blind": answer == 1,
        "controls alone": likely,
        "one rate": one_rate,
        "judge": changed,
        "told": told,
    }


def wrong_labels_added(changed: np.ndarray, is_right: np.ndarray, is_neither: np.ndarray) -> float:
    """Harmed less repaired, as a share of the suspects."""
    return float(np.mean(changed & ~is_right & ~is_neither) - np.mean(changed & is_right))


def cell(
    accuracy: float,
    number: int,
    right: float,
    informed: float,
    neither: float,
    seeds: int,
    worse: float = 0.0,
) -> dict[str, Any]:
    """Wrong labels before and added by each rule, over the seeds."""
    before, added = [], {rule: list[float]() for rule in RULES}
    for seed in range(seeds):
        rng = np.random.default_rng(
            [seed, number, *(round(1000 * x) for x in (accuracy, right, informed, neither))]
        )
        lp, is_right, is_neither = suspects(rng, number, right, informed, neither)
        answer = answers(rng, is_right, is_neither, max(0.5, accuracy - worse))
        controls = int(rng.binomial(CONTROLS, accuracy))
        before.append(float(np.mean(is_right | is_neither)))
        for rule, changed in changes(lp, answer, controls, neither * (1 - right)).items():
            added[rule].append(wrong_labels_added(changed, is_right, is_neither))
    return {
        "accuracy": accuracy, "suspects": number, "right": right, "informed": informed, "neither": neither,
        "wrong_before": round(float(np.mean(before)), 4),
        "mean_added": {rule: round(float(np.mean(x)), 4) for rule, x in added.items()},
        "p95_added": {rule: round(float(np.quantile(x, 0.95)), 4) for rule, x in added.items()},
        "above_limit": {rule: float(np.mean(np.array(x) * SUSPECTS_OF_ALL > 0.003)) for rule, x in added.items()},
    }  # fmt: skip


def bias_removed(seeds: int) -> list[dict[str, Any]]:
    """Accuracy over both labels of an annotator of .84 on suspects that are all of class 0, by how its bias is removed.

    `share` of the suggestions (label 1) are right, and the model believes them right too rarely by `off` in log-odds. Control
    questions are 150, of both classes alike.
    """
    rows = []
    for share, off, bias in product((0.15, 0.5, 0.85), (0.0, 3.0), (0.0, 3.0)):
        found: dict[str, list[float]] = {}
        for seed in range(seeds):
            rng = np.random.default_rng([seed, round(100 * share), round(off), round(bias)])
            prior = expit(logit(share) + rng.normal(0, 0.5, 300))
            truth, controls = (rng.random(300) < prior).astype(int), np.repeat([0, 1], CONTROLS // 2)
            believed = expit(logit(prior) - off)
            belief = np.stack([1 - believed, believed], axis=1)
            pairs, known = np.tile([0, 1], (300, 1)), np.tile([0, 1], (CONTROLS, 1))
            asked, checked = (
                np.stack([np.zeros(len(x)), rng.normal(np.where(x == 1, 2.0, -2.0), 2.0) + bias], axis=1)
                for x in (truth, controls)
            )
            removed = {
                "raw": np.zeros(2),
                "flat marginal": asked.mean(axis=0),
                "marginal of scores": marginal_bias(asked - np.log(belief), pairs, belief, 2),
                "marginal_bias of suspects": marginal_bias(asked, pairs, belief, 2),
                "marginal_bias of controls": marginal_bias(checked, known, np.full((CONTROLS, 2), 0.5), 2),
            }
            for name, each in removed.items():
                chosen = (asked - each).argmax(axis=1)
                right = np.mean([np.mean(chosen[truth == label] == label) for label in (0, 1)])
                found.setdefault(name, []).append(float(right))
        means = {name: round(float(np.mean(x)), 3) for name, x in found.items()}
        rows.append({"share": share, "off": off, "bias": bias, "accuracy": means})
    return rows


def table(cells: list[dict[str, Any]]) -> str:
    """Share of the suspects with a wrong label, before and after, by accuracy and share of right suggestions: means, and in
    brackets how many each rule adds at most (in the worst cell, in 95 % of the seeds).
    """
    lines = [f"{'accuracy':>8} {'right':>6} {'before':>7}  " + "  ".join(f"{rule:>14}" for rule in RULES)]
    for accuracy, right in product(ACCURACIES, RIGHT):
        rows = [row for row in cells if (row["accuracy"], row["right"]) == (accuracy, right)]
        if not rows:
            continue
        before = np.mean([row["wrong_before"] for row in rows])
        means = [before + np.mean([row["mean_added"][rule] for row in rows]) for rule in RULES]
        most = [max(row["p95_added"][rule] for row in rows) for rule in RULES]
        parts = "  ".join(f"{mean:>6.3f} ({high:+.2f})" for mean, high in zip(means, most, strict=True))
        lines.append(f"{accuracy:>8} {right:>6} {before:>7.3f}  {parts}")
    return "\n".join(lines)


def columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows as columns, which take less room; dicts become columns of their own."""
    first = rows[0]
    return {
        name: columns([row[name] for row in rows])
        if isinstance(first[name], dict)
        else [row[name] for row in rows]
        for name in first
    }


def repairs_kept(cells: list[dict[str, Any]], rule: str) -> float:
    """Least share of blind belief's net repairs that a rule makes, where .35 or more are right and accuracy is .9."""
    rows = [row["mean_added"] for row in cells if row["accuracy"] == 0.9 and row["right"] >= 0.35]
    return min(row[rule] / row["blind"] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="few cells and seeds")
    parser.add_argument("--output", help="file of the result")
    arguments = parser.parse_args()
    seeds = 5 if arguments.small else 30
    shares, numbers = (RIGHT[::3], SUSPECTS[:1]) if arguments.small else (RIGHT, SUSPECTS)
    grid = [*product(ACCURACIES, numbers, shares, INFORMED, NEITHER)]
    cells = [cell(*each, seeds) for each in grid]
    worse = [cell(*each, seeds, worse=0.1) for each in grid if each[0] > 0.6 and each[3]]
    biases = bias_removed(4 if arguments.small else 20)
    print(table(cells), table(worse), sep="\n\nAnnotators .1 worse on suspects than on their controls:\n")
    means = {rule: max(row["mean_added"][rule] for row in cells) for rule in RULES}
    beyond = {rule: float(np.mean([row["above_limit"][rule] for row in cells])) for rule in RULES}
    kept = {rule: repairs_kept(cells, rule) for rule in RULES[1:]}
    blind, judged = ([row["mean_added"][rule] for row in cells] for rule in ("blind", "judge"))
    least = {name: min(row["accuracy"][name] for row in biases) for name in biases[0]["accuracy"]}
    claims = [
        claim("noise added in the worst cell, mean over seeds, of all labels where suspects are a tenth",
              goal="<= .003", measured={rule: round(SUSPECTS_OF_ALL * x, 4) for rule, x in means.items()},
              holds=SUSPECTS_OF_ALL * means["judge"] <= 0.003),
        claim("draws in which `judge` adds more than .003 noise", goal="<= .01, and fewer than without its gates",
              measured={rule: round(x, 4) for rule, x in beyond.items()},
              holds=beyond["judge"] <= 0.01 and beyond["judge"] < min(beyond["controls alone"], beyond["one rate"])),
        claim("share of blind belief's repairs, accuracy .9, in the worst cell with .35 or more right", goal=">= .9",
              measured={rule: round(x, 3) for rule, x in kept.items()}, holds=kept["judge"] >= 0.9),
        claim("wrong labels added over all cells, share of the suspects", goal="fewer than believed blindly",
              measured={"blind": round(float(np.mean(blind)), 3), "judge": round(float(np.mean(judged)), 3)},
              holds=np.mean(judged) < np.mean(blind)),
        claim("accuracy over both labels of an annotator of .84, whatever its bias and the suspects", goal=">= .83",
              measured=least, holds=least["marginal_bias of controls"] >= 0.83),
    ]  # fmt: skip
    config = {
        "accuracies": ACCURACIES, "suspects": numbers, "right": shares, "informed": INFORMED, "neither": NEITHER,
        "controls": CONTROLS, "accept": ACCEPT, "suspects_of_all": SUSPECTS_OF_ALL,
    }  # fmt: skip
    figures = {"cells": columns(cells), "worse_on_suspects": columns(worse), "bias_removed": columns(biases)}
    write_result(__file__, config, list(range(seeds)), figures, claims, arguments.small, arguments.output)


if __name__ == "__main__":
    main()
