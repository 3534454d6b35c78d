"""The sections of a config that are named after verbs: `[predict] [detect] [relabel] [train] [evaluate]`."""

import math
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from rayclean.plugins import Options, Plugin


class TrainingConfig(Options):
    """How a network is trained; `None` takes the default of the encoder (`models/<encoder>.py`)."""

    epochs: int | None = Field(None, ge=1)
    """Passes over the training examples; `None`: as many as the method or the encoder prefers."""
    batch_size: int | None = Field(None, ge=1)
    """Examples per batch, over all workers together. `None`: 32; where `predict` trains only a head, or a bag of words,
    more where there are more examples, so that an epoch has a bounded number of batches."""
    accumulate: int = Field(1, ge=1)
    """Batches per optimiser step; their gradients are averaged."""
    learning_rate: float | None = Field(None, gt=0)
    """Learning rate of the configured encoder; a second network of another kind keeps the default of its
    kind."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay of AdamW."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; then it falls linearly to 0."""
    clip: float = Field(1.0, gt=0)
    """Maximum norm of each network's gradient."""
    patience: int | None = Field(None, ge=1)
    """Epochs without a better one before training stops (`predict`: by dev loss, `train`: by dev accuracy);
    `None` trains all epochs, but where `predict` trains only a head (3) or a bag of words (2). The best epoch is kept either
    way."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of training; `auto`: bfloat16 on GPUs that have it."""


class TrainConfig(TrainingConfig):
    """The final training, by the configured method; read by `train`."""

    batch_size: int = Field(32, ge=1)
    """Examples per batch, over all workers together."""
    labels: Literal["final", "given"] = "final"
    """Labels trained on: the cleaned ones (`final`), or `given`, with all their noise, as papers do. The best epoch is
    chosen by the same labels of the development examples; of final ones without unresolved suspects."""


class PredictConfig(Options):
    """Self-prediction: a model predicts the very examples it was trained on; read by `predict`."""

    mode: Literal["out_of_fold", "in_sample", "given", "model"] = "out_of_fold"
    """Which model predicts: `out_of_fold`: K models, each for the fold it did not see; `in_sample`: one
    model, stopped early on dev loss; `given`: your own probabilities (`path`); `model`: a classifier trained
    before (`model`), which needs no labels: their column may be missing or blank."""
    model: str | None = None
    """Folder of a trained classifier for mode `model`, like `runs/<name>/train/model`, or of its run, `runs/<name>`; nothing
    is trained then."""
    folds: int = Field(5, ge=2)
    """Number of folds. Copies of a text share a fold, and every class is spread over all."""
    experts: tuple[Literal["neighbours", "words"], ...] | None = None
    """Experts beside the classifier, out of fold as well, whose probabilities are averaged with its own: the labels of
    the nearest `neighbours`, and a linear model of the `words`. `None`: both where a label is one class, none beside
    given probabilities and where no example has a label; `[]`: none."""
    path: str | tuple[str, ...] | None = None
    """Parquet file(s) for mode `given`, with the id column of the data set and `probabilities` (list of K
    floats). Like those of any expert they are made as sure as they are right, by one temperature."""
    columns: tuple[str, ...] | None = None
    """Classes of the K numbers of `probabilities` in mode `given`, in their order: `["low", "medium", "high"]`. Without it,
    they are in the order of the label set (`load/labels.json`: that of `dataset.labels`, else sorted)."""
    training: TrainingConfig = TrainingConfig()
    """How the self-prediction model is trained."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of inference; `auto`: bfloat16 where the hardware is faster in it."""
    tokens_per_batch: int | None = Field(None, ge=1)
    """Padded tokens per inference batch, whose rows are of similar length; `None`: 16,384 on a GPU, 2,048 on
    a CPU."""
    actors: int | None = Field(None, ge=1)
    """Size of the actor pool; `None`: up to three per GPU, which share it, or up to four per node without."""

    OPERATIONAL: ClassVar[tuple[str, ...]] = ("tokens_per_batch", "actors")

    @model_validator(mode="after")
    def _given_needs_path(self) -> "PredictConfig":
        if (self.mode == "given") != (self.path is not None):
            raise ValueError(
                "mode = 'given' needs path, and path needs mode = 'given': set both to bring your own probabilities, or neither"
            )
        if self.columns is not None and self.mode != "given":
            raise ValueError(
                "columns gives the order of the classes in your own probabilities, so it needs mode = 'given' and path: set "
                "these, or remove columns"
            )
        if (self.mode == "model") != (self.model is not None):
            raise ValueError(
                "mode = 'model' needs model, and model needs mode = 'model': set both to use a trained classifier, or neither"
            )
        return self


