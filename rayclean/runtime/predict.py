"""Inference over example shards in processes that each load their networks once.

An item is one shard: a process reads it, runs the network, writes the whole output shard and returns figures.
Beside a GPU a process reads and writes one shard while the networks run on another. An existing output shard with
exactly the ids of its examples is kept, so a restarted run resumes.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from rayclean.config import Plugin, PredictConfig
from rayclean.errors import ArtifactError, RaycleanError
from rayclean.fingerprints import fingerprint
from rayclean.folder import Folder
from rayclean.models.base import Encoder
from rayclean.models.inference import infer, lower_bodies
from rayclean.models.loading import build_encoder, encoder_class, load_encoder
from rayclean.progress import progress_bar
from rayclean.runtime.engines import Engines
from rayclean.runtime.gpus import require_cuda
from rayclean.runtime.shard_figures import CUT, count_rows, holds_examples, shard_figures, sum_figures
from rayclean.runtime.threads import tokenize_on
from rayclean.schema import features as features_schema
from rayclean.schema import list_column, matrix
from rayclean.tasks.base import Task
from rayclean.tasks.probabilities import FOLD_NONE
from rayclean.training.token_shards import kept_tokens


@dataclass(frozen=True)
class InferencePlan:
    """Description of the inference in plain values, small to send; each process builds its networks from
    it.
    """

    examples: str
    """Folder of example shards."""
    features: str | None
    """Folder for feature shards; None: no features are written."""
    predictions: str | None
    """Folder for prediction shards; None: no predictions are written."""
    networks: tuple[str, ...] = ()
    """Folders of saved networks: network f predicts fold f, a single one predicts all. Empty: the untrained
    `encoder`."""
    folds: str | None = None
    """Folder with the fold of every example (`schema.FOLDS`); only for several networks."""
    encoder: Plugin | None = None
    task: Task | None = None
    """What a label is; None: nothing is predicted."""
    seed: int = 0
    precision: Any = "auto"
    tokens_per_batch: int | None = None
    kept: str | None = None
    """Folder that caches this encoder's features by the content of the examples; None: no cache."""


def compute_features(
    engines: Engines,
    examples: Folder,
    output: Folder,
    encoder: Plugin,
    *,
    seed: int,
    config: PredictConfig,
    kept: Folder | None = None,
) -> dict[str, Any]:
    """Write `features/` of an encoder without any training.

    Args:
        engines: engines that run the work.
        examples: folder of example shards.
        output: folder for shards of the same names (`schema.features`).
        encoder: name and options of the encoder.
        seed: seed of its random weights, if it has any.
        config: precision, size of batches and pool.
        kept: folder that caches the features of frozen encoders, which need no seed: they depend only on the
            ids and texts of a shard, not on its labels.

    Returns:
        Sums over all shards: `rows`, `cut`, `resumed` (rows taken from an earlier attempt or the cache).
    """
    plan = InferencePlan(
        examples.url(), output.url(), None, encoder=encoder, seed=seed,
        precision=engines.inference_precision(config.precision), tokens_per_batch=config.tokens_per_batch,
    )  # fmt: skip
    if kept is not None:
        _, options = encoder_class(encoder)
        plan = replace(plan, kept=kept.url(fingerprint(encoder.name, options.identity(), plan.precision)))
    return _run(engines, plan, config, "embed")


def predict_shards(
    engines: Engines,
    examples: Folder,
    output: Folder,
    networks: Sequence[str],
    task: Task,
    *,
    folds: Folder | None,
    config: PredictConfig,
    features: Folder | None = None,
) -> dict[str, Any]:
    """Write `predictions/` of saved networks, and `features/` of the first.

    Args:
        engines: engines that run the work.
        examples: folder of example shards; a null given label gives null given columns.
        output: folder for the shards of the same names (`Task.prediction_table`).
        networks: folders of the networks; network f predicts the examples of fold f; a single one predicts all.
        task: what a label is.
        folds: the fold of every example (`schema.FOLDS`); None for a single network.
        config: precision, size of batches and pool.
        features: folder for feature shards, all by network 0, so that they share one space; None: not
            written.

    Returns:
        Sums over all shards: `rows`, `cut`, `resumed`; where a label is one class also `correct`, `log_loss`,
        `labelled`.
    """
    where = features.url() if features is not None else None
    plan = InferencePlan(
        examples.url(), where, output.url(), tuple(networks), folds.url() if folds is not None else None, task=task,
        precision=engines.inference_precision(config.precision), tokens_per_batch=config.tokens_per_batch,
    )  # fmt: skip
    return _run(engines, plan, config, "predict")


