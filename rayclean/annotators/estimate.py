"""Estimates, before anybody is asked, of the questions of one run: how many, how many tokens, at what cost.

There are two askers: `relabel`, about the suspects of `detect`, and a method that asks between the epochs of
a training. Tokens are estimated by the mean length of the texts (`Annotator.expected`), since no tokenizer
has read one yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rayclean.annotators import build_annotator
from rayclean.annotators.base import Demonstration, Expected, Query
from rayclean.annotators.engine import Budget
from rayclean.config import Config
from rayclean.functional.combine import allowed
from rayclean.run import Run
from rayclean.schema import Label, LabelSet


@dataclass(frozen=True)
class LoadedTexts:
    """The facts about a loaded data set on which an estimate depends."""

    examples: int
    characters: int
    """Mean length of a text."""
    labels: LabelSet

    @classmethod
    def of(cls, run: Run) -> "LoadedTexts | None":
        """The facts that `load` found; None if it is not finished."""
        manifest = run.manifest("load")
        if manifest is None:
            return None
        labels = LabelSet.from_json(run.read_text("load", "labels.json"))
        return cls(manifest.metrics["examples"], round(manifest.metrics["characters"]["mean"]), labels)

    def described(self, config: Config) -> tuple[Label, ...]:
        """The labels with their words and definitions; those of unknown labels are left out, `relabel`
        reports them.
        """
        words, definitions = (
            {name: text for name, text in texts.items() if name in self.labels.names}
            for texts in (config.dataset.words, config.dataset.definitions)
        )
        return tuple(self.labels.described(words, definitions))


@dataclass(frozen=True)
class QuestionEstimate:
    """The questions of one relabelling, or of one training."""

    asker: str
    """`relabel`, or the name of a method."""
    annotator: str
    """Name of the annotator."""
    billable: bool
    """Whether its answers cost something."""
    most: int | None
    """The most questions; None: not known yet, or without a limit."""
    each: Expected | None
    """Requests and tokens of one question; None: the data are not loaded yet, or answers cost nothing."""
    budget: Budget

    def worth(self, questions: int) -> tuple[int, float]:
        """Tokens and cost of so many questions, within the budget."""
        each = self.each or Expected(1, 0, 0)
        prompt, answer = questions * each.prompt_tokens, questions * each.answer_tokens
        tokens, cost = prompt + answer, self.budget.cost(prompt, answer)
        return (
            tokens if self.budget.max_tokens is None else min(tokens, self.budget.max_tokens),
            cost if self.budget.max_cost is None else min(cost, self.budget.max_cost),
        )


def estimate_relabel(config: Config, data: LoadedTexts | None) -> QuestionEstimate:
    """The questions of `relabel`: about the suspects that the budgets allow."""
    relabel, budget = config.relabel, config.detect.budget
    most = relabel.max_queries
    if data is not None or isinstance(budget, int):
        suspects = allowed(budget, data.examples) if data is not None else int(budget)
        most = suspects if most is None else min(suspects, most)
    return estimate_questions("relabel", config, data, most, relabel.demonstrations, relabel.candidates)


def estimate_questions(
    asker: str,
    config: Config,
    data: LoadedTexts | None,
    most: int | None,
    demonstrations: int,
    candidates: str,
) -> QuestionEstimate:
    """The questions of an asker to the config's annotator.

    Args:
        asker: `relabel`, or the name of a method.
        config: config of the run.
        data: the loaded data; None: not loaded yet.
        most: the most questions; None: not known.
        demonstrations: demonstrations per question, before the annotator decides.
        candidates: `binary` or `all`.
    """
    labels = () if data is None else data.described(config)
    annotator, each = build_annotator(config, labels), None
    if annotator.billable and data is not None:
        count, _ = annotator.demonstrations(demonstrations, "nearest")
        each = annotator.expected(_mean_query(labels, "x" * data.characters, count, candidates))
    return QuestionEstimate(
        asker, config.annotator.name, annotator.billable, most, each, Budget.of(config.relabel)
    )


def _mean_query(labels: Sequence[Label], text: str, demonstrations: int, candidates: str) -> Query:
    """A question about a text of mean length; of two candidates it offers the two labels that take most
    space.
    """
    longest = sorted(labels, key=lambda label: len(label.word) + len(label.definition), reverse=True)
    chosen = tuple(labels if candidates == "all" else longest[:2])
    shown = (Demonstration(text, longest[0].index),) * demonstrations
    return Query(0, text, chosen, shown, chosen[0].index, chosen[-1].index)
