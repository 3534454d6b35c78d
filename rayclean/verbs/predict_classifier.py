"""The classifier of `predict`: the network that predicts its own training data, one a mode of `predict.mode`."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rayclean.config import Config, Plugin
from rayclean.datasets.own_probabilities import (
    column_places,
    find_probability_files,
    gather_probabilities,
)
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.models.loading import describe_encoder
from rayclean.progress import progress_bar
from rayclean.runtime.engines import Engines
from rayclean.tasks.base import Task
from rayclean.training.job import DataSpec, ExampleSelection, FitJob, FitResult, FitSpec
from rayclean.training.side_by_side import trains_side_by_side


@dataclass(frozen=True)
class Classifier:
    """Trains the networks of the configured mode, if it has any, and writes their predictions."""

    config: Config
    engines: Engines
    task: Task
    load: Folder
    out: Folder
    folds: Folder
    """The fold of every example."""
    features: Folder
    """Folder of features, which are computed before where the encoder is frozen, and by the network elsewhere."""
    frozen: bool
    """Whether only a head is trained, on features."""

    def fit(self) -> list[FitResult]:
        """Train the networks; none where probabilities or a trained classifier are given."""
        if self.config.predict.mode not in ("out_of_fold", "in_sample"):
            return []
        data = DataSpec(self.load.url("examples"), features=self.features.url() if self.frozen else None)
        if self.config.predict.mode == "in_sample":
            selections = {"all": ExampleSelection("split")}
        else:
            selections = {
                f"fold-{fold}": ExampleSelection("fold", fold, self.folds.url())
                for fold in range(self.config.predict.folds)
            }
        jobs = [
            FitJob(name, data, selection, self.config.seed, self.out.url("models", name))
            for name, selection in selections.items()
        ]
        spec = FitSpec(
            self.config.encoder,
            Plugin(name="cross_entropy"),
            self.config.predict.training,
            tuple(self.task.labels.names),
            task=self.config.task,
        )
        with progress_bar("fit", None, "epochs") as progress:
            seen: set[tuple[Any, ...]] = set()

            def show(record: dict[str, Any]) -> None:
                progress.total = record["epochs"] * len(jobs)
                key = (record.get("job"), record["epoch"])
                progress.advance(0 if key in seen else 1)  # lost workers may repeat an epoch
                seen.add(key)

            if trains_side_by_side(self.config.encoder, self.task.per_token):
                results = self.engines.fit_side_by_side(jobs, spec, show)
            else:
                results = self.engines.fit_jobs(jobs, spec, self.out.url("ray"), show)
        self.out.remove("ray")
        return [results[job.name] for job in jobs]

    def predict(self, fits: list[FitResult], output: Folder) -> tuple[dict[str, Any], int]:
        """Write the predictions of every example.

        Returns:
            The sums of `runtime.predict.predict_shards`, and the number of rows of a file of given probabilities that
            were not needed.
        """
        from rayclean.runtime.predict import predict_heads, predict_shards

        settings, examples = self.config.predict, self.load.sub("examples")
        if settings.mode == "given":
            return _take_given(self.config, self.load, output, self.task.labels.names)
        features = None if self.frozen else self.features
        if settings.model is not None:
            _check_classes(settings.model, self.task)
            figures = predict_shards(
                self.engines, examples, output, [settings.model], self.task, folds=None, config=settings,
                features=features,
            )  # fmt: skip
            return figures, 0
        networks = [self.out.url("models", fit.name, "model") for fit in fits]
        folds = self.folds if len(networks) > 1 else None
        if self.frozen:
            return predict_heads(
                self.engines, examples, self.features, output, networks, self.task, folds=folds
            ), 0
        return predict_shards(
            self.engines,
            examples,
            output,
            networks,
            self.task,
            folds=folds,
            config=settings,
            features=features,
        ), 0


def probability_key(config: Config) -> str:
    """Column of the ids in a file of given probabilities."""
    return config.dataset.id or "example_id"


def _check_classes(model: str, task: Task) -> None:
    """A classifier of other classes, of the same ones in another order, or of labels of another form would mean
    something else.
    """
    described, names = describe_encoder(model), task.labels.names
    known = list(described["labels"])
    if described.get("label_form", "class") != task.label_form:
        raise ConfigError(
            f"predict.model: {model} was trained on labels of another form ({described.get('label_form', 'class')}) than "
            f"the task has ({task.label_form}); train one on this data set"
        )
    if known != names:
        raise ConfigError(
            f"predict.model: {model} knows the classes {known}, the data set has {names}; set dataset.labels to the "
            "classifier's, in its order, or train one on this data set"
        )


def _take_given(
    config: Config, load: Folder, output: Folder, names: Sequence[str]
) -> tuple[dict[str, Any], int]:
    """Write `predictions/` from the user's probabilities."""
    from rayclean.runtime.shard_figures import label_figures
    from rayclean.tasks.probabilities import FOLD_NONE, prediction_table

    assert config.predict.path is not None
    columns = None if config.predict.columns is None else column_places(config.predict.columns, names)
    ids = {
        name: [
            load.read_table(name, shard, columns=["example_id"])["example_id"].to_numpy()
            for shard in load.shards(name)
        ]
        for name in ("examples", "test")
    }
    rejected = sum(load.read_table("rejected", shard).num_rows for shard in load.shards("rejected"))
    total: dict[str, Any] = {"rows": 0}
    with tempfile.TemporaryDirectory(prefix="rayclean-given-") as folder:
        values, passed_over = gather_probabilities(
            find_probability_files(config.predict.path), probability_key(config), np.concatenate(ids["examples"]), len(names),
            Path(folder) / "values.bin",
            not_needed=np.concatenate([np.empty(0, np.int64), *ids["test"]]), rejected=rejected,
            columns=columns,
        )  # fmt: skip
        with progress_bar("predict", len(values), "examples") as progress:
            for shard, shard_ids in zip(load.shards("examples"), ids["examples"], strict=True):
                labels = load.read_table("examples", shard, columns=["given_label"])["given_label"]
                rows = np.array(values[total["rows"] : total["rows"] + len(shard_ids)])
                fold = np.full(len(shard_ids), FOLD_NONE, dtype=np.int16)
                table = prediction_table(shard_ids, labels, rows, fold)
                output.write_table(table, shard)
                for name, value in {"rows": len(shard_ids), **label_figures(table)}.items():
                    total[name] = total.get(name, 0) + value
                progress.advance(len(shard_ids))
    return total, passed_over
