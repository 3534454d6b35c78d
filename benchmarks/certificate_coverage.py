"""Does a certificate keep its promise, what does it accept, and do the audit's intervals cover?

    python benchmarks/certificate_coverage.py            1,000 audits per setting (minutes) -> results/certificate_coverage.json
    python benchmarks/certificate_coverage.py --small    seconds, for the smoke test

Certificates: sets of 150 to 5,000 proposals, most confident first, whose precision is flat below the target, flat above it,
falling, good but for one bad block, or (the hardest, with four times the audits) just below the target in every nested set.
An audit answers truthfully, under a seed of its own. A certificate is violated when the accepted set is below the target.
Beside it, with the same budgets: `bonferroni`, one uniform sample and 20 exact tests at delta / 20, the largest set that
passes; `uniform`, one uniform sample and 20 exact tests at delta in fixed order from the top 30 %; `capped bets`, the nested
test with 25 capped betting fractions and a first set of a twentieth (fewer audits, one budget).

Audits: 50 suspects and 50 of all 1,000 examples under mixtures of noise inside and outside of the suspects.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from common import claim, write_result
from scipy.stats import hypergeom

from rayclean.functional.audit_rates import audit_rates, stratified_draw
from rayclean.functional.certificate import audit_permutation, certified_size, nested_sizes
from rayclean.functional.sequential_test import least_answers, needed_answers

TARGET, DELTA, STEPS = 0.95, 0.05, 20
SEED = 0
HARD_REPEATS = 4
"""So many times the audits where every set is just below the target: there the probability itself is nearly delta."""
SIZES, BUDGETS = (150, 500, 1500, 5000), (100, 200, 400)
BET_BUDGET = 200
PROFILES: dict[str, Callable[[Any], Any]] = {
    "flat below": lambda place: np.full_like(place, 0.93),
    "flat above": lambda place: np.full_like(place, 0.985),
    "falling": lambda place: 1 - 0.2 * place,
    "bad block": lambda place: np.where((place > 0.4) & (place < 0.5), 0.5, 0.99),
}
"""Precision at a place in the order of confidence, 0 (most confident) to 1."""
WORTH_ACCEPTING = ("flat above", "falling", "bad block")
AUDITS = (
    {"suspects": 100, "inside": 0.75, "outside": 0.43, "expected": 0.065, "systematic": True},
    {"suspects": 200, "inside": 0.9, "outside": 0.025, "expected": 0.025, "systematic": False},
    {"suspects": 200, "inside": 0.9, "outside": 0.025, "expected": 0.0, "systematic": False},
    {"suspects": 100, "inside": 0.9, "outside": 0.4, "expected": 0.4, "systematic": False},
    {"suspects": 100, "inside": 0.68, "outside": 0.076, "expected": 0.02, "systematic": None},
    {"suspects": 100, "inside": 0.1, "outside": 0.17, "expected": 0.01, "systematic": None},
    {"suspects": 100, "inside": 0.3, "outside": 0.0, "expected": 0.0, "systematic": False},
    {"suspects": 50, "inside": 1.0, "outside": 0.01, "expected": 0.01, "systematic": False},
)  # fmt: skip
"""Rates of wrong labels, what detection expects outside, and the verdict that is due (None: an audit of 100 may miss it)."""

Bools = npt.NDArray[np.bool_]


def too_many(sizes: Any) -> Any:
    """The fewest wrong proposals that put a set below the target."""
    return np.floor(np.asarray(sizes) * (1 - TARGET) + 1e-9).astype(int) + 1


def just_below(count: int, rng: np.random.Generator) -> Bools:
    """Every nested set holds just too many wrong proposals."""
    right, start, before = np.ones(count, dtype=np.bool_), 0, 0
    for size, wrong in zip(nested_sizes(count, STEPS), too_many(nested_sizes(count, STEPS)), strict=True):
        right[rng.choice(np.arange(start, size), wrong - before, replace=False)] = False
        start, before = size, wrong
    return right


def sampled_size(
    right: Bools, permutation: Any, budget: int, sizes: Any, delta: float, in_order: bool
) -> int:
    """The accepted size of exact tests on one uniform sample: the last before the first failure, or the largest."""
    drawn = np.sort(np.argsort(permutation)[:budget])
    seen = np.searchsorted(drawn, sizes)
    wrong = np.concatenate([[0], np.cumsum(~right[drawn])])[seen]
    passed = hypergeom.cdf(wrong, sizes, too_many(sizes), seen) <= delta
    if in_order:
        passed = np.logical_and.accumulate(passed)
    return int(np.max(np.where(passed, sizes, 0)))


def capped_bets_size(right: Bools, permutation: Any, budget: int) -> int:
    """The nested test with capped bets: lambda_l = min(l / 26 / target, .98 / m_t), l = 1 ... 25, first set N / 20."""
    count, accepted = len(right), 0
    asked = np.zeros(count, dtype=np.bool_)
    for size in np.unique(np.round(np.linspace(count / STEPS, count, STEPS)).astype(int)):
        rows = np.argsort(permutation[:size])
        spent = asked.sum() + np.cumsum(~asked[rows])
        rows = rows[: max(int(np.searchsorted(spent, budget, side="right")), 0)]
        y = right[rows].astype(float)
        rest = (size * TARGET - np.concatenate([[0], np.cumsum(y)])[:-1]) / (size - np.arange(len(rows)))
        open_ = np.minimum(np.cumsum(rest > 1), 1) == 0
        bets = np.minimum((np.arange(1, 26) / 26 / TARGET)[:, None], 0.98 / np.maximum(rest, 1e-9))
        capital = np.cumprod(1 + bets * (y - rest), axis=1).mean(0)
        hits = np.flatnonzero(((capital >= 1 / DELTA) | (rest <= 0)) & open_)
        if not len(hits):
            return accepted
        asked[rows[: hits[0] + 1]] = True
        accepted = int(size)
    return accepted


def measure_certificates(count: int, profile: str, repeats: int) -> dict[str, Any]:
    """Violations, share accepted and answers used of every test and budget."""
    rng = np.random.default_rng([SEED, count, sorted([*PROFILES, "just below"]).index(profile)])
    rows, place = np.arange(count), (np.arange(count) + 0.5) / count
    nested = np.array(nested_sizes(count, STEPS))
    late = np.unique(np.round(np.linspace(0.3 * count, count, STEPS)).astype(int))
    budgets = [budget for budget in BUDGETS if budget < count] or [BUDGETS[0]]
    found: dict[tuple[str, int], list[tuple[bool, int, int]]] = {}
    for seed in range(repeats * (HARD_REPEATS if profile == "just below" else 1)):
        right = (
            just_below(count, rng)
            if profile == "just below"
            else rng.random(count) < PROFILES[profile](place)
        )
        permutation = audit_permutation(rows, seed)
        enough = np.cumsum(right) >= TARGET * (rows + 1) - 1e-9

        def note(who: str, budget: int, size: int, used: int, enough: Bools = enough) -> None:
            found.setdefault((who, budget), []).append((size > 0 and not enough[size - 1], size, used))

        for budget in budgets:
            done = certified_size(right, rows, permutation, TARGET, DELTA, budget, STEPS)
            note("certificate", budget, done.accepted, len(done.audited))
            if seed >= repeats:
                continue
            several = sampled_size(right, permutation, budget, nested, DELTA / len(nested), in_order=False)
            note("bonferroni", budget, several, budget)
            note(
                "uniform",
                budget,
                sampled_size(right, permutation, budget, late, DELTA, in_order=True),
                budget,
            )
        if BET_BUDGET in budgets and seed < repeats // 5:
            note("capped bets", BET_BUDGET, capped_bets_size(right, permutation, BET_BUDGET), BET_BUDGET)
    tests = [
        {
            "who": who,
            "budget": budget,
            "audits": len(audits),
            "violations": round(float(np.mean([row[0] for row in audits])), 4),
            "accepted": round(float(np.mean([row[1] for row in audits])) / count, 4),
            "answers": round(float(np.mean([row[2] for row in audits])), 1),
        }
        for (who, budget), audits in found.items()
    ]
    return {"proposals": count, "profile": profile, "tests": tests}


def measure_audit(setting: dict[str, Any], repeats: int, examples: int = 1000) -> dict[str, Any]:
    """Coverage and width of the audit's intervals, and how often it says "systematic"."""
    ids, quality, suspects = np.arange(examples), np.arange(examples) / examples, setting["suspects"]
    bad = round(setting["inside"] * suspects), round(setting["outside"] * (examples - suspects))
    true = {"noise": sum(bad) / examples, "found": bad[0] / sum(bad)}
    rng = np.random.default_rng(SEED)
    covered: dict[str, list[bool]] = {name: [] for name in true}
    widths: dict[str, list[float]] = {name: [] for name in true}
    said = []
    for seed in range(repeats):
        wrong = np.zeros(examples, dtype=np.bool_)
        wrong[rng.choice(suspects, bad[0], replace=False)] = True
        wrong[suspects + rng.choice(examples - suspects, bad[1], replace=False)] = True
        drawn = np.union1d(
            stratified_draw(ids[:suspects], quality[:suspects], 50, seed, "suspects"),
            stratified_draw(ids, quality, 50, seed, "random"),
        )
        rates = audit_rates(wrong[drawn], drawn < suspects, suspects, examples, setting["expected"])
        for name, value in true.items():
            rate = getattr(rates, name)
            covered[name].append(rate.low - 1e-9 <= value <= rate.high + 1e-9)
            widths[name].append(rate.high - rate.low)
        said.append(rates.systematic)
    figures: dict[str, Any] = {"due": setting["systematic"], "systematic": float(np.mean(said))}
    for name, value in true.items():
        figures[name] = {"true": round(value, 4), "coverage": float(np.mean(covered[name])), "width": round(float(np.mean(widths[name])), 4)}  # fmt: skip
    return {key: setting[key] for key in ("suspects", "inside", "outside", "expected")} | figures


