"""Estimates of the number, tokens and cost of a run's queries before any is sent.

Queries come from two askers: `relabel`, about the suspects of `detect`, and a method that asks between
epochs. Tokens are estimated by the mean length of the texts (`Annotator.expected`), without a tokenizer; of real
queries they can be counted (`measure_queries`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rayclean.annotators import build_annotator, relabel_annotators
from rayclean.annotators.base import Annotator
from rayclean.annotators.query import Demonstration, Expected, Query
from rayclean.annotators.query_budget import Budget
from rayclean.config import Config
from rayclean.errors import AnnotationError, ConfigError
from rayclean.functional.suspect_budget import suspects_allowed
from rayclean.plugins import Plugin
from rayclean.run import Run
from rayclean.schema import Candidate, Label, LabelSet
from rayclean.tasks import TASKS


@dataclass(frozen=True)
class LoadedTexts:
    """Properties of a loaded data set on which an estimate depends."""

    examples: int
    characters: int
    """Mean length of a text in characters."""
    labels: LabelSet

    @classmethod
    def of(cls, run: Run) -> "LoadedTexts | None":
        """The properties found by `load`; None if it is not finished."""
        manifest = run.manifest("load")
        if manifest is None:
            return None
        labels = LabelSet.from_json(run.read_text("load", "labels.json"))
        return cls(manifest.metrics["examples"], round(manifest.metrics["characters"]["mean"]), labels)

    def described(self, config: Config) -> tuple[Label, ...]:
        """The labels with their words and definitions; unknown labels are left out, since `relabel` reports
        them.
        """
        words, definitions = (
            {name: text for name, text in texts.items() if name in self.labels.names}
            for texts in (config.dataset.words, config.dataset.definitions)
        )
        return tuple(self.labels.described(words, definitions))


@dataclass(frozen=True)
class QuestionEstimate:
    """Estimate of the queries of one relabelling or one training."""

    asker: str
    """`relabel`, or the name of a method."""
    annotator: str
    """Name of the annotator."""
    billable: bool
    """Whether its answers cost money."""
    most: int | None
    """Most queries; None: not known yet, or unlimited."""
    each: Expected | None
    """Requests and tokens of one query; None: the data are not loaded yet, or answers are free."""
    budget: Budget

    def worth(self, questions: int) -> tuple[int, float]:
        """Tokens and cost of a number of queries, within the budget."""
        each = self.each or Expected(1, 0, 0)
        prompt, answer = questions * each.prompt_tokens, questions * each.answer_tokens
        tokens, cost = prompt + answer, self.budget.cost(prompt, answer)
        return (
            tokens if self.budget.max_tokens is None else min(tokens, self.budget.max_tokens),
            cost if self.budget.max_cost is None else min(cost, self.budget.max_cost),
        )


def estimate_relabel(config: Config, data: LoadedTexts | None) -> list[QuestionEstimate]:
    """Estimate the queries of `relabel` to each of its annotators, about as many suspects as the budget
    allows of the units. Any annotator may be asked about all suspects, since earlier ones may leave all undecided.
    """
    relabel, budget = config.relabel, config.detect.budget
    suspects = budget if isinstance(budget, int) else None
    if data is not None:
        units = data.examples * TASKS.build(config.task, data.labels).units_per_example
        suspects = suspects_allowed(budget, units)
    return [
        estimate_questions(
            "relabel", config, data, suspects, relabel.demonstrations, relabel.candidates, plugin
        )
        for plugin in relabel_annotators(config)
    ]


def estimate_questions(
    asker: str,
    config: Config,
    data: LoadedTexts | None,
    most: int | None,
    demonstrations: int | None,
    candidates: str,
    plugin: Plugin | None = None,
) -> QuestionEstimate:
    """Estimate the queries of an asker to an annotator.

    Args:
        asker: `relabel`, or the name of a method.
        config: config of the run.
        data: the loaded data; None: not loaded yet.
        most: most queries by the limits of the asker; None: not known.
        demonstrations: requested demonstrations per query, which the annotator may override; None: it chooses.
        candidates: `binary` or `all`.
        plugin: the annotator of `relabel`; None: the config's annotator, which methods ask without its query
            budget.
    """
    labels = () if data is None else data.described(config)
    annotator, each = build_annotator(config, labels, plugin), None
    budget = Budget.of(annotator)
    if plugin is not None and most and annotator.independent:
        most += config.relabel.controls + config.relabel.beyond
    most = most if annotator.asks else 0
    if plugin is not None and budget.max_queries is not None:
        most = budget.max_queries if most is None else min(most, budget.max_queries)
    if annotator.billable and data is not None:
        count, _ = annotator.demonstrations(demonstrations, "nearest")
        each = annotator.expected(_mean_query(labels, "x" * data.characters, count, candidates))
    name = (plugin or config.annotator).name
    return QuestionEstimate(asker, name, annotator.billable, most, each, budget)


def measure_queries(annotator: Annotator, queries: Sequence[Query]) -> tuple[Expected, str]:
    """The mean requests and tokens of some queries, which are not sent.

    Args:
        annotator: whose prompts are made.
        queries: at least one.

    Returns:
        The means, rounded up, and where the tokens come from, in words: counted by the tokenizer of a model that is
        served here, otherwise by the length of the prompts.
    """
    each = [annotator.expected(query) for query in queries]
    count = len(queries)
    requests, prompt, answer = (
        math.ceil(sum(values) / count)
        for values in zip(
            *((one.requests, one.prompt_tokens, one.answer_tokens) for one in each), strict=True
        )
    )
    basis = f"by the length of {count} real prompts"
    server = annotator.server()
    if server is not None:
        from rayclean.annotators.label_words import load_tokenizer

        try:
            tokenizer = load_tokenizer(server.model)
        except (AnnotationError, ConfigError):  # it will be loaded on another machine
            return Expected(requests, prompt, answer), basis
        prompts = [text for query in queries for text in annotator.sent(query) if isinstance(text, str)]
        prompt = math.ceil(sum(len(tokenizer(text)["input_ids"]) for text in prompts) / count)
        basis = f"counted in {count} real prompts by the model's tokenizer"
    return Expected(requests, prompt, answer), basis


def _mean_query(labels: Sequence[Label], text: str, demonstrations: int, candidates: str) -> Query:
    """A query about a text of mean length; with two candidates, these are the labels with the longest
    descriptions.
    """
    by_length = sorted(labels, key=lambda label: len(label.word) + len(label.definition), reverse=True)
    longest = [Candidate.of(label) for label in by_length]
    chosen = tuple(longest if candidates == "all" else longest[:2])
    shown = (Demonstration(text, longest[0]),) * demonstrations
    return Query(0, text, chosen, shown, chosen[0], chosen[-1])
