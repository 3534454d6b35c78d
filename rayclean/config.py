"""The configuration of a run: typed, frozen, checked before anything expensive starts.

A config is a sparse TOML file over the defaults written here; machines write JSON. Dotted overrides come last:
`rayclean clean configs/quickstart.toml configs/cluster/one-gpu.toml detect.budget=0.05`. Every section is named after
the verb that reads it, so that changing a key re-runs that verb and those after it, never those before.

Sections whose `name` chooses a plug-in (`[encoder] [annotator] [method]`, the entries of `detect.detectors`)
take the plug-in's own options beside the name; the options are declared and documented in the plug-in's file.
"""

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from rayclean.errors import ConfigError
from rayclean.overrides import apply_override, read_values
from rayclean.plugins import Options, explain

CONFIG_VERSION = 1
"""Version of the config's meaning; a config that names another one is refused."""


class Plugin(Options, extra="allow"):
    """A plug-in chosen by name, its own options beside it: `{name = "knn", neighbours = 20}`."""

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside `name`, still unchecked: `plugins.build_options` checks them."""
        return dict(self.model_extra or {})


class Split(Options):
    """Where the development or the test examples come from: their own files, or a share of the data set."""

    path: str | tuple[str, ...] | None = None
    """Own file(s), read with the data set's format and columns."""
    share: float = Field(0.0, ge=0, lt=1)
    """Share of the data set's examples, drawn by a hash of `example_id` (so: the same ones whatever the order)."""
    label: str | None = None
    """Column of the given label, if another than the data set's; a test file may hold only the truth."""
    clean: bool = False
    """Development examples only: their labels are declared right, so they are never suspects."""

    @model_validator(mode="after")
    def _one_source(self) -> "Split":
        if self.path is not None and self.share:
            raise ValueError("set either path (own files) or share (a part of the data set), not both")
        return self


class NoiseConfig(Options):
    """Label noise injected on purpose, for experiments: the original labels become the truth (METHODS: `datasets/noise.py`)."""

    kind: Literal[
        "sym", "sym_incl", "asym", "asym_map", "idn_softmax", "idn_xia", "lane_shuffle", "lane_flip"
    ] = "sym"
    """Noise model; each is defined in `rayclean/functional/noise.py`."""
    rate: float = Field(0.2, ge=0, le=1)
    """Requested rate; the realised rate is reported, since several kinds redraw the true label."""
    seed: int | None = None
    """Seed of the noise alone; the run's seed if absent."""
    exact: bool = False
    """`sym` and `asym` only: flip exactly round(rate x N) labels instead of each with probability `rate`."""
    mapping: dict[str, str] = Field(default_factory=dict)
    """`asym_map` only: label -> wrong label."""


