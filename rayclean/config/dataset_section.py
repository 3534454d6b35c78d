"""The section `[dataset]` of a config: where the data are, which columns mean what, how they are split."""

from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from rayclean.class_names import class_key, near_groups, spelling, visible
from rayclean.plugins import Options


class Split(Options):
    """Where the development or the test examples come from: separate files, or a share of the data set."""

    path: str | tuple[str, ...] | None = None
    """Separate file(s), read with the data set's format and columns."""
    split: str | None = None
    """Split of the Hugging Face data set at `path`, or, without `path`, of the one at `dataset.path`: `test`,
    `validation`. Without it, `dataset.hf_split`."""
    share: float = Field(0.0, ge=0, lt=1)
    """Share of the data set, of every class alike. Texts (or groups of `dataset.group`) are counted and drawn by their hashes, so
    that copies stay together and the order of rows does not matter; at least one of each class is trained on."""
    label: str | tuple[str, ...] | None = None
    """Column(s) of the given label where they differ from `dataset.label`; a test file may hold only the
    truth."""
    clean: bool = False
    """Declares the labels of the development examples right, so that they are never suspects; annotators are measured by
    control questions about them."""

    @model_validator(mode="after")
    def _one_source(self) -> "Split":
        if self.has_source and self.share:
            raise ValueError(
                "set either path or split (rows of their own) or share (a part of the data set), not both"
            )
        return self

    @property
    def has_source(self) -> bool:
        """Whether the examples are rows of their own, and no share of the data set."""
        return self.path is not None or self.split is not None


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
    format: Literal["auto", "parquet", "csv", "jsonl", "json", "conll", "huggingface", "builtin"] = "auto"
    """Format of the files; `auto` goes by the ending of their names. `jsonl` and `json` both read an object per line, an array
    of objects, and objects one after another."""
    encoding: str | None = None
    """Encoding of CSV, JSON and CoNLL files, like `utf-8`, `utf-16`, `cp1252`. `None`: by a byte-order mark, otherwise UTF-8; a
    CSV that is not UTF-8 is taken for cp1252 where that gives Western words, and refused elsewhere."""
    delimiter: str | None = None
    """Character between the fields of a CSV. `None`: the one of `,` `;` tab `|` with which the header has the configured
    columns; a tab is preferred in `.tsv` and a comma elsewhere."""
    quote: str | None = None
    """Character around the fields of a CSV; `""`: no field is quoted, and quotes are characters like any other. `None`: `"`, or
    what reads the first bytes of a file without faults."""
    escape: str | None = None
    """Character that stands before a quote inside a quoted field of a CSV, like `\\`; `""`: such quotes are doubled. `None`:
    doubled, or by a backslash where that reads more of the first bytes."""
    header: bool = True
    """Whether the first line of a CSV names its columns; without a header they are `column_1`, `column_2` and so on."""
    hf_split: str = "train"
    """Split of a Hugging Face data set that is cleaned; `dev.split` and `test.split` name those of the other examples."""
    text: str | tuple[str, ...] = "text"
    """Text column, or several that are joined by `separator`. Columns may be nested: `data.text`, `turns.0.text`."""
    separator: str = " [SEP] "
    """Text put between the parts where `text` names several columns."""
    tokens: str = "tokens"
    """Column of tokens, for tasks whose labels are tags: lists of strings, or texts in which blanks divide the
    tokens. It takes the place of `text`."""
    label: str | tuple[str, ...] = "label"
    """Column of the given label: names, numbers or booleans; lists of them where labels are sets or tags. Whole numbers are
    positions in `labels` where that is given and none of them is a name. Sets may also stand in several columns of 0 and 1, one
    per class."""
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
    """Label set, in index order; without it the names that the files themselves give, else the sorted set of values found in
    the training data. For tags: the entity classes, or all tags (`O` among them) in the order of their numbers."""
    first_label: Literal[0, 1] | None = None
    """The number that stands for the first of `labels`, where a column holds numbers instead of names. Without it numbers count
    from 0, and a column that may count from 1 stops the load."""
    merge_labels: bool = False
    """Make classes one whose names differ only by case, accents, punctuation ("credit_card" and "credit-card") or characters
    that look alike, under the most frequent spelling. Without it they are told in a warning."""
    unlabelled: tuple[int | str, ...] = ()
    """Values of the label column that mean "no label": their rows go to `rejected/`. Numbers are compared as numbers (-1 is also
    -1.0 and "-1"), and "" stands for blank and null."""
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
    """Largest share of unusable rows, of the data, the development and the test files each; above it the run stops, since
    the config is probably wrong. Rows without a label (`unlabelled`) do not count."""
    max_characters: int = Field(1_000_000, ge=1)
    """Longest text or other value of a row, in characters; rows with longer ones are rejected."""
    rows_per_shard: int = Field(8192, ge=1)
    """Examples per shard, the unit of parallel work and of resuming."""

    OPERATIONAL: ClassVar[tuple[str, ...]] = ("max_rejected",)

    @property
    def holds_out(self) -> bool:
        """Whether a share of the data is held out for development or test."""
        return self.dev.share + self.test.share > 0

    @field_validator("encoding")
    @classmethod
    def _encoding_known(cls, encoding: str | None) -> str | None:
        if encoding is not None:
            try:
                b"a".decode(encoding, "replace")  # refuses codecs that give no text, too
            except LookupError:
                raise ValueError(
                    "Python knows no encoding of this name (it knows utf-8, utf-16, cp1252 and shift_jis, for example)"
                ) from None
        return encoding

    @field_validator("delimiter", mode="before")
    @classmethod
    def _tab_by_name(cls, delimiter: Any) -> Any:
        return "\t" if delimiter in ("\\t", "tab") else delimiter  # a shell passes no tab

    @field_validator("delimiter", "quote", "escape")
    @classmethod
    def _one_character(cls, value: str | None, info: ValidationInfo) -> str | None:
        none = "" if info.field_name == "delimiter" else ', or "" for none'
        if value is not None and (len(value) > 1 or value in ("\n", "\r", "\0") or not (value or none)):
            raise ValueError(f"expected one character within a line{none}")
        return value

    @model_validator(mode="after")
    def _characters_differ(self) -> "DatasetConfig":
        said = [each for each in (self.delimiter, self.quote, self.escape) if each]
        if len(set(said)) < len(said):
            raise ValueError(
                'delimiter, quote and escape must be different characters; escape = "" means that quotes are doubled'
            )
        return self

    @field_validator("labels")
    @classmethod
    def _labels_unique(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels is None:
            return None
        by_key: dict[str, str] = {}
        for label in labels:
            key = class_key(label)
            if not key:
                raise ValueError(f"every class needs a name, and {label!r} is blank")
            if key in by_key:
                raise ValueError(
                    f"labels must be unique, and {visible(by_key[key])} and {visible(label)} both mean {key!r}"
                )
            by_key[key] = label
        if len(labels) < 2:
            raise ValueError(
                f"at least two labels are needed, got {list(labels)}; name all classes, or leave labels out to take the "
                "data's"
            )
        return tuple(map(spelling, labels))

    @model_validator(mode="after")
    def _labels_can_be_merged(self) -> "DatasetConfig":
        near = [group for group in near_groups(self.labels or ()) if len(group) > 1]
        if self.merge_labels and near:
            raise ValueError(
                f"labels names {near[0]} as classes of their own, and merge_labels would make them one; remove one of the two"
            )
        return self
