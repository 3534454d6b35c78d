"""Every figure of `metrics.json`: a function of named facts, and the names of the facts that it needs.

A metric is null where one of its facts is missing (no truth, no test split, no answer) or where it is
undefined (the ROC-AUC of one class). Rates of the data are exact for the examples whose truth is known; the
intervals in `intervals` say how far they carry over to more data of the same kind.

References: Clopper and Pearson, Biometrika 26, 1934 (intervals); Guo et al., ICML 2017 (calibration error).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

from rayclean.annotations import DECISIONS, SuspectRanking
from rayclean.evaluation.counts import RunCounts
from rayclean.functional.calibration import expected_calibration_error
from rayclean.functional.types import Bools, Floats

RELIABILITY_BINS = 10
"""Equal-width bins of confidence."""
TOP_SHARE = 0.1
"""`precision_at_10` looks at this share of the examples, the lowest qualities."""
SYSTEMATIC_BELOW = 0.7
"""A ROC-AUC of detection below this means that the model repeats the errors it was trained on."""


def binomial_interval(successes: int, trials: int) -> list[float] | None:
    """95 % Clopper-Pearson interval of a rate; None without trials.

    >>> [round(end, 4) for end in binomial_interval(5, 10)]
    [0.1871, 0.8129]
    """
    if not trials:
        return None
    low, high = scipy.stats.binomtest(successes, trials).proportion_ci(method="exact")
    return [float(low), float(high)]


def rate(successes: int, trials: int) -> float | None:
    """Successes / trials; None without trials."""
    return successes / trials if trials else None


def roc_auc(quality: Floats, wrong: Bools) -> float | None:
    """ROC-AUC of minus the quality for "the given label is wrong"; None where only one class occurs.

    >>> roc_auc(np.array([-.1, -.4, -.35, -.8]), np.array([False, False, True, True]))
    0.75
    """
    from sklearn.metrics import roc_auc_score  # takes a second, and every command imports this module

    return float(roc_auc_score(wrong, -quality)) if 0 < int(wrong.sum()) < len(wrong) else None


def average_precision(quality: Floats, wrong: Bools) -> float | None:
    """Area under precision over recall; None where no label is wrong."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(wrong, -quality)) if wrong.any() else None


def precision_at(quality: Floats, wrong: Bools, count: int) -> float | None:
    """Share of wrong labels among the `count` lowest qualities; of ties at the last place a proportional part
    counts.

    >>> precision_at(np.array([0.1, 0.2, 0.2, 0.9]), np.array([True, True, False, False]), 2)
    0.75
    """
    count = min(count, len(quality))
    if not count:
        return None
    edge = np.partition(quality, count - 1)[count - 1]
    below, tied = quality < edge, quality == edge
    share = (count - int(below.sum())) / int(tied.sum())
    return float((wrong[below].sum() + share * wrong[tied].sum()) / count)


def reliability_curve(confidence: Floats, correct: Bools) -> list[dict[str, Any]]:
    """Per equal-width bin of confidence that holds answers: its edges, their number, mean confidence and
    accuracy.
    """
    bins = RELIABILITY_BINS
    index = np.minimum((confidence.astype(np.float64) * bins).astype(np.int64), bins - 1)
    rows = []
    for number in np.unique(index).tolist():
        inside = index == number
        rows.append({
            "low": number / bins, "high": (number + 1) / bins, "count": int(inside.sum()),
            "confidence": float(confidence[inside].mean()), "accuracy": float(correct[inside].mean()),
        })  # fmt: skip
    return rows


class Metric(NamedTuple):
    """A figure of `metrics.json`."""

    function: Callable[..., Any]
    """Computes it from the facts that it needs."""
    needs: tuple[str, ...]
    """Names of the facts, which are the arguments of `function`."""


def _of_answers(function: Callable[[Floats, Bools], Any]) -> Callable[[SuspectRanking], Any]:
    """A function of (confidence, correct) over answered suspects whose truth is one of the candidates."""

    def metric(suspects: SuspectRanking) -> Any:
        rows = (suspects.chosen >= 0) & suspects.among_candidates()
        if not rows.any():
            return None
        return function(suspects.confidence[rows], suspects.chosen[rows] == suspects.truth[rows])

    return metric


def _accuracy_all(suspects: SuspectRanking) -> float | None:
    rows = (suspects.chosen >= 0) & (suspects.truth >= 0)
    return rate(int((suspects.chosen[rows] == suspects.truth[rows]).sum()), int(rows.sum()))


def _truth_among_candidates(suspects: SuspectRanking) -> float | None:
    return rate(int(suspects.among_candidates().sum()), int((suspects.truth >= 0).sum()))


def _by_split(counts: RunCounts) -> dict[str, Any]:
    return {
        split: {
            "examples": counter["examples"],
            "given": rate(counter["wrong_given"], counter["known"]),
            "final": rate(counter["wrong_final"], counter["known"]),
        }
        for split, counter in sorted(counts.by_split.items())
    }


def _detector(counts: RunCounts, name: str) -> dict[str, Any]:
    quality, wrong, votes = counts.quality(name), counts.wrong, counts.votes[name]
    return {
        "roc_auc": roc_auc(quality, wrong),
        "average_precision": average_precision(quality, wrong),
        "precision_at_budget": precision_at(quality, wrong, int(counts.suspect.sum())),
        "precision_at_10": precision_at(quality, wrong, round(TOP_SHARE * len(wrong))),
        "votes": votes["votes"],
        "precision_of_votes": rate(votes["wrong"], votes["known"]),
        "recall_of_votes": rate(votes["wrong"], int(wrong.sum())),
    }


def _outcomes(suspects: SuspectRanking) -> dict[str, int]:
    return {name: int(suspects.decided(name).sum()) for name in DECISIONS}


