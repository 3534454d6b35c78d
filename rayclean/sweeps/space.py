"""From the swept fields to trials: points of the space, drawn or enumerated, each under every seed."""

import itertools
import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np

from rayclean.fingerprints import fingerprint
from rayclean.sweeps.dimension import Dimension, is_condition
from rayclean.sweeps.spec import Sweep

Point = dict[str, Any]
"""Path of the config -> value; a field whose condition does not hold is absent."""


@dataclass(frozen=True)
class Trial:
    """One point under one seed."""

    point: Point
    seed: int
    name: str
    """Hash of all that its result depends on, data files included: the same config on the same data is the
    same trial, whichever sweep file named it.
    """

    @property
    def overrides(self) -> Point:
        """The values that replace those of the base config."""
        return {**self.point, "seed": self.seed}

    @cached_property
    def title(self) -> str:
        """Name for people: `method.lambda_=0.7 seed=1`."""
        return " ".join(f"{path}={show(value)}" for path, value in self.overrides.items())


class Suggest(Protocol):
    """The part of an Optuna trial that draws values."""

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """One of the choices."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number between two."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A whole number between two."""


def points(sweep: Sweep) -> list[Point]:
    """All points of a sweep that is not searched by Optuna, each once, in the order of the file.

    >>> lambdas = {"method.lambda_": {"grid": [0.1, 0.7]}, "relabel.demonstrations": {"grid": [0, 5]}}
    >>> len(points(Sweep(name="x", base="b.toml", space=lambdas)))
    4
    """
    grids = {path: each for path, each in sweep.space.items() if not each.drawn}
    others = [path for path in sweep.space if path not in grids]
    found: dict[str, Point] = {}
    for values in itertools.product(*(each.listed for each in grids.values())):
        # Grids whose condition does not hold must not multiply the draws.
        fixed = only_valid(sweep, dict(zip(grids, values, strict=True)), unknown=others)
        for sample in range(sweep.samples if others else 1):
            # The same settings under every condition, or the easiest condition would choose between them. A
            # seed for each sample at each setting: adding grid values or samples moves no earlier draw.
            settings = {path: value for path, value in fixed.items() if not is_condition(path)}
            rng = np.random.default_rng(int(fingerprint(sweep.draw_seed, settings, sample), 16))
            drawn = {path: _draw(sweep.space[path], rng) for path in others}
            point = only_valid(sweep, {**fixed, **drawn})
            found.setdefault(json.dumps(point, sort_keys=True), point)
    return list(found.values())


def only_valid(sweep: Sweep, values: Point, unknown: Collection[str] = ()) -> Point:
    """The fields whose condition holds, in the order of the file; fields in `unknown` may still take any
    value.
    """
    kept = dict(values)
    while True:  # a condition may depend on a field that another condition removes
        gone = [path for path in kept if not _holds(sweep.space[path], kept, unknown)]
        if not gone:
            return {path: kept[path] for path in sweep.space if path in kept}
        for path in gone:
            del kept[path]


def suggester(sweep: Sweep) -> Callable[[Suggest], None]:
    """A define-by-run function for Optuna; a field whose condition does not hold is not asked for. Optuna's
    parameters are the point, but tables and lists are chosen by their position: see `drawn`.
    """
    return partial(_suggest, sweep)  # no closure: Ray Tune pickles its searcher


def _suggest(sweep: Sweep, trial: Suggest) -> None:
    point: Point = {}
    waiting = list(sweep.space)
    while waiting:
        ready = [p for p in waiting if not set(sweep.space[p].when) & set(waiting)] or waiting[:1]
        for path in ready:
            waiting.remove(path)
            if _holds(sweep.space[path], point):
                point[path] = _value(sweep.space[path], _suggested(trial, path, sweep.space[path]))


def drawn(sweep: Sweep, parameters: Point) -> Point:
    """The point that Optuna's parameters stand for."""
    return {p: _value(each, parameters[p]) for p, each in sweep.space.items() if p in parameters}


def show(value: Any) -> str:
    """A value in a title or a table: plug-ins by their name, with their options in brackets.

    >>> show({"name": "knn", "neighbours": 5}), show(0.1), show({"name": "lane"})
    ('knn(neighbours=5)', '0.1', 'lane')
    """
    if isinstance(value, dict):
        rest = ",".join(f"{key}={show(each)}" for key, each in value.items() if key != "name")
        return f"{value.get('name', '')}({rest})" if rest else str(value.get("name", ""))
    if isinstance(value, float):
        return f"{value:.6g}"
    return ",".join(map(show, value)) if isinstance(value, list | tuple) else str(value)


def _suggested(trial: Suggest, path: str, dimension: Dimension) -> Any:
    if dimension.uniform is not None:
        return trial.suggest_float(path, *dimension.uniform)
    if dimension.log_uniform is not None:
        return trial.suggest_float(path, *dimension.log_uniform, log=True)
    if dimension.integer is not None:
        return trial.suggest_int(path, *dimension.integer)
    choices = dimension.listed
    return trial.suggest_categorical(path, list(choices if _is_plain(dimension) else range(len(choices))))


def _is_plain(dimension: Dimension) -> bool:
    """Whether Optuna takes all choices as they are."""
    return all(isinstance(choice, str | int | float | bool) for choice in dimension.listed)


def _value(dimension: Dimension, suggested: Any) -> Any:
    return suggested if _is_plain(dimension) else dimension.listed[suggested]


def _draw(dimension: Dimension, rng: np.random.Generator) -> Any:
    if dimension.uniform is not None:
        return _within(dimension.uniform, rng.uniform(*dimension.uniform))
    if dimension.log_uniform is not None:
        low, high = map(math.log, dimension.log_uniform)
        return _within(dimension.log_uniform, math.exp(rng.uniform(low, high)))
    if dimension.integer is not None:
        return int(rng.integers(dimension.integer[0], dimension.integer[1] + 1))
    return dimension.listed[int(rng.integers(len(dimension.listed)))]


def _within(bounds: tuple[float, float], value: float) -> float:
    """The value between the bounds, which rounding may have carried it across."""
    return float(min(max(value, bounds[0]), bounds[1]))


def _holds(dimension: Dimension, point: Point, unknown: Collection[str] = ()) -> bool:
    return all(
        other in unknown
        or (other in point and point[other] in (wanted if isinstance(wanted, list | tuple) else (wanted,)))
        for other, wanted in dimension.when.items()
    )