LLM_DISAGREEMENT = "llm_disagreement"
"""A detector by what it finds, but no name of one: `relabel.beyond` is its option."""


class DetectConfig(Options):
    """Which examples are doubtful; read by `detect`."""

    detectors: tuple[Plugin, ...] = (Plugin(name="posterior"),)
    """Detectors, by name or with options (`{name = "knn_vote", ...}`); `findings/` keeps the quality and vote
    of each. (LLM disagreement is `relabel.beyond`.)"""
    combine: Literal["mean_rank", "mean", "min"] = "mean_rank"
    """How several qualities become one: mean of ranks in [0, 1], mean of scores, or the lowest score."""
    budget: float | int = 0.1
    """Largest number of suspects: a share of what is doubted (float in (0, 1]) or a count (integer). That is the examples; of
    sets of classes and of tags, every class of every example."""

    @field_validator("budget")
    @classmethod
    def _budget_in_range(cls, budget: float | int) -> float | int:
        if isinstance(budget, int) and not isinstance(budget, bool):
            if budget < 1:
                raise ValueError(
                    f"a count must be at least 1, got {budget}; write how many suspects there may be, such as 100, or a "
                    "share, such as 0.1"
                )
        elif not 0 < budget <= 1:
            raise ValueError(
                f"a share must lie in (0, 1], got {budget}; write a share, such as 0.1, or a count as an integer, "
                "such as 100"
            )
        return budget

    @field_validator("detectors")
    @classmethod
    def _some_and_once(cls, detectors: tuple[Plugin, ...]) -> tuple[Plugin, ...]:
        names = [d.name for d in detectors]
        if LLM_DISAGREEMENT in names:
            raise ValueError(
                f"{LLM_DISAGREEMENT} asks an annotator, and what its answers are worth is known in relabel only: leave it out "
                "here, choose an annotator, and set relabel.beyond = 200, the number of labels beyond the suspects to ask about"
            )
        if not names or len(set(names)) < len(names):
            raise ValueError(f"name at least one detector and each once, got {names}")
        return detectors


class CertifyConfig(Options):
    """A certificate of the labels that model and annotator change, by some answers of an auditor."""

    target: float = Field(0.95, gt=0, lt=1)
    """Least share of right labels among the changed ones."""
    delta: float = Field(0.05, gt=0, lt=1)
    """Largest probability that the certificate is wrong."""
    labels: int = Field(200, ge=1)
    """Largest number of answers asked of the auditor."""

    @model_validator(mode="after")
    def _enough_labels(self) -> "CertifyConfig":
        least = math.ceil(math.log(self.delta) / math.log(self.target))
        if self.labels < least:
            raise ValueError(
                f"{self.labels} answers are too few: even if all are right, they cannot show with certainty {1 - self.delta:g} "
                f"that a share of {self.target:g} of the changed labels is right; set labels to at least {least}, raise "
                "delta, or lower target"
            )
        return self


class AuditConfig(Options):
    """Sample of an audit; read by `rayclean audit`, never by a verb."""

    suspects: int = Field(50, ge=0)
    """Number of suspects that an auditor is asked about: they say what annotator and model are worth."""
    random: int = Field(50, ge=0)
    """Number of units drawn from all, suspects or not: they say how much noise detection does not see."""
    seed: int = 0
    """Seed of the sample. Another one is another sample: keep it for the life of an audit."""


