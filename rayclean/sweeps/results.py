"""The results of a sweep: means and standard deviations over seeds, comparison with a reference, and
selection.

A point is compared with its *reference*: the point of the same conditions (fields that make data harder, like
the noise rate) at which every other field has the base config's value. Both run under the same seeds, so the
test is paired.

What `dev_accuracy` and `dev_loss` mean: they are of the *given* labels of all development examples, whatever a trial
trained on, so that trials with other final labels are compared on the same ones. Where the development labels are
declared clean (`dataset.dev.clean`), that is accuracy. Elsewhere it is agreement with labels that hold the noise, which
trials that repeat the noise may win: declare clean development labels where there are any.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from rayclean.config import parse_config
from rayclean.errors import ConfigError
from rayclean.evaluation.formatting import figure_title
from rayclean.evaluation.run_figures import TRUTH_FIGURES
from rayclean.evaluation.seed_figures import PointFigure
from rayclean.fingerprints import fingerprint
from rayclean.functional.paired import paired_test
from rayclean.overrides import put_over
from rayclean.sweeps.dimension import is_condition
from rayclean.sweeps.plan import base_values, cost_currency
from rayclean.sweeps.space import Point
from rayclean.sweeps.spec import Objective, Sweep
from rayclean.verb_fingerprints import config_identity


@dataclass(frozen=True)
class Row:
    """The results of one point."""

    point: Point
    seeds: tuple[int, ...]
    figures: dict[str, PointFigure]
    is_reference: bool
    """Whether other points are compared with this one."""
    stopped: int
    """Number of trials that were stopped as worse than others."""
    epochs: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    """Epochs by seed; empty if the trials did not train."""
    spans: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Start (Unix time) and duration (seconds) of the trial by seed."""
    converged: int = 0
    """Number of trials that were stopped at a plateau."""

    def is_whole(self, seeds: Sequence[int]) -> bool:
        """Whether the point ran to its end or a plateau under every seed: fewer seeds may be lucky, and the
        figures of a trial stopped as worse are those of an earlier epoch. At a plateau, further epochs would
        hardly change them.
        """
        return not self.stopped and set(self.seeds) >= set(seeds)

    def is_among(self, rows: "Sequence[Row]") -> bool:
        """Whether this row is in `rows`, by identity, since equality would compare every epoch."""
        return any(self is row for row in rows)

    def score(self, objective: Objective) -> float:
        """The mean of an objective, negated if lower is better; minus infinity if unknown."""
        figure = self.figures.get(objective.metric)
        return -math.inf if figure is None else objective.sign * figure.mean


@dataclass(frozen=True)
class Results:
    """The results of all points of a sweep, in its order."""

    sweep: Sweep
    rows: list[Row]
    metrics: list[str]
    """Names of all figures: objectives first, figures measured on the truth last."""
    best: Row | None
    """The best point by the first objective, among complete points if there are any; None without an objective."""
    front: list[Row]
    """The Pareto front of several objectives, among complete points if there are any."""
    failed: dict[str, str]
    """Error by title of the failed trial."""
    currency: str | None = None
    """What `cost` is in; None where nothing has a price."""

    @property
    def finished(self) -> int:
        """Number of trials with a result."""
        return sum(len(row.seeds) for row in self.rows)

    def title(self, metric: str) -> str:
        """The name of a figure as people read it, with its currency where it is money."""
        return figure_title(metric, self.currency)

    @property
    def provisional(self) -> bool:
        """Whether the selection is provisional: all points lack seeds or were stopped early, or all settings
        lack some condition.
        """
        complete = [row for row in self.rows if row.is_whole(self.sweep.seeds)]
        if any(not row.is_among(complete) for row in (self.best, *self.front) if row is not None):
            return True
        if self.best is None:
            return False
        known = [row for row in complete if self.sweep.objectives[0].metric in row.figures]
        seen = [conditions(row.point) for row in known if setting(row.point) == setting(self.best.point)]
        return any(conditions(row.point) not in seen for row in self.rows)


def collect(
    sweep: Sweep,
    results: Mapping[str, Mapping[str, Any]],
    failed: Mapping[str, str] | None = None,
    epochs: Mapping[str, list[dict[str, Any]]] | None = None,
) -> Results:
    """Compute the results of a sweep from those of its trials.

    Args:
        sweep: the sweep of the trials.
        results: result by trial name.
        failed: error by trial title.
        epochs: epochs by trial name.
    """
    values = base_values(sweep)
    grouped: dict[str, dict[int, Mapping[str, Any]]] = {}
    points: dict[str, Point] = {}
    for result in sorted(results.values(), key=lambda each: int(each["seed"])):
        key = json.dumps(result["point"], sort_keys=True)
        points[key] = dict(result["point"])
        grouped.setdefault(key, {})[result["seed"]] = result
    order = sorted(grouped, key=lambda key: _sort_key(sweep, points[key]))
    by_meaning = {meaning: key for key in reversed(order) if (meaning := _meaning(values, points[key]))}
    rows = []
    for key in order:
        trials = grouped[key]
        reference = by_meaning.get(_meaning(values, conditions(points[key])) or "")
        others = grouped[reference] if reference and reference != key else {}
        row = Row(
            point=points[key],
            seeds=tuple(trials),
            figures=_figures(trials, others),
            is_reference=reference == key,
            stopped=sum(result["stopped"] is True for result in trials.values()),
            epochs={seed: (epochs or {}).get(str(result["trial"]), []) for seed, result in trials.items()},
            spans={seed: (r["began"], r["wall_seconds"]) for seed, r in trials.items() if "began" in r},
            converged=sum(result["stopped"] == "plateau" for result in trials.values()),
        )
        rows.append(row)
    choice = [row for row in rows if row.is_whole(sweep.seeds)] or rows
    best, front = best_row(choice, sweep.objectives), pareto_front(choice, sweep.objectives)
    currency = cost_currency(values, [row.point for row in rows])
    return Results(sweep, rows, _names(sweep, rows), best, front, dict(failed or {}), currency)