def predict_heads(
    engines: Engines,
    examples: Folder,
    features: Folder,
    output: Folder,
    networks: Sequence[str],
    task: Task,
    *,
    folds: Folder | None,
) -> dict[str, Any]:
    """Write `predictions/` from cached features by the heads of saved networks; returns the sums of
    `predict_shards`.
    """
    where = folds.url() if folds is not None else None
    plan = InferencePlan(examples.url(), features.url(), output.url(), tuple(networks), where, task=task)
    with progress_bar("predict", count_rows(examples), "examples") as progress:
        return sum_figures(
            engines.map_items(functools.partial(_run_heads, plan), examples.shards()), progress
        )


def _run(engines: Engines, plan: InferencePlan, config: PredictConfig, title: str) -> dict[str, Any]:
    examples = Folder(plan.examples)
    with (
        progress_bar(title, count_rows(examples), "examples") as progress,
        engines.counting(progress) as tell,
    ):
        runner = functools.partial(ShardRunner, plan, tell=tell)
        return sum_figures(engines.map_networks(runner, examples.shards(), config.actors), progress)


class ShardRunner:
    """Networks that are loaded once and then run on many shards, by one thread at a time; several may call."""

    def __init__(
        self,
        plan: InferencePlan,
        threads: int = 1,
        use_gpu: bool = False,
        *,
        tell: Callable[[int], None] = lambda rows: None,
    ):
        torch.set_num_threads(threads)  # Ray sets OMP_NUM_THREADS to the actor's CPUs
        self.plan, self.tell = plan, tell
        self.device = "cuda" if use_gpu else "cpu"
        if use_gpu:  # on CPUs, tokenizers of several threads would take the cores of the networks
            tokenize_on(threads)
        self.turn = threading.Lock()
        self.examples = Folder(plan.examples)
        self.networks: list[Encoder] = []

    def _load(self) -> None:
        if self.device == "cuda":
            require_cuda()
        if self.plan.encoder is not None:
            self.networks = [build_encoder(self.plan.encoder, 1, self.plan.seed).eval()]
        else:
            self.networks = [load_encoder(folder) for folder in self.plan.networks]
        for network in self.networks:
            network.to(self.device)
        lower_bodies(self.networks, self.plan.precision, torch.device(self.device))
        self.tokenizer = self.networks[0].tokenizer(self.networks[0].config)
        self.kept_tokens = kept_tokens(self.plan.examples, self.tokenizer, self.networks[0].per_token)

    def __call__(self, shard: str) -> dict[str, Any]:
        """Run the networks on a shard, unless its output exists."""
        plan = self.plan
        per_token = plan.task is not None and plan.task.per_token
        columns = ["example_id", "text", "given_label", *(["tokens"] if per_token else [])]
        table = self.examples.read_table(shard, columns=columns)
        ids = table["example_id"].to_numpy()
        features = Folder(plan.features) if plan.features is not None else None
        predictions = Folder(plan.predictions) if plan.predictions is not None else None
        outputs = [folder for folder in (features, predictions) if folder is not None]
        if all(holds_examples(folder, shard, ids) for folder in outputs):
            return {**shard_figures(outputs[-1], shard), "resumed": len(ids)}
        kept = Folder(plan.kept) if plan.kept is not None else None
        name = f"{_content(table)}.parquet" if kept is not None else ""  # every text is read for it
        if kept is not None and features is not None and kept.exists(name):
            features.take(kept, name, shard)
            return {**shard_figures(features, shard), "resumed": len(ids)}
        with self.turn:
            if not self.networks:  # only when needed: a restarted run that is done loads nothing
                self._load()
        fold = _fold_of_each(shard, ids, plan)
        found = infer(
            self.networks, self.tokenizer, table["tokens" if per_token else "text"].to_pylist(), np.maximum(fold, 0),
            precision=plan.precision, tokens_per_batch=plan.tokens_per_batch, on_rows=self.tell, turn=self.turn,
            kept=self.kept_tokens(shard),
        )  # fmt: skip
        cut = {CUT: str(int(found.cut.sum())).encode()}
        if features is not None:
            _check_finite(found.features, ids, "features")
            values = [table["example_id"], list_column(found.features)]
            schema = features_schema(found.features.shape[1])
            features.write_table(pa.table(values, schema=schema).replace_schema_metadata(cut), shard)
            if kept is not None:
                kept.take(features, shard, name)
        if predictions is not None:
            assert plan.task is not None
            owners = ids if found.offsets is None else np.repeat(ids, np.diff(found.offsets))
            _check_finite(found.logits, owners, "logits")
            probabilities = plan.task.probabilities(found.logits)
            output = plan.task.prediction_table(ids, table["given_label"], probabilities, fold, found.offsets)
            predictions.write_table(output.replace_schema_metadata(cut), shard)
        return {**shard_figures(outputs[-1], shard), "resumed": 0}