def false_certificate(size: int) -> float:
    """The probability, exactly, that one set with just too many wrong proposals is certified: by (answers, wrong ones)."""
    bad = int(too_many(size))
    needed = np.array(needed_answers(size, TARGET, DELTA, size))
    chance, certified = np.zeros(len(needed) + 1), 0.0  # the last entry: too many wrong ones were seen
    chance[0] = 1.0
    for answers in range(1, size + 1):
        to_wrong = chance * np.clip((bad - np.arange(len(chance))) / (size - answers + 1), 0, 1)
        chance = chance - to_wrong
        chance[1:] += to_wrong[:-1]
        done = np.append(needed <= answers, False)
        certified += float(chance[done].sum())
        chance[done] = 0.0
    return round(certified, 5)


def least_figures() -> dict[str, Any]:
    """Answers that certify one set when so many are wrong."""
    wrong = (0, 1, 2, 5)
    return {
        "wrong": list(wrong),
        "exact_binomial": [least_answers(TARGET, DELTA, x) for x in wrong],
        "at_any_time": {str(n): [needed_answers(n, TARGET, DELTA, 5)[x] for x in wrong] for n in (150, 500, 5000, 100_000)},
    }  # fmt: skip


def mean_accepted(
    rows: list[dict[str, Any]], who: str, budget: int, only: Callable[[int], bool] = bool
) -> float:
    """Mean share accepted over the settings in which there is something to accept."""
    shares = [
        test["accepted"]
        for row in rows
        if row["profile"] in WORTH_ACCEPTING and only(row["proposals"])
        for test in row["tests"]
        if (test["who"], test["budget"]) == (who, budget)
    ]
    return float(np.mean(shares))