def best_row(rows: Sequence[Row], objectives: Sequence[Objective]) -> Row | None:
    """The best setting by the first objective.

    Conditions are not selected, since the easiest would win: the setting with the best mean over all
    conditions wins, and its row of the last condition is returned. If no setting ran under all conditions,
    those that ran under the most compete (`Results.provisional`).
    """
    settings: dict[str, list[Row]] = {}
    for row in rows:
        if objectives and objectives[0].metric in row.figures:
            settings.setdefault(json.dumps(setting(row.point), sort_keys=True), []).append(row)
    if not settings or not any(setting(row.point) for row in rows):
        return None
    return max(
        settings.values(), key=lambda seen: (len(seen), fmean(row.score(objectives[0]) for row in seen))
    )[-1]


def pareto_front(rows: Sequence[Row], objectives: Sequence[Objective]) -> list[Row]:
    """The Pareto front by means: points to which no other point of the same conditions is at least equal in
    all objectives and superior in one.
    """
    known = [row for row in rows if all(objective.metric in row.figures for objective in objectives)]

    def beats(other: Row, row: Row) -> bool:
        gains = [other.score(objective) - row.score(objective) for objective in objectives]
        return min(gains) >= 0 and max(gains) > 0 and conditions(other.point) == conditions(row.point)

    return (
        [row for row in known if not any(beats(other, row) for other in known)] if len(objectives) > 1 else []
    )


def conditions(point: Point) -> Point:
    """The fields of a point that are conditions of the data.

    >>> conditions({"dataset.noise.rate": 0.2, "method.lambda_": 0.7})
    {'dataset.noise.rate': 0.2}
    """
    return {path: value for path, value in point.items() if is_condition(path)}


def setting(point: Point) -> Point:
    """The fields of a point that can be selected.

    >>> setting({"dataset.noise.rate": 0.2, "method.lambda_": 0.7})
    {'method.lambda_': 0.7}
    """
    return {path: value for path, value in point.items() if not is_condition(path)}


def _figures(
    trials: Mapping[int, Mapping[str, Any]], others: Mapping[int, Mapping[str, Any]]
) -> dict[str, PointFigure]:
    # The figures of a stopped trial are of its last epoch, those of others of the best epoch, so they are
    # neither averaged nor compared. At a plateau they are close enough for a mean, but not for a test.
    counted = {seed: result for seed, result in trials.items() if result["stopped"] is not True} or trials
    ended = {seed: result["figures"] for seed, result in others.items() if not result["stopped"]}
    found = {}
    for name in dict.fromkeys(name for result in counted.values() for name in result["figures"]):
        known = {seed: each["figures"][name] for seed, each in counted.items() if name in each["figures"]}
        differences = [
            value - ended[seed][name]
            for seed, value in known.items()
            if not trials[seed]["stopped"] and name in ended.get(seed, ())
        ]
        sd = stdev(known.values()) if len(known) > 1 else None
        difference = fmean(differences) if differences else None
        found[name] = PointFigure(fmean(known.values()), sd, len(known), paired_test(differences), difference)
    return found


def _names(sweep: Sweep, rows: list[Row]) -> list[str]:
    known = list(dict.fromkeys(name for row in rows for name in row.figures))
    objectives = [objective.metric for objective in sweep.objectives]
    ordered = [*objectives, *(name for name in known if name not in TRUTH_FIGURES), *TRUTH_FIGURES]
    return [name for name in dict.fromkeys(ordered) if name in known]


def _meaning(values: Mapping[str, Any], point: Point) -> str | None:
    """A key that is equal for points with the same results; None if the config is invalid."""
    try:
        return fingerprint(config_identity(parse_config(put_over(values, point))))
    except ConfigError:
        return None


def _sort_key(sweep: Sweep, point: Point) -> list[tuple[int, float]]:
    """A sort key of points: listed values in the order of the file, drawn numbers by size."""

    def place(path: str, listed: list[Any]) -> tuple[int, float]:
        if path not in point:
            return -1, 0.0
        value = point[path]
        number = float(value) if isinstance(value, int | float) else 0.0
        return (listed.index(value), 0.0) if value in listed else (len(listed), number)

    return [place(path, list(dimension.listed)) for path, dimension in sweep.space.items()]
