"""What the report and the terminal show of a training method, in plain values.

A method declares it (`Method.measures`), the training writes it to `train/measures.json` beside the columns
that it speaks of, and `evaluate` reads that file: so evaluation needs no method's name, and a method of
another package is shown like those of this one. A declaration names columns and one of a few fixed
computations; it holds no code. Shares of wrong labels are computed where truth is known, which is never in a
method.
"""

from typing import Literal

from pydantic import Field, model_validator

from rayclean.plugins import Options

HIGHEST_LOSS = 20.0
"""End of the axis of losses; exp(-20) is the probability of such labels."""

EPOCH_FIGURES = (
    "loss", "dev_loss", "dev_accuracy", "dev_loss_final", "dev_accuracy_final", "asked", "from_ledger",
)  # fmt: skip
"""Figures that the training itself writes into an epoch's line of `metrics.jsonl`, whatever the method."""

_FORMATS = {"count": ",.0f", "percent": ".1%", "decimals": ".3f", "digits": ".4g"}
"""Python's format specification of each `EpochFigure.format`."""


class Histogram(Options):
    """A scalar per example whose distribution is drawn, right labels apart from wrong ones."""

    title: str
    """Title of its charts."""
    means: str
    """Its meaning in plain words, and how wrong labels should show."""
    axis: str
    """Title of the horizontal axis."""
    columns: tuple[str, ...] = Field(min_length=1)
    """Columns of the method's state that it is computed from."""
    combine: Literal["mean", "ratio"] = "mean"
    """`mean`: of the columns, which of a single one is the column itself. `ratio`: the first column over the
    second; examples whose second one is not positive are not counted."""
    minus_log: bool = False
    """Take minus the natural logarithm then: a loss from a probability. Zero counts as the smallest positive
    float32."""
    below: float | None = None
    """Count only examples whose scalar is below this; None: all whose scalar is not NaN."""
    top: float = Field(1.0, gt=0)
    """End of the last bin, which also counts what is above; the first one begins at 0."""
    bounded: bool = True
    """Whether no scalar can be above `top`; otherwise the axis ends where hardly any example is left."""

    @model_validator(mode="after")
    def _a_ratio_is_of_two(self) -> "Histogram":
        if self.combine == "ratio" and len(self.columns) != 2:
            raise ValueError(f"a ratio is of two columns, got {', '.join(self.columns)}")
        return self


class EpochFigure(Options):
    """A figure that a method's `summary` gives of every epoch."""

    title: str
    """Title of its column in the table of epochs, and its name in the line of the terminal."""
    format: Literal["count", "percent", "decimals", "digits"] = "digits"
    """How it is written: `1,234`, `12.3 %`, three decimals `0.123`, four significant digits `1.234e-05`."""
    table: bool = True
    """Whether the report's table has a column for it; `metrics.json` has it in any case."""
    line: bool = False
    """Whether the terminal shows it after every epoch."""

    def written(self, value: float) -> str:
        """A value of the figure as people read it.

        >>> [EpochFigure(title="", format=name).written(0.12345) for name in ("percent", "decimals", "digits")]
        ['12.3 %', '0.123', '0.1235']
        """
        return format(value, _FORMATS[self.format]).replace("%", " %")


class SubsetColumn(Options):
    """The subsets that a method splits the examples into; an example of another value is in none of them."""

    column: str
    """Column of the method's state that says where an example belongs."""
    values: dict[str, int] = Field(min_length=1)
    """Name -> its value in the column, in the order in which they are shown."""


class AnswerColumn(Options):
    """The annotator's answers to a method that asks."""

    column: str
    """Column of the method's state with the label that was answered; negative: no answer."""
    replace: tuple[str, ...] = ()
    """Subsets whose share of wrong labels is shown a second time, with answers in the place of labels."""


class Measures(Options):
    """Everything that is shown of a method beside the losses, the accuracy and the questions that all
    have.

    >>> shown = Measures(subsets=SubsetColumn(column="part", values={"labelled": 0, "unlabelled": 1}))
    >>> Measures.model_validate_json(shown.model_dump_json()) == shown
    True
    """

    histograms: dict[str, Histogram] = Field(default_factory=dict)
    """Distributions over the examples, in the order in which they are shown."""
    subsets: SubsetColumn | None = None
    """Subsets; None: the method makes none."""
    answers: AnswerColumn | None = None
    """Answers; None: the method keeps none."""
    figures: dict[str, EpochFigure] = Field(default_factory=dict)
    """Figures by their keys in the method's `summary`."""

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "Measures":
        names = tuple(self.subsets.values) if self.subsets else ()
        taken = [*EPOCH_FIGURES, "epoch", "answered", *names, *self.figures]
        if repeated := sorted({name for name in taken if taken.count(name) > 1}):
            raise ValueError(f"subsets and figures need names of their own, got again: {', '.join(repeated)}")
        if unknown := set(self.answers.replace if self.answers else ()) - set(names):
            raise ValueError(
                f"answers replace labels of subsets, got {', '.join(sorted(unknown))}; "
                f"subsets: {', '.join(names) or 'none'}"
            )
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are named here, once each."""
        parts = [self.subsets, self.answers]
        named = [column for histogram in self.histograms.values() for column in histogram.columns]
        return tuple(dict.fromkeys([*named, *(part.column for part in parts if part is not None)]))
