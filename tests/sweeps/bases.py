"""A base config over a tiny data set, sweeps over it, and results of trials that nobody ran."""

import json
from pathlib import Path
from typing import Any

from rayclean.sweeps.plan import SweepPlan, base_values
from rayclean.sweeps.space import Point
from rayclean.sweeps.spec import Sweep
from tests import toy


def base(folder: Path, **sections: Any) -> str:
    """Path of the base config; `sections` replace those of the toy's."""
    config = toy.config(toy.write(folder / "data", rows=40, files=1), folder / "runs") | sections
    path = folder / "base.json"
    path.write_text(json.dumps(config))
    return str(path)


def sweep(folder: Path, space: dict[str, Any], **more: Any) -> Sweep:
    """A sweep over the base in `folder`, its artifacts beside it; `base` is made where there is none."""
    path = folder / "base.json"
    return Sweep(
        name=more.pop("name", "s"),
        base=str(path) if path.exists() else base(folder),
        output=str(folder / "sweeps"),
        space=space,
        **more,
    )


def result(of: Sweep, point: Point, seed: int, **figures: float) -> tuple[str, dict[str, Any]]:
    """Name and `result.json` of a trial."""
    name = SweepPlan(of, base_values(of)).work_at(point, seed).name
    return name, {"trial": name, "point": point, "seed": seed, "figures": figures, "stopped": False}