def claims_of(figures: dict[str, Any], repeats: int) -> list[dict[str, Any]]:
    rows, audits = figures["certificates"], figures["audits"]
    ours = [test for row in rows for test in row["tests"] if test["who"] == "certificate"]
    excess = [(test["violations"] - DELTA) / (DELTA * (1 - DELTA) / test["audits"]) ** 0.5 for test in ours]
    worst = max(test["violations"] for test in ours)
    exact = max(figures["false_certificate"].values())
    over = max(test["answers"] - test["budget"] for test in ours)
    result = [
        claim(f"false certificates in the worst of {len(ours)} settings and budgets ({worst} of the audits), standard errors above delta", goal="<= 2", measured=round(max(excess), 2), holds=max(excess) <= 2),
        claim("probability of a false certificate of one set, computed exactly, worst size", goal=f"<= {DELTA}", measured=exact, holds=exact <= DELTA),
        claim("mean answers used beyond the budget", goal="<= 0", measured=round(over, 1), holds=over <= 0),
    ]  # fmt: skip
    for budget in sorted({test["budget"] for test in ours}):
        shares = {
            who: round(mean_accepted(rows, who, budget), 3)
            for who in ("certificate", "bonferroni", "uniform")
        }
        best = max(shares["bonferroni"], shares["uniform"])
        text = f"share accepted with {budget} answers, beside Bonferroni and one uniform sample"
        result.append(claim(text, goal=f">= {best}", measured=shares, holds=shares["certificate"] >= best))
    bets = mean_accepted(rows, "capped bets", BET_BUDGET), mean_accepted(rows, "certificate", BET_BUDGET)
    result.append(
        claim(f"share accepted with {BET_BUDGET} answers, beside capped bets from the top twentieth", goal=f">= {bets[0]:.3f}", measured=round(bets[1], 3), holds=bets[1] >= bets[0])
    )  # fmt: skip
    least = figures["least_answers"]["exact_binomial"]
    result.append(claim("answers for a precision of .95 with 0, 1, 2, 5 wrong ones, exact binomial test", goal="59, 93, 124, 208", measured=least, holds=least == [59, 93, 124, 208]))  # fmt: skip
    below = 0.95 - 2 * (0.95 * 0.05 / repeats) ** 0.5
    for name, text in (("noise", "noise rate"), ("found", "share of wrong labels found")):
        lowest = min(row[name]["coverage"] for row in audits)
        result.append(claim(f"coverage of the audit's interval of the {text}, worst setting", goal=f">= {below:.3f}", measured=lowest, holds=lowest >= below))  # fmt: skip
    missed = min(row["systematic"] for row in audits if row["due"])
    alarms = max(row["systematic"] for row in audits if row["due"] is False)
    result.append(claim("systematic noise is called so, worst setting", goal=">= 0.9", measured=missed, holds=missed >= 0.9))  # fmt: skip
    result.append(claim("noise that detection sees or expects is called systematic, worst setting", goal="<= 0.1", measured=alarms, holds=alarms <= 0.1))  # fmt: skip
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--output")
    options = parser.parse_args()
    repeats = 50 if options.small else 1000
    sizes = (150, 500) if options.small else SIZES
    began = time.process_time()
    figures: dict[str, Any] = {
        "least_answers": least_figures(),
        "false_certificate": {str(n): false_certificate(n) for n in (20, 60, 100, 150, 500, 2000)},
        "certificates": [],
        "audits": [],
    }
    for count in sizes:
        for profile in (*PROFILES, "just below"):
            figures["certificates"].append(measure_certificates(count, profile, repeats))
            print(json.dumps(figures["certificates"][-1]), file=sys.stderr, flush=True)
    for setting in AUDITS:
        figures["audits"].append(measure_audit(setting, repeats))
        print(json.dumps(figures["audits"][-1]), file=sys.stderr, flush=True)
    figures["cpu_s"] = round(time.process_time() - began, 1)
    config = {"target": TARGET, "delta": DELTA, "steps": STEPS, "sizes": sizes, "budgets": BUDGETS, "repeats": repeats, "profiles": [*PROFILES, "just below"]}  # fmt: skip
    write_result(__file__, config, SEED, figures, claims_of(figures, repeats), options.small, options.output)


if __name__ == "__main__":
    main()
