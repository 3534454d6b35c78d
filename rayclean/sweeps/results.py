"""What came of a sweep: points with mean and standard deviation over seeds, compared, chosen, reproducible.

A point is compared with its *reference*: the point of the same conditions (what makes data harder, like the noise rate) at
which every other field has the base config's value. Both are run under the same seeds, so the test is paired.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tomli_w
from scipy import stats

from rayclean.config import parse_config
from rayclean.errors import ConfigError
from rayclean.fingerprints import fingerprint
from rayclean.sweeps.plan import base_values, put_over, sweep_identity
from rayclean.sweeps.space import Point, show
from rayclean.sweeps.spec import Objective, Sweep, is_condition


@dataclass(frozen=True)
class PointFigure:
    """One figure of a point over its seeds."""

    mean: float
    sd: float | None
    """Sample standard deviation; None with one seed."""
    seeds: int
    """Under so many seeds; where some trials are whole, those that were stopped as worse are left out of all of it."""
    p: float | None = None
    """Two-sided paired t-test against the reference over the seeds under which both ran to their end; None where there is
    none, the point is the reference, fewer than two pairs exist, or all differ by the same (no spread, so no test)."""
    difference: float | None = None
    """Mean of the paired differences to the reference."""


@dataclass(frozen=True)
class Row:
    """One point."""

    point: Point
    seeds: tuple[int, ...]
    figures: dict[str, PointFigure]
    is_reference: bool
    """Whether it is what others are compared with."""
    stopped: int
    """Trials that were stopped as worse than others."""
    commands: dict[int, str]
    """By seed: what repeats the trial by itself."""
    epochs: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    """By seed: lines of the epochs, where the trials trained."""
    spans: dict[int, tuple[float, float]] = field(default_factory=dict)
    """By seed: Unix time at which the trial began, and its seconds."""
    converged: int = 0
    """Trials that were stopped because they no longer moved."""

    def is_whole(self, seeds: Sequence[int]) -> bool:
        """Whether it ran to its end, or to a plateau, under every seed: fewer seeds may be lucky ones, and the figures of a
        trial that was stopped as worse are those of another epoch. One at a plateau counts with those of its last epoch,
        from which more epochs would hardly move it.
        """
        return not self.stopped and set(self.seeds) >= set(seeds)


@dataclass(frozen=True)
class Results:
    """All points of a sweep, in its order."""

    sweep: Sweep
    rows: list[Row]
    metrics: list[str]
    """Names of the figures that any trial has: objectives first, then what is free of truth, then what is not."""
    best: Row | None
    """By the first objective, among the whole points if there are any; None without one."""
    front: list[Row]
    """Points that no other one beats in all objectives, where there are several; of whole points if there are any."""
    failed: dict[str, str]
    """Title of a trial -> what it said."""

    @property
    def finished(self) -> int:
        """Trials that have a result."""
        return sum(len(row.seeds) for row in self.rows)

    @property
    def provisional(self) -> bool:
        """Whether the choice is between points that lack seeds or were stopped early, or between settings that were not
        seen under every condition, for want of others.
        """
        chosen = [row for row in (self.best, *self.front) if row is not None]
        if any(not row.is_whole(self.sweep.seeds) for row in chosen):
            return True
        if self.best is None:
            return False
        metric, best_setting = self.sweep.objectives[0].metric, setting(self.best.point)
        seen = [
            conditions(row.point)
            for row in self.rows
            if setting(row.point) == best_setting and metric in row.figures and row.is_whole(self.sweep.seeds)
        ]
        return any(conditions(row.point) not in seen for row in self.rows)

    @property
    def fields(self) -> list[str]:
        """Swept fields, in the order of the file."""
        return list(self.sweep.space)


def collect(
    sweep: Sweep,
    results: Mapping[str, Mapping[str, Any]],
    failed: Mapping[str, str] | None = None,
    epochs: Mapping[str, list[dict[str, Any]]] | None = None,
) -> Results:
    """Results from the `result.json` of every trial.

    Args:
        sweep: that they are of.
        results: by name of the trial.
        failed: title of a trial -> error.
        epochs: lines of the epochs by name of the trial.
    """
    values = base_values(sweep)
    grouped: dict[str, dict[int, Mapping[str, Any]]] = {}
    points: dict[str, Point] = {}
    for result in results.values():
        key = json.dumps(result["point"], sort_keys=True)
        points[key] = dict(result["point"])
        grouped.setdefault(key, {})[result["seed"]] = result
    order = sorted(grouped, key=lambda key: _place(sweep, points[key]))
    by_meaning = {mark: key for key in reversed(order) if (mark := _meaning(values, points[key]))}
    rows = []
    for key in order:
        trials, reference = grouped[key], by_meaning.get(_meaning(values, conditions(points[key])) or "")
        others = grouped[reference] if reference and reference != key else {}
        rows.append(
            Row(
                point=points[key],
                seeds=tuple(sorted(trials)),
                figures=_figures(trials, others),
                is_reference=reference == key,
                stopped=sum(result["stopped"] is True for result in trials.values()),
                commands={seed: command(sweep, points[key], seed) for seed in sorted(trials)},
                epochs={
                    seed: (epochs or {}).get(str(result["trial"]), [])
                    for seed, result in sorted(trials.items())
                },
                spans={
                    seed: (result["began"], result["wall_seconds"])
                    for seed, result in sorted(trials.items())
                    if "began" in result
                },
                converged=sum(result["stopped"] == "plateau" for result in trials.values()),
            )
        )
    choice = [row for row in rows if row.is_whole(sweep.seeds)] or rows
    return Results(
        sweep,
        rows,
        _names(sweep, rows),
        best(choice, sweep.objectives),
        front(choice, sweep.objectives),
        dict(failed or {}),
    )


def best(rows: Sequence[Row], objectives: Sequence[Objective]) -> Row | None:
    """The best setting by the first objective.

    Conditions are not chosen between, since the easiest would win: the setting of the best mean over all conditions counts,
    and its row of the last one is returned. Where no setting was seen under all of them, those that were seen under the most
    are chosen between (`Results.provisional`).
    """
    if not objectives:
        return None
    metric, sign = objectives[0].metric, 1 if objectives[0].mode == "max" else -1
    settings: dict[str, list[Row]] = {}
    for row in rows:
        if metric in row.figures:
            settings.setdefault(json.dumps(setting(row.point), sort_keys=True), []).append(row)
    complete = max(map(len, settings.values()), default=0)
    means = {
        key: sign * sum(row.figures[metric].mean for row in members) / len(members)
        for key, members in settings.items()
        if len(members) == complete
    }
    if not means or not any(setting(row.point) for row in rows):
        return None
    return settings[max(means, key=lambda key: means[key])][-1]


def conditions(point: Point) -> Point:
    """What of a point is a condition, and no choice.

    >>> conditions({"dataset.noise.rate": 0.2, "method.lambda_": 0.7})
    {'dataset.noise.rate': 0.2}
    """
    return {path: value for path, value in point.items() if is_condition(path)}


def setting(point: Point) -> Point:
    """What of a point is a choice.

    >>> setting({"dataset.noise.rate": 0.2, "method.lambda_": 0.7})
    {'method.lambda_': 0.7}
    """
    return {path: value for path, value in point.items() if path not in conditions(point)}


def front(rows: Sequence[Row], objectives: Sequence[Objective]) -> list[Row]:
    """The Pareto front by means: points for which no other one of the same conditions is at least as good in all
    objectives and better in one.
    """
    if len(objectives) < 2:
        return []
    there = [row for row in rows if all(o.metric in row.figures for o in objectives)]
    scores = np.array([
        [(1 if o.mode == "max" else -1) * row.figures[o.metric].mean for o in objectives] for row in there
    ])  # fmt: skip
    at = np.array([json.dumps(conditions(row.point), sort_keys=True) for row in there])
    kept = []
    for place, own in enumerate(scores):
        others = scores[at == at[place]]
        beaten = (others >= own).all(axis=1) & (others > own).any(axis=1)
        if not beaten.any():
            kept.append(there[place])
    return kept


def best_config(results: Results) -> str:
    """The best setting's config as TOML, ready to run: the base with it; the base's own conditions stay.

    Raises:
        ValueError: the sweep has no objective.
    """
    if results.best is None:
        raise ValueError("a sweep without objectives has no best point")
    sweep, row = results.sweep, results.best
    values = put_over(base_values(sweep), setting(row.point))
    values.pop("evaluate", None)
    values["name"] = f"{sweep.name}-best"
    parse_config(values)
    objective = sweep.objectives[0]
    figure = row.figures[objective.metric]
    deviation = "" if figure.sd is None else f" +- {figure.sd:.3g}"
    seeds = "one seed" if figure.seeds == 1 else f"{figure.seeds} seeds"
    at = ", ".join(f"{path} = {show(value)}" for path, value in conditions(row.point).items())
    where = f" at {at}" if at else ""
    said = f"Best of the sweep {sweep.name}: {objective.metric} {figure.mean:.4g}{deviation} over {seeds}{where}."
    comment = "".join(letter if letter.isprintable() else " " for letter in said)
    return f"# {comment}\n{tomli_w.dumps(_without_nulls(values))}"


def command(sweep: Sweep, point: Point, seed: int) -> str:
    """What repeats one trial as a run of its own."""
    name = f"{sweep.name}-{fingerprint(point)[:6]}-{seed}"
    overrides = _without_nulls({**sweep.set, **point, "seed": seed, "name": name})
    return shlex.join(
        [
            "rayclean",
            "clean",
            sweep.base_shown or sweep.base,
            *(f"{path}={_toml(value)}" for path, value in overrides.items()),
        ]
    )


def short(path: str) -> str:
    """The last part of a path, without the underscore that keeps it from being a word of Python.

    >>> short("method.lambda_"), short("method")
    ('lambda', 'method')
    """
    return path.rpartition(".")[2].rstrip("_")


def _figures(
    trials: Mapping[int, Mapping[str, Any]], others: Mapping[int, Mapping[str, Any]]
) -> dict[str, PointFigure]:
    # A trial that was stopped has figures of its last epoch, any other one of its best: the two are neither averaged nor
    # compared. At a plateau they are near enough for a mean, not for a test.
    counted = {seed: result for seed, result in trials.items() if result["stopped"] is not True} or trials
    names = list(dict.fromkeys(name for result in counted.values() for name in result["figures"]))
    found = {}
    for name in names:
        own = {seed: result["figures"][name] for seed, result in counted.items() if name in result["figures"]}
        pairs = [
            (value, others[seed]["figures"][name])
            for seed, value in own.items()
            if not trials[seed]["stopped"] and _is_pair(others.get(seed), name)
        ]
        values = list(own.values())
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        difference = float(np.mean([a - b for a, b in pairs])) if pairs else None
        found[name] = PointFigure(float(np.mean(values)), sd, len(values), _paired(pairs), difference)
    return found


def _is_pair(other: Mapping[str, Any] | None, name: str) -> bool:
    """Whether a trial of the reference can be compared with."""
    return other is not None and not other["stopped"] and name in other["figures"]


def _paired(pairs: list[tuple[float, float]]) -> float | None:
    if len(pairs) < 2:
        return None
    apart = np.array([a - b for a, b in pairs])
    if not apart.any():
        return 1.0
    if np.std(apart) <= 1e-9 * np.abs(apart).mean():
        return None
    return float(stats.ttest_1samp(apart, 0.0).pvalue)


def _names(sweep: Sweep, rows: list[Row]) -> list[str]:
    from rayclean.sweeps.trial import TRUTH

    there = list(dict.fromkeys(name for row in rows for name in row.figures))
    wanted = [objective.metric for objective in sweep.objectives]
    ordered = [*wanted, *(n for n in there if n not in TRUTH), *(n for n in TRUTH)]
    return [name for name in dict.fromkeys(ordered) if name in there]


def _meaning(values: Mapping[str, Any], point: Point) -> str | None:
    """Equal for configs that give the same results; None where the base with this point is no config."""
    try:
        return fingerprint(sweep_identity(parse_config(put_over(values, point))))
    except ConfigError:
        return None


def _place(sweep: Sweep, point: Point) -> list[Any]:
    """Sorts points: by the order of each field's values in the file, numbers that were drawn by size."""
    place: list[Any] = []
    for path, dimension in sweep.space.items():
        listed = list(dimension.grid or dimension.choice or ())
        if path not in point:
            place.append((-1, 0.0))
        elif point[path] in listed:
            place.append((listed.index(point[path]), 0.0))
        else:
            value = point[path]
            place.append((len(listed), float(value) if isinstance(value, int | float) else 0.0))
    return place


def _toml(value: Any) -> str:
    """A value as TOML, in one line; TOML takes neither half of a pair of surrogates, nor DEL as it is."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _without_nulls(value: Any) -> Any:
    """TOML has no null: a key without a value is left out."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list | tuple) else value
