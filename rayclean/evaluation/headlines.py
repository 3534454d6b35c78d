"""The headline figures, each with what it means in plain words; the page and the terminal show the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rayclean.evaluation.formatting import (
    format_count,
    format_figure,
    format_interval,
    format_money,
    format_percent,
    referred_to_person,
)
from rayclean.evaluation.metrics import get_metric

NETWORKS = ("given", "cleaned", "true", "trained", "last")
"""Networks that are tested: on given, cleaned and true labels, and the one that the `train` verb wrote, as it
was after its best epoch and after its last."""


@dataclass(frozen=True)
class Headline:
    """One headline figure."""

    title: str
    """Name of the figure."""
    value: str
    """The figure as people read it."""
    brief: str
    """A few words for the terminal."""
    means: str
    """Its meaning, for somebody who has never heard of it."""
    aside: str = ""
    """An interval, or where the figure comes from."""


def headlines(metrics: Mapping[str, Any]) -> list[Headline]:
    """The headline figures that are known."""
    counts = metrics["counts"]
    known = [
        card for card in (_noise(metrics), _repaired(metrics), _harm(metrics), _accuracy(metrics)) if card
    ]
    changed = Headline(
        "Labels changed", format_count(counts["changed"]),
        f"of {counts['suspects']:,} doubted; {referred_to_person(counts)}",
        f"{counts['suspects']:,} of {counts['examples']:,} labels were doubted "
        f"({format_percent(metrics['detection']['share'])}); "
        f"{counts['changed']:,} of them {'was' if counts['changed'] == 1 else 'were'} changed, {referred_to_person(counts)}.",
        f"{counts['reverted']:,} reverted by hand" if counts["reverted"] else "",
    )  # fmt: skip
    alone = metrics["model_alone"]
    if any(judged["controls"]["asked"] for judged in metrics["judged"]):
        after = (
            ""
            if alone["noise"] is None
            else f"; {format_percent(alone['noise'])} of the labels would be wrong"
        )
        known.append(Headline(
            "Model alone", format_count(alone["changed"]), f"labels it would change if nobody were asked{after}",
            f"Labels that would change if nobody were asked{after}: what an annotator has to beat.",
        ))  # fmt: skip
    rest = [card for card in (_detection(metrics), _annotator(metrics), _cost(metrics)) if card]
    return [*known, changed, *rest]


def _noise(metrics: Mapping[str, Any]) -> Headline | None:
    given, final = (metrics["noise"][name] for name in ("given", "final"))
    if given is not None:
        return Headline(
            "Wrong labels", f"{format_percent(given)} → {format_percent(final)}", "before → after relabelling",
            "Share of wrong labels, before and after relabelling.", format_interval(metrics["intervals"]["noise.final"]),
        )  # fmt: skip
    audit = metrics["audit"]  # what a model estimates of its own errors is off by factors, and no headline
    if audit is None:
        return None
    before, after = audit["noise_before"], audit["noise_after"]
    return Headline(
        "Wrong labels, audited", f"{format_percent(before['value'])} → {format_percent(after['value'])}",
        "before → after relabelling, by the audit",
        f"Share of wrong labels before and after relabelling, by the answers of {', '.join(audit['auditors'])}.",
        f"after: {format_interval([after['low'], after['high']])}",
    )  # fmt: skip


def _repaired(metrics: Mapping[str, Any]) -> Headline | None:
    if metrics["repaired"] is None:
        return None
    counts = metrics["counts"]
    return Headline(
        "Repaired", format_percent(metrics["repaired"]), f"{counts['repaired']:,} of {counts['wrong_given']:,} wrong labels",
        f"{counts['repaired']:,} of {counts['wrong_given']:,} wrong labels were made right.",
        format_interval(metrics["intervals"]["repaired"]),
    )  # fmt: skip


def _harm(metrics: Mapping[str, Any]) -> Headline | None:
    if metrics["harm"] is None:
        return None
    counts = metrics["counts"]
    clean = counts["known"] - counts["wrong_given"]
    return Headline(
        "Harm", format_percent(metrics["harm"]), f"{counts['harmed']:,} of {clean:,} right labels made wrong",
        f"{counts['harmed']:,} of {clean:,} right labels were made wrong: the price of relabelling.",
        format_interval(metrics["intervals"]["harm"]),
    )  # fmt: skip


def _accuracy(metrics: Mapping[str, Any]) -> Headline | None:
    accuracy = metrics["accuracy"]
    if accuracy["trained"] is None:
        return None
    shared = metrics["counts"]["test_shared"]
    of_all = (
        f"; {format_percent(metrics['accuracy_all']['trained'])} with the {shared:,} whose text it was trained on"
        if shared
        else ""
    )
    if accuracy["given"] is None or accuracy["cleaned"] is None:
        return Headline(
            "Test accuracy", format_percent(accuracy["trained"]), f"of the trained network{of_all}",
            f"Share of test examples that the trained network labels right{of_all}.",
            format_interval(metrics["intervals"]["accuracy.trained"]),
        )  # fmt: skip
    best = (
        f"; {format_percent(accuracy['true'])} with the true labels" if accuracy["true"] is not None else ""
    )
    return Headline(
        "Test accuracy", f"{format_percent(accuracy['given'])} → {format_percent(accuracy['cleaned'])}",
        f"given → cleaned labels{best}{of_all}. {difference_sentence(metrics)}",
        f"The same network trained on the given and on the cleaned labels{best}{of_all}. {difference_sentence(metrics)}",
        format_interval(metrics["intervals"]["accuracy.cleaned"]),
    )  # fmt: skip


def difference_sentence(metrics: Mapping[str, Any]) -> str:
    """What cleaned labels did for the test accuracy, with its interval; empty where it was not compared.

    >>> difference_sentence({"accuracy_difference": {"value": 0.01, "low": -0.01, "high": 0.03, "measurable": False}})
    'No measurable difference (+1.0 points; 95 %: -1.0 to +3.0).'
    """
    found = metrics["accuracy_difference"]
    if found is None:
        return ""
    value, low, high = (100 * found[name] for name in ("value", "low", "high"))
    what = "Difference" if found["measurable"] else "No measurable difference"
    return f"{what} ({value:+.1f} points; 95 %: {low:+.1f} to {high:+.1f})."


def _detection(metrics: Mapping[str, Any]) -> Headline | None:
    detection = metrics["detection"]
    if detection["roc_auc"] is None:
        return None
    return Headline(
        "Detection", format_figure(detection["roc_auc"]), "ROC-AUC; 0.5 is chance, 1 is perfect",
        "How well doubt tells wrong labels from right ones (ROC-AUC): 0.5 is chance, 1 is perfect.",
        f"{format_percent(detection['precision_at_budget'])} of the doubted labels are wrong"
        if detection["precision_at_budget"] is not None else "",
    )  # fmt: skip


def _annotator(metrics: Mapping[str, Any]) -> Headline | None:
    accuracy = get_metric(metrics, "annotator.accuracy")
    if accuracy is None:
        return None
    return Headline(
        "Annotator", format_percent(accuracy), "right where the truth is a candidate",
        "Share of right answers where the true label is one of the two candidates.",
        f"which holds for {format_percent(get_metric(metrics, 'annotator.truth_among_candidates'))} of the suspects",
    )  # fmt: skip


def _cost(metrics: Mapping[str, Any]) -> Headline | None:
    cost = metrics["cost"]
    tokens = cost["prompt_tokens"] + cost["answer_tokens"]
    if not tokens and cost["amount"] is None:
        return None
    reused = (
        f"{cost['from_ledger']:,} answers came from the ledger and cost nothing"
        if cost["from_ledger"]
        else ""
    )
    priced = cost["amount"] is not None
    return Headline(
        "Cost", format_money(cost["amount"], cost["currency"]) if priced else f"{tokens:,} tokens",
        f"{cost['queries']:,} queries, {tokens:,} tokens",
        f"{cost['queries']:,} queries with {tokens:,} tokens"
        + (", at the prices of the config." if priced else "; the config names no price."),
        reused,
    )  # fmt: skip
