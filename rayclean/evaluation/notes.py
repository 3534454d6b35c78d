"""What a reader must know before believing the figures, in sentences."""

from collections.abc import Mapping
from typing import Any

from rayclean.evaluation.counts import RunCounts
from rayclean.evaluation.formatting import format_percent
from rayclean.evaluation.metrics import SYSTEMATIC_BELOW, get_metric

_SYSTEMATIC = (
    "The model repeats the errors: systematic noise. Detection finds wrong labels hardly better than chance (ROC-AUC "
    "{value:.2f}). Errors that follow a rule of their own are learnt by the model like "
    "any other rule, and self-prediction "
    "cannot see them; another encoder, more folds or a detector that looks at neighbours (knn_vote) may, "
    "and LLM disagreement (relabel.beyond) asks somebody who has not learnt them."
)
_INVISIBLE = (
    "The truth is not known here, so these figures cannot tell how many labels were wrong "
    "or whether a change was right. "
    "Systematic noise is invisible to self-prediction: a rule by which labels are wrong "
    "is learnt by the model like any other."
)
_ESTIMATE = "Confident learning estimates that {estimate} of the labels are wrong; {share} were doubted under the budget."


def _judged(judged: Mapping[str, Any]) -> str:
    """How far an annotator was believed, and why."""
    name, controls = judged["name"], judged["controls"]
    if judged["decided_by"] is None:
        return f"{name} was left nothing to decide."
    only_ranks = "the model's scores of such labels rank them, but are no probabilities by which labels may change: none was"
    if not controls["asked"] and not judged.get("alone", True):
        return f"Nobody whose judgement was measured was asked, and {only_ranks}, all suspects wait for a person."
    if not controls["asked"]:
        return (
            "Nobody whose judgement was measured was asked: the model alone decided, and changed only labels of which it "
            "is sure (three at least, or none). Its own scale is not known without answers, so most suspects are referred to a "
            "person."
        )
    right = f"{name} was right on {controls['right']:,} of {controls['asked']:,} control questions"
    ended = (
        f" Asking ended there: {judged['unneeded']:,} suspects were not asked about (relabel.ask_all asks about all)."
        if judged["unneeded"]
        else ""
    )
    who = "the model alone decided" if judged.get("alone", True) else only_ranks
    return {
        "posterior_alone": f"{right}, which is not surely better than chance: its answers count for nothing, and {who}.{ended}",
        "closed": f"{right}, but its answers do not show that more suggestions are right than wrong: no label was changed.",
        "open": f"{right}: it counts as right with {format_percent(judged['accuracy'])}, and labels were decided by model and "
        "answers together.",
    }[judged["decided_by"]]


def _beyond(judged: Mapping[str, Any]) -> str:
    """LLM disagreement: what an annotator said about labels that nobody doubted."""
    beyond, name = judged["beyond"], judged["name"]
    asked = f"LLM disagreement: beyond the suspects, {name} denies {beyond['denied']:,} of {beyond['asked']:,} labels"
    if beyond["wrong"] is None:
        return f"{asked}; it is too often wrong on control questions to say what this means (relabel/beyond/ lists them)."
    wrong = beyond["wrong"]
    return (
        f"{asked}: by its accuracy on control questions {format_percent(wrong['value'])} of all labels that were neither doubted "
        f"nor control questions are wrong ({format_percent(wrong['low'])} to {format_percent(wrong['high'])}). relabel/beyond/ "
        "lists the examples, whose labels stay: have a person look at them."
    )


def measured_on(counts: RunCounts, tested: Mapping[str, Any], units: str = "examples") -> dict[str, str]:
    """Say on what the figures are measured.

    Args:
        counts: of all units.
        tested: `examples`, `shared`, `true`, `reason`, `trained_on_true`.
        units: units in words (`Task.units_are_called`).
    """
    known, total = counts.total("known"), counts.total("examples")
    labels = f"{known:,} of {total:,} {units}, whose true label is known" if known else (
        f"nothing: the true label of none of the {total:,} {units} is known (dataset.truth), so these figures are null"
    )  # fmt: skip
    if tested["reason"]:
        return {"labels": labels, "accuracy": f"nothing: {tested['reason']}"}
    examples, true = tested["examples"], tested["true"]
    unseen = (
        f" whose texts are not in the training data ({tested['shared']:,} others are), "
        if tested["shared"]
        else ", "
    )
    accuracy = f"{examples:,} test examples{unseen}" + (
        "on their true labels" if true == examples
        else "on their given labels, since their truth is not known: wrong labels among them lower every figure" if not true
        else f"{true:,} on their true labels and {examples - true:,} on their given ones, whose truth is not known"
    )  # fmt: skip
    if tested["trained_on_true"]:
        accuracy += f"; the network on true labels was trained on {tested['trained_on_true']:,} {units}"
    return {"labels": labels, "accuracy": accuracy}


def notes(
    metrics: Mapping[str, Any], verb_metrics: Mapping[str, Mapping[str, Any]], tested: Mapping[str, Any]
) -> list[str]:
    """Limits and warnings, the gravest first.

    Args:
        metrics: the content of `metrics.json`, without seconds and notes.
        verb_metrics: metrics in the manifests of the other verbs.
        tested: as in `measured_on`.
    """
    found = [_judged(each) for each in metrics["judged"]]
    found += [_beyond(each) for each in metrics["judged"] if each["beyond"] is not None]
    auc, estimate, share = (
        get_metric(metrics, f"{name}") for name in ("detection.roc_auc", "noise.estimated", "detection.share")
    )
    if auc is not None and auc < SYSTEMATIC_BELOW and metrics["audit"] is None:  # an audit says it itself
        found.append(_SYSTEMATIC.format(value=auc))
    if not metrics["counts"]["known"]:
        found.append(_INVISIBLE)
        if estimate is not None and share is not None:
            found.append(_ESTIMATE.format(estimate=format_percent(estimate), share=format_percent(share)))
    if metrics["harm"] and metrics["counts"]["harmed"] > metrics["counts"]["repaired"]:
        found.append(
            f"Relabelling did more harm than good: {metrics['counts']['harmed']:,} right labels were made wrong, "
            f"{metrics['counts']['repaired']:,} wrong ones right. Raise relabel.accept, ask a better annotator, or let a "
            "person check some changes."
        )
    if outside := metrics["noise"].get("truth_outside"):
        listed = ", ".join(f"{value!r} {count:,}" for value, count in outside["values"].items())
        found.append(
            f"{outside['labels']:,} true labels (dataset.truth) are none of the classes, and count as not known: {listed}."
        )
    for verb, key in (("detect", "note"), ("relabel", "go_on"), ("train", "note")):
        if verb_metrics[verb].get(key):
            found.append(f"{verb}: {verb_metrics[verb][key]}.")
    for verb in ("load", "predict", "relabel"):
        found += [f"{verb}: {warning}." for warning in verb_metrics[verb].get("warnings", [])]
    if tested["reason"]:
        found.append(f"The networks are not compared: {tested['reason']}.")
    return found