class DatasetConfig(Options):
    """The labelled data set: where it is, which columns mean what, how it is split. Read by `load`."""

    path: str | tuple[str, ...]
    """File, folder, glob or URL (s3://, gs://, hdfs://, ...), a list of them, `hf://name[:config]` for a Hugging
    Face data set, or the name of a built-in one (`bbc_news`)."""
    format: Literal["auto", "parquet", "csv", "jsonl", "huggingface", "builtin"] = "auto"
    """`auto` goes by the name's ending."""
    hf_split: str = "train"
    """Split of a Hugging Face data set."""
    text: str | tuple[str, ...] = "text"
    """Text column, or several that are joined by `separator`."""
    separator: str = " [SEP] "
    """Between the parts of a text of several columns."""
    label: str = "label"
    """Column of the given label: strings, or integers that index `labels`."""
    id: str | None = None
    """Column of your own unique key (string or integer); without it, file and row make the identity."""
    truth: str | None = None
    """Column of the true label, where one is known. Only `evaluate` ever opens it."""
    labels: tuple[str, ...] | None = None
    """The label set, in index order. Without it: the sorted set of values found in the data."""
    unlabelled: tuple[int | str, ...] = ()
    """Values of the label column that mean "no label": their rows go to `rejected/`."""
    definitions: dict[str, str] = Field(default_factory=dict)
    """label -> what it means; used in prompts."""
    words: dict[str, str] = Field(default_factory=dict)
    """label -> one natural word or short phrase that a language model can score (verbaliser); the label if absent."""
    dev: Split = Split(share=0.1)
    """Development examples: early stopping and model selection. A share is cleaned like the rest."""
    test: Split = Split()
    """Test examples: never cleaned, read by `evaluate` alone."""
    noise: NoiseConfig | None = None
    """Noise to inject into the examples that will be cleaned; never into test or a separate dev set."""
    max_rejected: float = Field(0.1, ge=0, le=1)
    """Above this share of unusable rows the run stops: the config is probably wrong. Rows without label
    (`unlabelled`) do not count."""
    rows_per_shard: int = Field(8192, ge=1)
    """Examples per shard, the unit of parallel work and of resuming."""

    OPERATIONAL: ClassVar[tuple[str, ...]] = ("max_rejected",)

    @field_validator("labels")
    @classmethod
    def _labels_unique(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels is not None and len(set(labels)) < len(labels):
            raise ValueError(
                f"labels must be unique, got duplicates {sorted({x for x in labels if labels.count(x) > 1})}"
            )
        if labels is not None and len(labels) < 2:
            raise ValueError(f"at least two labels are needed, got {list(labels)}")
        return labels


class TrainingConfig(Options):
    """How a network is trained. `None` takes the encoder's own default (`models/<encoder>.py`)."""

    epochs: int | None = Field(None, ge=1)
    batch_size: int = Field(32, ge=1)
    """Examples per batch, over all workers together."""
    accumulate: int = Field(1, ge=1)
    """Batches per optimiser step; their gradients are averaged."""
    learning_rate: float | None = Field(None, gt=0)
    """Of the configured encoder; a method's further network of another kind has its own default."""
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps with rising learning rate, then linear decay to 0."""
    clip: float = Field(1.0, gt=0)
    """Maximum norm of each network's gradient."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many epochs without a better one (`predict`: by dev loss, `train`: by dev accuracy); `None` trains all
    epochs. The best epoch is kept either way."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the hardware has it."""


class TrainConfig(TrainingConfig):
    """The last training, by the configured method. Read by `train`."""

    labels: Literal["final", "given"] = "final"
    """`given`: leave the cleaning aside and let the method cope with all the noise, as papers do."""


class PredictConfig(Options):
    """Self-prediction: a model predicts the very examples it was trained on. Read by `predict`."""

    mode: Literal["out_of_fold", "in_sample", "given", "model"] = "out_of_fold"
    """`out_of_fold`: K models, each predicts the fold it did not see. `in_sample`: one model, early stopped on dev
    loss. `given`: bring your own probabilities (`path`). `model`: score with a classifier trained before (`model`)."""
    model: str | None = None
    """`model` only: folder of a trained classifier, like `runs/<name>/train/model`; nothing is trained then."""
    folds: int = Field(5, ge=2)
    """Number of folds; an example's fold is a hash of its `example_id`."""
    path: str | tuple[str, ...] | None = None
    """`given` only: parquet with the id column of the data set and `probabilities` (list of K floats)."""
    training: TrainingConfig = TrainingConfig()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of inference; `auto`: bfloat16 where the hardware is faster in it."""
    tokens_per_batch: int | None = Field(None, ge=1)
    """Padded tokens per inference batch; rows are sorted by length within a shard, so padding is small. `None`: 16,384
    on a GPU, 2,048 on a CPU."""
    actors: int | None = Field(None, ge=1)
    """Size of the actor pool; `None`: one per GPU, or up to four per node without."""

    OPERATIONAL: ClassVar[tuple[str, ...]] = ("tokens_per_batch", "actors")

    @model_validator(mode="after")
    def _given_needs_path(self) -> "PredictConfig":
        if (self.mode == "given") != (self.path is not None):
            raise ValueError("mode = 'given' needs path, and path needs mode = 'given'")
        if (self.mode == "model") != (self.model is not None):
            raise ValueError("mode = 'model' needs model, and model needs mode = 'model'")
        return self


class DetectConfig(Options):
    """Which examples are doubtful. Read by `detect`."""

    detectors: tuple[Plugin, ...] = (
        Plugin(name="confident_learning"),
        Plugin(name="self_confidence"),
    )
    """Detectors; each one's quality and vote stay columns of `findings/`."""
    combine: Literal["mean_rank", "mean", "min"] = "mean_rank"
    """How several qualities become one: mean of ranks in [0, 1], mean of scores, or the lowest score."""
    budget: float | int = 0.1
    """Suspects at most: a share of the examples (float in (0, 1]) or a count (integer)."""
    require_disagreement: bool = True
    """Only examples whose predicted label differs from the given one can be suspects: for the others the two
    candidates would coincide."""

    @field_validator("budget")
    @classmethod
    def _budget_in_range(cls, budget: float | int) -> float | int:
        if isinstance(budget, int) and not isinstance(budget, bool):
            if budget < 1:
                raise ValueError(f"a count must be at least 1, got {budget}")
        elif not 0 < budget <= 1:
            raise ValueError(f"a share must lie in (0, 1], got {budget}; a count must be an integer")
        return budget

    @field_validator("detectors", mode="before")
    @classmethod
    def _names_are_enough(cls, detectors: Any) -> Any:
        return tuple({"name": d} if isinstance(d, str) else d for d in detectors)

    @field_validator("detectors")
    @classmethod
    def _some_and_once(cls, detectors: tuple[Plugin, ...]) -> tuple[Plugin, ...]:
        names = [d.name for d in detectors]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"name at least one detector and each once, got {names}")
        return detectors


