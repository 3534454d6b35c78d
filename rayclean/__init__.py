"""rayclean: find wrong labels by self-prediction, have an LLM choose between two candidates, train in spite
of the rest.

The six verbs `load predict detect relabel train evaluate`, and `clean` for all of them, are functions of a
config:

    import rayclean
    config = rayclean.load_config("configs/quickstart.toml", ["detect.budget=0.05"])
    run = rayclean.clean(config)
    print(run.path("report.html"))

`clean` and `find_label_errors` take a table or a file as well: `rayclean.find_label_errors(df, text="body", label="category")`.

Importing this package loads neither torch nor ray; the verbs load what they need when they are called.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "Config": "rayclean.config",
    "load_config": "rayclean.config",
    "parse_config": "rayclean.config",
    "RunResults": "rayclean.results",
    "Run": "rayclean.run",
    "RaycleanError": "rayclean.errors",
    **dict.fromkeys(("load", "predict", "detect", "relabel", "train", "evaluate"), "rayclean.pipeline"),
    **dict.fromkeys(("clean", "find_label_errors"), "rayclean.api"),
    **dict.fromkeys(("revert", "audit", "certify", "export"), "rayclean.run_actions"),
    "push": "rayclean.publishing.push",
    "status": "rayclean.run_status",
    "log": "rayclean.stories.story",
    "Story": "rayclean.stories.events",
    "diff": "rayclean.differences.runs",
}

__all__ = [
    "Config",
    "RaycleanError",
    "Run",
    "RunResults",
    "Story",
    "audit",
    "certify",
    "clean",
    "detect",
    "diff",
    "evaluate",
    "export",
    "find_label_errors",
    "load",
    "load_config",
    "log",
    "parse_config",
    "predict",
    "push",
    "relabel",
    "revert",
    "status",
    "train",
]

if TYPE_CHECKING:
    from rayclean.api import clean, find_label_errors
    from rayclean.config import Config, load_config, parse_config
    from rayclean.differences.runs import diff
    from rayclean.errors import RaycleanError
    from rayclean.pipeline import detect, evaluate, load, predict, relabel, train
    from rayclean.publishing.push import push
    from rayclean.results import RunResults
    from rayclean.run import Run
    from rayclean.run_actions import audit, certify, export, revert
    from rayclean.run_status import status
    from rayclean.stories.events import Story
    from rayclean.stories.story import log


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rayclean' has no attribute {name!r}")
