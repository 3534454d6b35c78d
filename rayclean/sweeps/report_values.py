"""The results of a sweep as JSON values, for `rayclean sweep-report --json`."""

from typing import Any

from rayclean.folder import Folder
from rayclean.plain_values import plain_value
from rayclean.sweeps.plan import sweep_root
from rayclean.sweeps.results import Results


def sweep_values(results: Results) -> dict[str, Any]:
    """Name and files of a sweep, its objectives, and the figures of every point in the order of the sweep."""
    sweep, folder = results.sweep, Folder(sweep_root(results.sweep))
    values: dict[str, Any] = plain_value({
        "name": sweep.name,
        "folder": folder.url(),
        "report": folder.url("report.html"),
        "best_config": folder.url("best.toml") if results.best is not None else None,
        "objectives": [{"metric": each.metric, "mode": each.mode} for each in sweep.objectives],
        "metrics": results.metrics,
        "currency": results.currency,
        "provisional": results.provisional,
        "points": [
            {
                "point": row.point,
                "seeds": row.seeds,
                "reference": row.is_reference,
                "best": row is results.best,
                "front": row.is_among(results.front),
                "stopped": row.stopped,
                "figures": row.figures,
            }
            for row in results.rows
        ],
        "failed": results.failed,
    })  # fmt: skip
    return values
