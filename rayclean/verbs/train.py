"""Train a network on the final labels, by the configured method.

Reads `load/examples/`, `relabel/labels/` and, where the encoder is frozen, `predict/features/`: then only the head is
trained, on features that were computed once. Writes `model/` (the best epoch), `model_last/`, `metrics.jsonl` (a line
per epoch), `dynamics/` (what the method noted per example, and its quality) and `result.json`.
"""

from typing import Any

from rayclean import progress
from rayclean.artifacts import Folder, Run
from rayclean.config import Config
from rayclean.methods import METHODS
from rayclean.models import ENCODERS
from rayclean.plugins import build_options, resolve
from rayclean.schema import LabelSet
from rayclean.training.job import DataSpec, FitJob, FitSpec, Selection

VERSION = 1


def validate(config: Config, run: Run) -> None:
    """The encoder and the method exist and their options are right.

    Raises:
        ConfigError: an unknown name or option.
    """
    for family, registry, plugin in (
        ("encoder", ENCODERS, config.encoder),
        ("method", METHODS, config.method),
    ):
        build_options(family, resolve(family, registry, plugin.name), plugin.options)


def run(config: Config, run: Run, out: Folder) -> dict[str, Any]:
    """Train, and return epochs, best epoch, development figures and speed."""
    from rayclean.runtime.train import fit_jobs

    names = LabelSet.from_json(run.require("load").read_text("labels.json")).names
    features = run.require("predict").sub("features")
    data = DataSpec(
        examples=run.require("load").url("examples"),
        labels=run.require("relabel").url("labels"),
        label_column="final_label",
        features=features.url() if features.shards() else None,
    )
    job = FitJob("train", data, Selection("split"), config.seed, out.url(), keep_last=True, standalone=True)
    spec = FitSpec(config.encoder, config.method, config.train, tuple(names))
    with progress.task("train", config.train.epochs, "epochs") as task:

        def tell(record: dict[str, Any]) -> None:
            task.total = record["epochs"]
            task.advance(
                max(0, record["epoch"] - task.done)
            )  # an epoch repeated after a lost worker is no news

        result = fit_jobs([job], spec, config.cluster, out.url("ray"), tell)["train"]
    out.remove("ray")
    return {
        "method": config.method.name,
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "selected_by": result.selected_by,
        "dev_loss": result.dev_loss,
        "dev_accuracy": result.dev_accuracy,
        "train_examples": result.train_examples,
        "dev_examples": result.dev_examples,
        "seconds": result.seconds,
        "examples_per_second": result.examples_per_second,
    }