def _run_heads(plan: InferencePlan, shard: str) -> dict[str, Any]:
    assert plan.features is not None
    assert plan.predictions is not None
    assert plan.task is not None
    output, features = Folder(plan.predictions), Folder(plan.features)
    table = Folder(plan.examples).read_table(shard, columns=["example_id", "given_label"])
    ids = table["example_id"].to_numpy()
    if holds_examples(output, shard, ids):
        return {**shard_figures(output, shard), "resumed": len(ids)}
    if not holds_examples(features, shard, ids):
        raise ArtifactError(
            f"{features.url(shard)} does not hold the examples of that shard: run 'rayclean predict CONFIG --again'"
        )
    cached = torch.from_numpy(matrix(features.read_table(shard, columns=["features"])["features"]).copy())
    fold = _fold_of_each(shard, ids, plan)
    logits: npt.NDArray[np.float32] | None = None
    for index, folder in enumerate(plan.networks):
        network, rows = load_encoder(folder), np.flatnonzero(np.maximum(fold, 0) == index)
        logits = np.empty((len(ids), network.num_classes), dtype=np.float32) if logits is None else logits
        with torch.inference_mode():
            logits[rows] = network.logits(cached[torch.from_numpy(rows)]).numpy()
    assert logits is not None
    _check_finite(logits, ids, "logits")
    probabilities = plan.task.probabilities(logits)
    output.write_table(plan.task.prediction_table(ids, table["given_label"], probabilities, fold), shard)
    return {**shard_figures(output, shard), "resumed": 0}


def _fold_of_each(shard: str, ids: npt.NDArray[np.int64], plan: InferencePlan) -> npt.NDArray[np.int16]:
    """Fold, and so network, of each example; FOLD_NONE if one network predicts all."""
    if plan.folds is None:
        return np.full(len(ids), FOLD_NONE, dtype=np.int16)
    table = Folder(plan.folds).read_table(shard)
    if not np.array_equal(table["example_id"].to_numpy(), ids):
        raise ArtifactError(
            f"{plan.folds} holds other examples than {shard}: run 'rayclean predict CONFIG --again'"
        )
    return np.asarray(table["fold"].to_numpy(), dtype=np.int16)


def _content(examples: pa.Table) -> str:
    """Hash of the ids and texts of a shard, in their order."""
    return fingerprint(examples["example_id"].to_pylist(), examples["text"].to_pylist())


def _check_finite(values: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], what: str) -> None:
    """`ids`: example of each row of the values."""
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise RaycleanError(
            f"{what} of {len(set(ids[bad]))} of {len(set(ids))} examples of a shard are not finite (first "
            f"example_id {ids[bad][0]}): "
            "the network diverged or bfloat16 overflows; set predict.precision = 'float32' or lower the learning rate"
        )