class RelabelConfig(Options):
    """What the annotator is asked and when its answer is taken. Read by `relabel`."""

    candidates: Literal["binary", "all"] = "binary"
    """`binary`: {given label, predicted label}. `all`: every label."""
    demonstrations: int = Field(0, ge=0, le=30)
    """Number of demonstrations, nearest neighbours among the examples that are no suspects."""
    selector: Literal["nearest", "random"] = "nearest"
    """Which demonstrations."""
    calibration: Literal["auto", "none", "batch", "content_free"] = "auto"
    """Removes a model's bias towards some labels: `batch` subtracts each label's mean score over all queries,
    `content_free` the score of a text without content. `auto`: `batch` for label words (`content_free` with more than
    32 classes), `none` for choices and for annotators that are no language model."""
    accept: float = Field(0.6, ge=0, le=1)
    """Least calibrated probability of the chosen label for a change; below it the given label is kept. At 0.5 every
    answer between two candidates counts, however close; raise it to harm fewer right labels, at the price of repairs."""
    max_queries: int | None = Field(None, ge=0)
    """Budget: queries sent (answers found in the ledger cost nothing). Budgets hold per relabelling: they survive a
    crash, and count anew once the configuration of relabel, or of a verb before it, is another."""
    max_tokens: int | None = Field(None, ge=0)
    """Budget: tokens, prompt and answer together; for relabel, and once more for a method that asks while it trains."""
    max_cost: float | None = Field(None, ge=0)
    """Budget in currency; needs `price_prompt` and `price_answer`."""
    price_prompt: float = Field(0.0, ge=0)
    """Currency per million prompt tokens."""
    price_answer: float = Field(0.0, ge=0)
    """Currency per million answer tokens."""
    max_error_rate: float = Field(0.2, ge=0, le=1)
    """The run stops when more than this share of (at least 20) queries ends in an error."""

    OPERATIONAL: ClassVar[tuple[str, ...]] = ("max_error_rate",)

    @model_validator(mode="after")
    def _cost_needs_prices(self) -> "RelabelConfig":
        if self.max_cost is not None and not (self.price_prompt or self.price_answer):
            raise ValueError("max_cost needs price_prompt and price_answer (currency per million tokens)")
        return self


class EvaluateConfig(Options):
    """What is measured at the end. Read by `evaluate`."""

    compare: bool = True
    """Train the same network also on the given labels and, where known, on the true ones."""
    report: bool = True
    """Write `report.html` beside `metrics.json`."""
    top_changes: int = Field(30, ge=0)
    """Most valuable changes shown with their texts in the report."""


class LLMSize(Options):
    """Size of a served language model on this cluster; what is None is as `annotator.server` says."""

    replicas: int | None = Field(None, ge=1)
    """Copies of the model."""
    max_replicas: int | None = Field(None, ge=1)
    """Copies while requests queue up."""
    tensor_parallel: int | None = Field(None, ge=1)
    """GPUs that share one copy."""
    max_num_seqs: int | None = Field(None, ge=1)
    """Sequences computed together by one copy."""
    gpu: bool | None = None
    """On GPUs or on CPUs."""


