"""The section `[dataset]` of a config: where the data are, which columns mean what, how they are split."""

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from rayclean.plugins import Options


class Split(Options):
    """Where the development or the test examples come from: separate files, or a share of the data set."""

    path: str | tuple[str, ...] | None = None
    """Separate file(s), read with the data set's format and columns."""
    share: float = Field(0.0, ge=0, lt=1)
    """Share of the data set's examples, drawn by a hash of the text (or of `dataset.group`), so that copies stay together and the
    order of rows does not matter."""
    label: str | tuple[str, ...] | None = None
    """Column(s) of the given label where they differ from `dataset.label`; a test file may hold only the
    truth."""
    clean: bool = False
    """Declares the labels of the development examples right, so that they are never suspects; annotators are measured by
    control questions about them."""

    @model_validator(mode="after")
    def _one_source(self) -> "Split":
        if self.path is not None and self.share:
            raise ValueError("set either path (own files) or share (a part of the data set), not both")
        return self


class NoiseConfig(Options):
    """Label noise injected on purpose, for experiments: the original labels become the truth."""

    kind: Literal[
        "sym", "sym_incl", "asym", "asym_map", "idn_softmax", "idn_xia", "lane_shuffle", "lane_flip"
    ] = "sym"
    """Noise model; `rayclean/functional/noise.py` defines each, `set_noise.py` beside it `sym` for sets of classes."""
    rate: float = Field(0.2, ge=0, le=1)
    """Requested share of wrong labels; the realised one is reported, since several kinds redraw the true
    label."""
    seed: int | None = None
    """Seed of the noise alone; without it the run's seed."""
    exact: bool = False
    """Whether `sym` and `asym` flip exactly round(rate x N) labels instead of each with probability
    `rate`."""
    mapping: dict[str, str] = Field(default_factory=dict)
    """Label -> wrong label, for `asym_map`."""


class DatasetConfig(Options):
    """The labelled data set: where it is, which columns mean what, how it is split; read by `load`."""

    path: str | tuple[str, ...]
    """File, folder, glob or URL (s3://, gs://, hdfs://, ...), a list of them, `hf://name[:config]` for a
    Hugging Face data set, or the name of a built-in one (`bbc_news`)."""
    format: Literal["auto", "parquet", "csv", "jsonl", "conll", "huggingface", "builtin"] = "auto"
    """Format of the files; `auto` goes by the ending of their names."""
    hf_split: str = "train"
    """Split of a Hugging Face data set."""
    text: str | tuple[str, ...] = "text"
    """Text column, or several that are joined by `separator`."""
    separator: str = " [SEP] "
    """Text put between the parts where `text` names several columns."""
    tokens: str = "tokens"
    """Column of tokens, for tasks whose labels are tags: lists of strings, or texts in which blanks divide the
    tokens. It takes the place of `text`."""
    label: str | tuple[str, ...] = "label"
    """Column of the given label: strings or integers that index `labels`; lists of them where labels are sets or
    tags. Sets may also stand in several columns of 0 and 1, one per class."""
    label_separator: str | None = Field(None, min_length=1)
    """What divides the classes of a set that is written as one text, like `|` in `joy|anger`. Without it, such a text
    is a list in JSON."""
    id: str | None = None
    """Column of your unique key (string or integer); without it, `example_id` is a hash of file and row."""
    group: str | None = None
    """Column of what belongs together, like a customer or a document (string or integer): its examples share a fold and
    a share of dev or test, so that no network is measured on what it has seen of them. Without it, copies of a text do."""
    truth: str | tuple[str, ...] | None = None
    """Column(s) of the true label, where one is known; it is used for measuring alone, never for deciding."""
    labels: tuple[str, ...] | None = None
    """Label set, in index order; without it the sorted set of values found in the data. For tags: the entity classes,
    or all tags (`O` among them) in the order of their numbers."""
    unlabelled: tuple[int | str, ...] = ()
    """Values of the label column that mean "no label": their rows go to `rejected/`."""
    definitions: dict[str, str] = Field(default_factory=dict)
    """Label -> its meaning, as shown in prompts."""
    words: dict[str, str] = Field(default_factory=dict)
    """Label -> a word or short phrase that a language model can score (verbaliser); without it the label
    itself."""
    dev: Split = Split(share=0.1)
    """Development examples, for early stopping and model selection; a share of the data is cleaned like the
    rest."""
    test: Split = Split()
    """Test examples, which are never cleaned and read by `evaluate` alone."""
    noise: NoiseConfig | None = None
    """Noise to inject into the examples that will be cleaned; never into test or a separate dev set."""
    max_rejected: float = Field(0.1, ge=0, le=1)
    """Largest share of unusable rows; above it the run stops, since the config is probably wrong. Rows
    without a label (`unlabelled`) do not count."""
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
