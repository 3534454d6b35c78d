"""The points of a sweep as an Optuna study, so that Optuna's own plots can draw them."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from rayclean.evaluation.plots import plain_values
from rayclean.sweeps.page.fields import SweptField
from rayclean.sweeps.results import Row
from rayclean.sweeps.space import show

PAUSE = 60.0
"""Seconds in which no trial ran: the sweep was interrupted, and the timeline leaves the time out."""


def study_of(
    rows: Sequence[Row], fields: Sequence[SweptField], metrics: Sequence[str], modes: Sequence[str] = ("max",)
) -> optuna.Study:
    """A study with a trial for each point that has all metrics, whose values are the means over seeds.

    Names and values that come from data are escaped: plotly reads some HTML. The intermediate values of a
    trial are the mean development accuracies of the seeds that reached the epoch.
    """
    study = _new_study(modes)
    for row in rows:
        if all(metric in row.figures for metric in metrics):
            values = [row.figures[metric].mean for metric in metrics] or [0.0]
            study.add_trial(_trial(row, fields, values, learning_curve(row)))
    return study


def timeline_study(rows: Sequence[Row], fields: Sequence[SweptField]) -> optuna.Study:
    """A study with a trial for each point and seed, in the order in which they began. Trials that were
    stopped early are pruned ones; interruptions are left out.
    """
    study = _new_study()
    spans = sorted((row.spans[seed], seed, number) for number, row in enumerate(rows) for seed in row.spans)
    pauses, busy_until = 0.0, None
    for (began, seconds), seed, number in spans:
        if busy_until is not None and began - busy_until > PAUSE:
            pauses += began - busy_until
        busy_until = max(busy_until or 0.0, began + seconds)
        row = rows[number]
        trial = _trial(row, fields, [0.0], {}, {"seed": seed, "seconds": round(seconds, 1)})
        if row.stopped or row.converged:
            trial.state = TrialState.PRUNED
        trial.datetime_start = datetime.fromtimestamp(began - pauses)
        trial.datetime_complete = trial.datetime_start + timedelta(seconds=seconds)
        study.add_trial(trial)
    return study


def at_once(study: optuna.Study) -> float:
    """Trials that ran at the same time, on average over the whole timeline."""
    spans = [(t.datetime_start, t.datetime_complete) for t in study.get_trials(deepcopy=False)]
    known = [(start, end) for start, end in spans if start is not None and end is not None]
    if not known:
        return 0.0
    whole = max(end for _, end in known) - min(start for start, _ in known)
    return sum((end - start for start, end in known), timedelta()) / whole if whole else 0.0


def learning_curve(row: Row) -> dict[int, float]:
    """Epoch -> the mean development accuracy of the seeds that reached it."""
    found: dict[int, list[float]] = {}
    for records in row.epochs.values():
        for record in records:
            if record.get("dev_accuracy") is not None and record.get("epoch") is not None:
                found.setdefault(int(record["epoch"]), []).append(float(record["dev_accuracy"]))
    return {epoch: sum(values) / len(values) for epoch, values in sorted(found.items())}


def plain_name(field: SweptField) -> str:
    """The name of a field as a study has it."""
    return plain_values(field.name, 48)


def _new_study(modes: Sequence[str] = ("max",)) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        directions=[StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE for mode in modes]
    )


def _trial(
    row: Row,
    fields: Sequence[SweptField],
    values: list[float],
    curve: Mapping[int, float],
    attributes: Mapping[str, Any] | None = None,
) -> FrozenTrial:
    params: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for field in fields:
        if field.path not in row.point:
            continue
        value, name = row.point[field.path], plain_name(field)
        if field.numeric:
            params[name] = value
            distributions[name] = FloatDistribution(field.values[0], field.values[-1], log=field.log)
        else:
            params[name] = plain_values(show(value), 60)
            choices = dict.fromkeys(plain_values(show(each), 60) for each in field.values)
            distributions[name] = CategoricalDistribution(list(choices))
    return optuna.trial.create_trial(
        values=values,
        params=params,
        distributions=distributions,
        intermediate_values=dict(curve),
        user_attrs=dict(attributes or {}),
    )
