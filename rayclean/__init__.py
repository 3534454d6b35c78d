"""rayclean: find wrong labels by self-prediction, have an LLM choose between two candidates, train in spite
of the rest.

The six verbs `load predict detect relabel train evaluate`, and `clean` for all of them, are functions of a
config:

    import rayclean
    config = rayclean.load_config("configs/quickstart.toml", ["detect.budget=0.05"])
    run = rayclean.clean(config)
    print(run.path("report.html"))

Importing this package loads neither torch nor ray; the verbs load what they need when they are called.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "Config": "rayclean.config",
    "load_config": "rayclean.config",
    "parse_config": "rayclean.config",
    "Run": "rayclean.run",
    "RaycleanError": "rayclean.errors",
    **dict.fromkeys(
        ("load", "predict", "detect", "relabel", "train", "evaluate", "clean", "revert", "audit", "certify"),
        "rayclean.pipeline",
    ),
    "push": "rayclean.publishing.push",
    "status": "rayclean.run_status",
}

__all__ = [
    "Config",
    "RaycleanError",
    "Run",
    "audit",
    "certify",
    "clean",
    "detect",
    "evaluate",
    "load",
    "load_config",
    "parse_config",
    "predict",
    "push",
    "relabel",
    "revert",
    "status",
    "train",
]

if TYPE_CHECKING:
    from rayclean.config import Config, load_config, parse_config
    from rayclean.errors import RaycleanError
    from rayclean.pipeline import (
        audit,
        certify,
        clean,
        detect,
        evaluate,
        load,
        predict,
        relabel,
        revert,
        train,
    )
    from rayclean.publishing.push import push
    from rayclean.run import Run
    from rayclean.run_status import status


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rayclean' has no attribute {name!r}")
