"""Reproduction of a sweep's results: the best setting as a config, a trial as a command."""

import shlex

import tomli_w

from rayclean.config import parse_config
from rayclean.evaluation.formatting import format_measured
from rayclean.fingerprints import fingerprint
from rayclean.overrides import put_over, toml_value, without_nulls
from rayclean.sweeps.dimension import show
from rayclean.sweeps.plan import base_values
from rayclean.sweeps.results import Results, conditions, setting
from rayclean.sweeps.space import Point
from rayclean.sweeps.spec import Sweep


def best_config(results: Results) -> str:
    """The base config with the best setting as TOML, ready to run; conditions keep their base values.

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
    value = f"{results.title(objective.metric)} {format_measured(objective.metric, figure.mean, figure.sd)}"
    seeds = "one seed" if figure.seeds == 1 else f"{figure.seeds} seeds"
    at = ", ".join(f"{path} = {show(value)}" for path, value in conditions(row.point).items())
    line = f"Best of the sweep {sweep.name}: {value} over {seeds}{' at ' + at if at else ''}."
    comment = "".join(letter if letter.isprintable() else " " for letter in line)
    return f"# {comment}\n{tomli_w.dumps(without_nulls(values))}"


def trial_command(sweep: Sweep, point: Point, seed: int) -> str:
    """The command that repeats one trial as a single run."""
    name = f"{sweep.name}-{fingerprint(point)[:6]}-{seed}"
    overrides = without_nulls({**sweep.set, **point, "seed": seed, "name": name})
    written = [f"{path}={toml_value(value)}" for path, value in overrides.items()]
    return shlex.join(["rayclean", "clean", sweep.base_shown or sweep.base, *written])
