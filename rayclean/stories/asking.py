"""What annotators were asked about an example, and what they said.

`queries/` says what was asked, the ledger what was answered. Prompts are not kept, so they are made again from the queries,
and the hash in the ledger tells whether they are what was sent.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import exp
from typing import Any

from rayclean.annotators import build_annotator, relabel_annotators
from rayclean.annotators.base import Annotator
from rayclean.annotators.decisions import stage_name
from rayclean.annotators.ledger_search import recorded_answers
from rayclean.annotators.prompts import prompt_hash
from rayclean.annotators.query import Annotation, Query
from rayclean.annotators.query_budget import Budget
from rayclean.annotators.query_builder import build_query, chunk_name, chunks_in
from rayclean.config import Plugin
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.stories.decision_events import Answered, Asked, Shown
from rayclean.stories.events import Event, Probability
from rayclean.stories.subject import Subject, Unit, rows_in

AS_SENT, UNCUT, NOT_RECORDED = "as sent", "uncut", "not recorded"
"""Values of `Asked.prompts_are`."""
SUSPECT, CONTROL, BEYOND_SUSPECTS = "suspect", "control question", "beyond the suspects"
"""Values of `Asked.purpose`."""

_Decisions = Mapping[int, Mapping[str, Any]]
"""By unit: `key` and `prompt_hash` of the answer by which was decided, and `annotator`, who gave it."""


@dataclass(frozen=True)
class _Question:
    """A question of `relabel` about one unit."""

    unit: Unit
    stage: int
    """Place of the annotator among those that are asked in order."""
    name: str
    """Of the annotator."""
    annotator: Annotator | None
    """None where it cannot be made here."""
    problem: str | None
    """Why it cannot."""
    row: Mapping[str, Any]
    """Of `queries/`."""
    query: Query
    prompts: Mapping[str, tuple[str, ...]]
    """The prompts that may have been sent by their hash, the uncut ones first."""
    decided: Mapping[str, Any]
    """Its row of `_Decisions`; empty where it is no suspect that this annotator decided."""

    @property
    def key(self) -> str | None:
        """`Annotation.key` of its answer, as far as it is known without the annotator's model."""
        if self.annotator is not None and not self.prompts:
            return self.annotator.key(self.query)  # of those that read no prompts, it depends on no model
        return self.decided.get("key")

    def is_answered_by(self, answer: Annotation) -> bool:
        """Whether an answer in the ledger is to this question."""
        return answer.key == self.key or (bool(answer.prompt_hash) and answer.prompt_hash in self.prompts)

    def is_likely_of(self, answer: Annotation) -> tuple[bool, bool]:
        """How surely an answer is to this question rather than to the same one to another annotator: by its key, and by the
        place of the annotator, with which the names of sessions end.
        """
        first = "annotator-" not in answer.session
        return answer.key == self.key, answer.session.endswith(stage_name(self.stage)) or (
            first and not self.stage
        )


def asking_events(subject: Subject) -> Iterator[Event]:
    """Every question of `relabel` about an example, each with its answers; then answers to other questions about it, which
    another relabelling or `train` asked.
    """
    relabel = subject.done("relabel")
    if relabel is None:
        return
    columns = ["unit_id", "key", "prompt_hash", "annotator"]
    tables = relabel.rows_with("annotations", "unit_id", subject.unit_ids, columns=columns)
    decisions = {row["unit_id"]: row for _, table in tables for row in table.to_pylist()}
    questions = [
        question
        for stage, plugin in enumerate(relabel_annotators(subject.config))
        for question in _questions(subject, relabel, stage, plugin, decisions)
    ]
    hashes = {each for question in questions for each in question.prompts}
    keys = {each for question in questions if (each := question.key)}
    found = recorded_answers(subject.run.sub("ledger"), subject.unit_ids, keys, hashes)
    to: dict[int, list[Annotation]] = {}
    left = []
    for answer in found:
        matching = [number for number, each in enumerate(questions) if each.is_answered_by(answer)]
        if matching:
            best = max(matching, key=lambda number: questions[number].is_likely_of(answer))
            to.setdefault(best, []).append(answer)
        else:
            left.append(answer)
    suspects = subject.metrics("relabel").get("suspects")
    for number, question in enumerate(questions):
        answers = to.get(number, [])
        yield _asked(question, {each.prompt_hash for each in answers}, suspects)
        yield from (_answered(subject, question.unit, each, question) for each in answers)
    units = {unit.unit_id: unit for unit in subject.units}
    yield from (_answered(subject, units[each.unit_id], each, None) for each in left if each.unit_id in units)