class RelabelConfig(Options):
    """What the annotator is asked and when its answer is taken; read by `relabel`."""

    annotators: tuple[Plugin, ...] = ()
    """Annotators that are asked in order, each with its options: a suspect that one leaves undecided (its answers do not
    decide, the query failed, the budget ended) goes to the next. Empty: `annotator` alone."""
    candidates: Literal["binary", "all"] = "binary"
    """Labels to choose from: the given and the predicted one (`binary`), or every label (`all`)."""
    demonstrations: int | None = Field(None, ge=0, le=30)
    """Number of solved examples shown in a prompt, taken from the examples that are no suspects and have one of the
    candidates as label. `None`: the annotator chooses, 4 for label words and 0 for choices. More than 5 rarely help,
    cost tokens, and may crowd the text out of `annotator.max_prompt_tokens`."""
    selector: Literal["nearest", "random"] = "random"
    """How demonstrations are chosen, equally many of each candidate: at random, or the nearest by cosine of the features.
    The `nearest` make an annotator repeat what the model has seen: it follows their labels, which are those that the model
    suggests, so its answers are no second opinion and control questions overrate it (on relations of drugs and diseases
    SmolLM2 was right on .90 of the controls and .30 of the suspects)."""
    controls: int = Field(150, ge=0, le=200)
    """Number of control questions, about labels that are as good as known: they measure how often the annotator is
    right, without any truth, and take at most half of the annotator's budget. An annotator that is not surely better than
    chance changes nothing, so without controls the model alone decides; nor does a method ask it while it trains."""
    ask_all: bool = False
    """Ask about every suspect even where the control questions and the first 200 suspects show that the annotator is no
    better than chance, so that no answer can change a label. By default asking ends there."""
    beyond: int = Field(0, ge=0)
    """LLM disagreement: number of examples that are no suspects and about which the (first) annotator is asked all the same,
    drawn from all of them: its disagreement shows errors that no self-prediction sees, and estimates how many there are. Their
    labels stay; `relabel/beyond/` lists them."""
    calibration: Literal["auto", "none", "controls", "content_free"] = "auto"
    """Correction of a model's bias towards some labels: by its answers to the `controls`, or by the score of a
    `content_free` text. `auto`: `controls` for label words (`content_free` with more than 32 classes) and for `knn`
    (`none` with more), `none` for choices and for other annotators that are no language model."""
    accept: float = 0.6
    """Lowest probability (0.5 to 1) that the suggested label is right, by model and annotator together, that changes a label:
    harm / (harm + gain) of the two kinds of outcome. A higher value harms fewer right labels and repairs fewer wrong
    ones. It is a floor: where the model decides alone, labels change from 0.85 on, if three or more do, and changes of
    suspects of which the answers do not show with 99 % certainty that most are right wait for a person, however probable each
    is."""
    max_harm: float | None = Field(None, ge=0, le=1)
    """Largest share of the right labels that may be made wrong, shown by an audit with 95 % certainty; without an audit no
    label changes then. What may not change stays proposed, for a person. `None`: no limit."""
    certify: CertifyConfig | None = None
    """Change only labels of which `rayclean certify` has shown that at least a share `target` is right; the others are
    referred. `{}` takes the defaults; `None`: labels change without a certificate."""
    max_error_rate: float = Field(0.2, ge=0, le=1)
    """Largest share of failed queries, of at least 20; above it the run stops."""

    OPERATIONAL: ClassVar[tuple[str, ...]] = ("max_error_rate",)

    @field_validator("accept")
    @classmethod
    def _more_likely_right(cls, accept: float) -> float:
        if not 0.5 <= accept <= 1:
            raise ValueError(
                f"a probability in [0.5, 1] is expected, got {accept}; below 0.5, labels would change that are more likely "
                "right than wrong: write 0.5 to change as many as can be justified, 0.6 (the default) for fewer"
            )
        return accept


class EvaluateConfig(Options):
    """What is measured at the end; read by `evaluate`."""

    compare: bool = True
    """Whether the same network is also trained on the given labels and, where known, on the true ones."""
    report: bool = True
    """Whether `report.html` is written beside `metrics.json`."""
    top_changes: int = Field(30, ge=0)
    """Number of changes, the surest first, that the report shows with their texts."""
