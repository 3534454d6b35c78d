"""The section of the report on the training: a table of epochs, and how the examples spread."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rayclean.evaluation import plots
from rayclean.evaluation.formatting import format_count, format_percent
from rayclean.evaluation.training_history import TrainingHistory
from rayclean.measures import Measures

MAX_EPOCHS = 20
"""Rows of the table of epochs; longer trainings show that many, evenly spread, and the best one."""
DRAWN_EPOCHS = 3
"""Epochs whose histograms are drawn: the first, the middle and the last."""

EpochRow = dict[str, Any]
"""The figures of an epoch, as in `metrics.json` under `training.epochs`."""


def training_section(
    history: TrainingHistory | None, method: str, best: int | None
) -> tuple[dict[str, Any] | None, dict[str, plots.PlotlyFigure]]:
    """What the template shows of a training, and its charts by name; None without a history.

    Args:
        history: of the training that wrote `train/`.
        method: name of the method.
        best: number of the epoch that was kept.
    """
    if history is None:
        return None, {}
    rows = history.epochs
    places = set(_spread(len(rows), MAX_EPOCHS))
    shown = [row for place, row in enumerate(rows) if place in places or row["epoch"] == best]
    drawn = _spread(len(rows), DRAWN_EPOCHS)
    measures, charts = _small_charts(history, drawn)
    each = [counts[drawn].sum(axis=(0, 2)) for counts in history.histograms.values()]
    counted = np.sum(each, axis=0) if each else np.zeros(len(plots.KINDS), dtype=np.int64)
    return {
        "method": method,
        "best": best,
        "epochs": len(rows),
        "table": _epoch_table(shown, history.measures),
        "left_out": len(rows) - len(shown),
        "kinds": [kind for kind, count in zip(plots.KINDS, counted, strict=True) if count],
        "measures": measures,
    }, charts


def _small_charts(
    history: TrainingHistory, drawn: list[int]
) -> tuple[list[dict[str, Any]], dict[str, plots.PlotlyFigure]]:
    """A row of small charts per scalar: histograms of some of the epochs."""
    measures: list[dict[str, Any]] = []
    charts: dict[str, plots.PlotlyFigure] = {}
    epochs = [history.epochs[place]["epoch"] for place in drawn]
    for key, histograms in history.histograms.items():
        declared, chosen = history.measures.histograms[key], histograms[drawn]
        names = [f"training-{key}-{epoch}" for epoch in epochs]
        axis = plots.plain_values(declared.axis)
        figures = plots.epoch_histograms(chosen, axis, declared.top, declared.bounded)
        charts |= dict(zip(names, figures, strict=True))
        counts = chosen.sum(axis=(1, 2)).tolist()
        small = [
            {"name": name, "epoch": epoch, "count": count}
            for name, epoch, count in zip(names, epochs, counts, strict=True)
        ]
        measures.append({"title": declared.title, "means": declared.means, "charts": small})
    return measures, charts


def _spread(count: int, limit: int) -> list[int]:
    """At most `limit` of the first `count` numbers, evenly spread, the first and the last among them.

    >>> _spread(6, 3), _spread(2, 3)
    ([0, 2, 5], [0, 1])
    """
    if count <= limit:
        return list(range(count))
    return [place * (count - 1) // (limit - 1) for place in range(limit)]


def _epoch_table(rows: list[EpochRow], measures: Measures) -> dict[str, Any]:
    """The columns that any epoch has, each cell a value and an aside in small letters."""
    subsets = measures.subsets.values if measures.subsets is not None else ()
    columns: list[tuple[str, str, Callable[[Any], str], Callable[[EpochRow], str]]] = [
        ("loss", "loss", lambda value: f"{value:.4g}", _no_aside),
        ("dev accuracy, given labels", "dev_accuracy", format_percent, _no_aside),
        ("dev accuracy, final labels", "dev_accuracy_final", format_percent, _no_aside),
        *(
            (_words(name), name, format_count, lambda row, name=name: _wrong_labels(row, name))
            for name in subsets
        ),
        ("asked", "asked", format_count, _reused_answers),
        ("answers so far", "answered", format_count, _wrong_answers),
        *(
            (figure.title, name, figure.written, _no_aside)
            for name, figure in measures.figures.items()
            if figure.table
        ),
    ]
    present = [column for column in columns if any(row.get(column[1]) is not None for row in rows)]

    def cells(row: EpochRow) -> list[dict[str, str]]:
        return [
            {"value": "–", "aside": ""}
            if row[key] is None
            else {"value": show(row[key]), "aside": aside(row)}
            for _, key, show, aside in present
        ]

    return {
        "head": [title for title, *_ in present],
        "rows": [{"epoch": row["epoch"], "cells": cells(row)} for row in rows],
    }


def _words(name: str) -> str:
    """A key of `metrics.json` as words."""
    return name.replace("_", " ")


def _no_aside(row: EpochRow) -> str:
    return ""


def _wrong_labels(row: EpochRow, subset: str) -> str:
    """Share of wrong labels in a subset, also after the annotator's answers where they replace labels."""
    if row[f"{subset}_wrong"] is None:
        return ""
    after = ""
    if f"{subset}_after_wrong" in row and row["answered"]:
        after = f" → {format_percent(row[f'{subset}_after_wrong'])}"
    return f"{format_percent(row[f'{subset}_wrong'])}{after} wrong"


def _reused_answers(row: EpochRow) -> str:
    return f"+ {format_count(row['from_ledger'])} reused" if row["from_ledger"] else ""


def _wrong_answers(row: EpochRow) -> str:
    """Share of wrong ones among the labels of answered examples, and among the answers."""
    if row["answers_wrong"] is None:
        return ""
    return f"{format_percent(row['answered_wrong'])} → {format_percent(row['answers_wrong'])} wrong"