class ClusterConfig(Options):
    """Where the work runs. It changes no result, so it is part of no fingerprint."""

    address: str | None = None
    """Ray address; `None`: the one in RAY_ADDRESS, else an embedded Ray on this machine."""
    ray: bool | None = None
    """Whether verbs run on Ray: `true`: always; `false`: never, everything runs in this process; `None`: Ray starts when it
    is worth it: for a cluster, several workers, a GPU, a served language model, or more than half a minute of work."""
    cpus: int | None = Field(None, ge=1)
    """Logical CPUs of an embedded Ray; `None`: at least 4, so that two-core machines do not starve."""
    gpus: int | None = Field(None, ge=0)
    """GPUs of an embedded Ray; `None`: all that are seen."""
    workers: int = Field(1, ge=1)
    """Workers that train together."""
    max_workers: int | None = Field(None, ge=1)
    """Elastic training: so many workers if the cluster has room, at least `workers`; results do not depend on it."""
    cpus_per_worker: float = Field(1.0, gt=0)
    """CPUs reserved for each training worker."""
    use_gpu: bool | None = None
    """`None`: a GPU per worker if the cluster has one."""
    gpus_per_worker: float = Field(1.0, gt=0)
    """GPUs of each training worker; below 1 several workers, or trials of a sweep, share one."""
    llm: LLMSize = LLMSize()
    """Size of the annotator `served`; other annotators have none."""

    @model_validator(mode="after")
    def _workers_in_order(self) -> "ClusterConfig":
        if self.max_workers is not None and self.max_workers < self.workers:
            raise ValueError(f"max_workers must be at least workers = {self.workers}, got {self.max_workers}")
        return self


class Config(Options):
    """A whole run. `load_config` reads one from TOML or JSON and applies overrides."""

    version: int = CONFIG_VERSION
    """Version of the config's meaning."""
    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run: artifacts go to `<output>/<name>/`."""
    output: str = "runs"
    """Folder of all runs, on any file system that fsspec knows."""
    seed: int = 0
    """Seed of everything random."""
    task: Plugin = Plugin(name="classification")
    """What a label is (`rayclean/tasks/`)."""
    dataset: DatasetConfig
    encoder: Plugin = Plugin(name="transformer")
    """The network that reads text (`rayclean/models/`)."""
    predict: PredictConfig = PredictConfig()
    detect: DetectConfig = DetectConfig()
    annotator: Plugin = Plugin(name="knn")
    """Who answers when asked (`rayclean/annotators/`)."""
    relabel: RelabelConfig = RelabelConfig()
    method: Plugin = Plugin(name="cross_entropy")
    """How to train in spite of noise (`rayclean/methods/`, one file per paper)."""
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    cluster: ClusterConfig = ClusterConfig()

    @field_validator("version")
    @classmethod
    def _version_known(cls, version: int) -> int:
        if version != CONFIG_VERSION:
            raise ValueError(
                f"this rayclean reads version {CONFIG_VERSION}, the config says {version}; "
                "see CHANGELOG.md for what changed, or install the rayclean that wrote it"
            )
        return version


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read a config file (.toml by hand, .json by machine) and apply overrides, in order.

    Args:
        path: the file.
        overrides: strings like `detect.budget=0.05`; values are TOML, and a value that is not is a string. Or further
            config files, laid over what came before (`configs/cluster/one-gpu.toml`).

    Raises:
        ConfigError: the file cannot be read, or a key or a value is wrong.
    """
    return parse_config(read_values(path), overrides, str(path))


def parse_config(
    values: dict[str, Any], overrides: list[str] | tuple[str, ...] = (), where: str = "config"
) -> Config:
    """A checked config from plain values and overrides.

    Raises:
        ConfigError: a key or a value is wrong.
    """
    values = json.loads(
        json.dumps(values, default=str)
    )  # a private copy: overrides must not touch the caller's
    for override in overrides:
        apply_override(values, override)
    try:
        return Config(**values)
    except ValidationError as error:
        raise ConfigError(explain(error, Config, where)) from None