def _questions(
    subject: Subject, relabel: Folder, stage: int, plugin: Plugin, decisions: _Decisions
) -> Iterator[_Question]:
    """The questions to one annotator about the example; none to those that answer nothing."""
    task, load = subject.task, subject.run.require("load")
    annotator: Annotator | None = None
    problem: str | None = None
    answers = task.answers
    try:
        annotator = build_annotator(subject.config, tuple(answers), plugin, task)
    except ConfigError as error:  # its template or its package is not here
        problem = str(error)
    if annotator is not None and not annotator.asks:
        return
    units = {unit.unit_id: unit for unit in subject.units}
    queries = relabel.sub("queries", stage_name(stage))
    for chunk in chunks_in(queries):
        place = (chunk_name(chunk), subject.shard)
        for row in rows_in(queries, place, "unit_id", units).to_pylist():
            if len(row["candidates"]) < 2:  # nobody is asked
                continue
            ids = {each["example_id"] for each in (row, *row["demonstrations"])}
            tables = load.rows_with("examples", "example_id", ids, columns=["example_id", "text"])
            texts = {each["example_id"]: each["text"] for _, table in tables for each in table.to_pylist()}
            shows_given = annotator is not None and annotator.shows_given
            query = build_query(row, texts, task, answers, shows_given)
            possible = () if annotator is None else annotator.possible_prompts(query)
            decided = decisions.get(row["unit_id"], {})
            yield _Question(
                unit=units[row["unit_id"]],
                stage=stage,
                name=plugin.name,
                annotator=annotator,
                problem=problem,
                row=row,
                query=query,
                prompts={prompt_hash(*prompts): prompts for prompts in possible},
                decided=decided if decided.get("annotator") == plugin.name else {},
            )


def _asked(question: _Question, hashes: set[str], suspects: int | None) -> Asked:
    """A question.

    Args:
        question: what is known of it.
        hashes: of the prompts of its answers in the ledger.
        suspects: number of suspects of the run.
    """
    row, query = question.row, question.query
    sent = {each for each in (*hashes, question.decided.get("prompt_hash")) if each}
    matching = [prompts for key, prompts in question.prompts.items() if key in sent]
    beyond = suspects is not None and row["rank"] >= suspects
    return Asked(
        part=question.unit.part,
        annotator=question.name,
        purpose=CONTROL if row["rank"] < 0 else BEYOND_SUSPECTS if beyond else SUSPECT,
        candidates=tuple(each.word for each in query.candidates),
        demonstrations=tuple(
            Shown(each["example_id"], shown.text, shown.answer.word, each["similarity"])
            for each, shown in zip(row["demonstrations"], query.demonstrations, strict=True)
        ),
        prompts=matching[0] if matching else next(iter(question.prompts.values()), ()),
        prompts_are=AS_SENT if matching else UNCUT if sent else NOT_RECORDED,
        problem=question.problem,
    )


def _answered(subject: Subject, unit: Unit, answer: Annotation, question: _Question | None) -> Answered:
    """An answer of the ledger; one to no question of this relabel costs what the annotator of methods does."""
    annotator = question.annotator if question is not None else _annotator_of_methods(subject)
    budget = Budget() if annotator is None else Budget.of(annotator)
    priced = bool(budget.price_prompt or budget.price_answer)
    chosen = None if answer.choice is None or not answer.candidates else answer.candidates[answer.choice].word
    scored = zip(answer.candidates, answer.scores, strict=False)
    return Answered(
        part=unit.part,
        annotator=question.name if question is not None else None,
        session=answer.session,
        model=answer.model,
        choice=chosen,
        scores=tuple(Probability(each.word, exp(score)) for each, score in scored),
        raw=answer.raw,
        error=answer.error,
        prompt_tokens=answer.prompt_tokens,
        answer_tokens=answer.answer_tokens,
        cost=budget.cost(answer.prompt_tokens, answer.answer_tokens) if priced else None,
        currency=budget.currency,
        seconds=answer.seconds,
        time=answer.written or None,
    )


def _annotator_of_methods(subject: Subject) -> Annotator | None:
    try:
        return build_annotator(subject.config, tuple(subject.task.answers), task=subject.task)
    except ConfigError:
        return None
