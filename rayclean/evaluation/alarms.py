"""Figures that can hardly be true, each with its likely cause: what a reader must see before any other figure."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

_MOST_LEFT = 0.2
"""A class that keeps no more than this share of its labels is nearly emptied."""
_MOST_NAMED = 5
"""Classes that are named."""


def alarms(classes: Sequence[Mapping[str, Any]], verb_metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Alarms of all verbs, in their order, and of classes that relabelling empties.

    Args:
        classes: figures of every class (`class_figures`).
        verb_metrics: metrics in the manifests of the other verbs, by name.
    """
    found = [
        f"{verb}: {alarm}" for verb, metrics in verb_metrics.items() for alarm in metrics.get("alarms", [])
    ]
    emptied = [row for row in classes if row["out"] and row["after"] <= _MOST_LEFT * row["before"]]
    emptied.sort(key=lambda row: -row["before"])
    found += [
        f"relabel: of {row['before']:,} labels {row['name']!r} {row['out']:,} are changed, which "
        f"{'empties' if not row['after'] else 'nearly empties'} the class: models have seen too little of a rare class to doubt "
        "it. Look at these changes, and take them back with: rayclean revert CONFIG --from-label "
        f"{shlex.quote(row['name'])}"
        for row in emptied[:_MOST_NAMED]
    ]
    if len(emptied) > _MOST_NAMED:
        found.append(f"relabel: {len(emptied) - _MOST_NAMED:,} further classes are emptied or nearly so")
    return found