METRICS: dict[str, Metric] = {
    "noise.given": Metric(lambda t: rate(t.total("wrong_given"), t.total("known")), ("truth",)),
    "noise.final": Metric(lambda t: rate(t.total("wrong_final"), t.total("known")), ("truth",)),
    "noise.by_split": Metric(_by_split, ("counts",)),
    "noise.estimated": Metric(lambda value: value, ("estimated_noise_rate",)),
    "harm": Metric(lambda t: rate(t.total("harmed"), t.total("known") - t.total("wrong_given")), ("truth",)),
    "repaired": Metric(lambda t: rate(t.total("repaired"), t.total("wrong_given")), ("truth",)),
    "detection.roc_auc": Metric(lambda t: roc_auc(t.quality(), t.wrong), ("truth",)),
    "detection.average_precision": Metric(lambda t: average_precision(t.quality(), t.wrong), ("truth",)),
    "detection.precision_at_budget": Metric(lambda t: rate(t.total("suspects_wrong"), t.total("suspects_known")), ("truth",)),
    "detection.recall_at_budget": Metric(lambda t: rate(t.total("suspects_wrong"), t.total("wrong_given")), ("truth",)),
    "detection.precision_at_10": Metric(
        lambda t: precision_at(t.quality(), t.wrong, round(TOP_SHARE * len(t.wrong))), ("truth",)
    ),
    "detection.share": Metric(lambda t: rate(t.total("suspects"), t.total("examples")), ("counts",)),
    "detection.detectors": Metric(lambda t: {name: _detector(t, name) for name in t.detectors}, ("truth",)),
    "annotator.accuracy": Metric(_of_answers(lambda _, correct: float(correct.mean())), ("judged",)),
    "annotator.accuracy_all": Metric(_accuracy_all, ("judged",)),
    "annotator.truth_among_candidates": Metric(_truth_among_candidates, ("judged",)),
    "annotator.ece": Metric(
        _of_answers(lambda confidence, correct: expected_calibration_error(confidence, correct, RELIABILITY_BINS)),
        ("judged",),
    ),
    "annotator.reliability": Metric(_of_answers(reliability_curve), ("judged",)),
    "annotator.outcomes": Metric(_outcomes, ("suspects",)),
    "annotator.errors": Metric(lambda s: dict(sorted(s.error_kinds.items())), ("suspects",)),
}  # fmt: skip

INTERVALS: dict[str, tuple[str, str]] = {
    "noise.given": ("wrong_given", "known"),
    "noise.final": ("wrong_final", "known"),
    "harm": ("harmed", "clean"),
    "repaired": ("repaired", "wrong_given"),
    "detection.precision_at_budget": ("suspects_wrong", "suspects_known"),
    "detection.recall_at_budget": ("suspects_wrong", "wrong_given"),
}
"""Rates with an interval: counts of successes and trials."""


def compute(facts: Mapping[str, Any]) -> dict[str, Any]:
    """All metrics as nested plain values; null where a fact is missing or the metric is undefined.

    Args:
        facts: `counts` (`RunCounts`); `truth` (the same, None where no truth is known); `suspects`
            (`SuspectRanking`); `judged` (the same, None where the truth of none is known);
            `estimated_noise_rate` (None without confident learning).
    """
    result: dict[str, Any] = {}
    for name, metric in METRICS.items():
        values = [facts.get(need) for need in metric.needs]
        put_metric(result, name, None if any(value is None for value in values) else metric.function(*values))
    put_metric(result, "intervals", intervals(facts.get("truth")))
    return result


def intervals(counts: RunCounts | None) -> dict[str, list[float] | None]:
    """95 % intervals of `INTERVALS`."""
    if counts is None:
        return dict.fromkeys(INTERVALS)
    totals = counts.totals()
    totals["clean"] = totals["known"] - totals["wrong_given"]
    return {
        name: binomial_interval(totals[hits], totals[trials]) for name, (hits, trials) in INTERVALS.items()
    }


def put_metric(nested: dict[str, Any], name: str, value: Any) -> None:
    """Set `a.b.c` in nested dicts."""
    *parents, last = name.split(".")
    for part in parents:
        nested = nested.setdefault(part, {})
    nested[last] = value


def get_metric(nested: Mapping[str, Any], name: str) -> Any:
    """The value at `a.b.c` of nested dicts; None where there is none."""
    value: Any = nested
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def confusions(
    pairs: Mapping[tuple[int, int], int], names: list[str], limit: int = 20
) -> list[dict[str, Any]]:
    """The most frequent pairs of different labels, by name; ties are in the order of indices."""
    different = sorted((-count, first, second) for (first, second), count in pairs.items() if first != second)
    return [
        {"from": names[first], "to": names[second], "count": -negative}
        for negative, first, second in different[:limit]
    ]


def detection_curves(quality: Floats, wrong: Bools, points: int = 200) -> dict[str, npt.NDArray[np.float64]]:
    """ROC and precision-recall curves of "the given label is wrong", thinned out evenly to at most `points`
    thresholds.

    Args:
        quality: [M], lower = more likely wrong.
        wrong: [M], with both values.
        points: most points of a curve.

    Returns:
        `false_positive_rate`, `recall`, `precision`, [P] each, from the strictest threshold to the loosest.
    """
    from sklearn.metrics import roc_curve

    false_rate, recall, _ = roc_curve(wrong, -quality, drop_intermediate=False)
    thinned = np.unique(np.linspace(1, len(recall) - 1, points).astype(np.int64))  # the first doubts nothing
    false_rate, recall = false_rate[thinned], recall[thinned]
    hits, false = recall * wrong.sum(), false_rate * (~wrong).sum()
    return {"false_positive_rate": false_rate, "recall": recall, "precision": hits / (hits + false)}
