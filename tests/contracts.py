"""What every plug-in must do, whatever it is about: a function for each kind, which asserts it of one plug-in.

Tests call them for all built-in plug-ins and for those of a package outside the tree.
"""

import asyncio
import json
import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch

from rayclean.annotators import ANNOTATORS
from rayclean.annotators.base import Annotator
from rayclean.annotators.query import Annotation, Demonstration, Query
from rayclean.config import Plugin, TrainingConfig
from rayclean.detectors import DETECTORS
from rayclean.detectors.base import DetectorBatch
from rayclean.folder import Folder
from rayclean.functional.spans import spans_of, tags_of
from rayclean.measures import Measures
from rayclean.methods import METHODS
from rayclean.methods.base import Method, State
from rayclean.schema import TRUTH, Candidate, FormName, Label, LabelSet
from rayclean.tasks import TASKS
from rayclean.tasks.base import Task
from rayclean.training.job import FitSpec
from rayclean.training.loop import fit
from tests.detectors.cases import backwards, cut, in_process, noisy_case
from tests.training.toys import TOY, Answering, job, write_examples

# --- methods ---

HOOKS = ("kept", "partition", "queries", "revise", "observe", "review", "summary", "quality")
"""Those of a method that are handed columns."""


def check_method(plugin: Plugin, folder: Path) -> None:
    """A method runs, is finite, gives a quality, shows what exists, and never sees the truth.

    Args:
        plugin: name and options, such that whatever it does it does within two epochs.
        folder: empty, for data and results.
    """
    cls: Any = METHODS.resolve(plugin.name)
    assert "class" in cls.label_forms, "every method learns from one class per example"
    assert {*cls.label_forms} <= {*get_args(FormName)}
    result, output, handed = _train_watched(plugin, folder)
    method = cls(cls.Config(**plugin.options), 3)
    columns = method.state()

    assert math.isfinite(result.loss)
    table = output.read_table("dynamics", "part-00000.parquet").to_pandas()
    assert set(table) == {"example_id", "trained_label", "quality", *columns}
    assert len(table) == 60
    assert np.isfinite(table["quality"]).all()
    assert (table["quality"] != table["quality"].iloc[0]).any(), "the same quality for every example"
    for hook, states in handed.items():
        assert all(names == {"example_id", "given_label", *columns} for names in states), hook
    called = {hook for hook, states in handed.items() if states}
    idle = (set() if method.expected_queries(method.config) is not None else {"revise"}) | (
        set() if method.reviews else {"review"}
    )
    assert called == {*HOOKS} - idle

    shown = Measures.model_validate(output.read_json("measures.json"))
    assert shown == method.measures()
    assert set(shown.columns) <= set(columns), "it shows a column that it does not keep"
    lines = [json.loads(line) for line in output.read_text("metrics.jsonl").splitlines()]
    sizes = {f"size_{name}" for name in shown.subsets.values} if shown.subsets else set()
    assert all({*shown.figures, *sizes} <= set(line) for line in lines), (
        "it shows a figure that it never gave"
    )


def _train_watched(plugin: Plugin, folder: Path) -> tuple[Any, Folder, dict[str, list[set[str]]]]:
    """The result of a training on noisy labels beside a truth that nothing may open; where it lies, and the columns that each
    hook was handed.
    """
    examples = write_examples(folder / "load" / "examples", 60, dev=20, noise=0.3)
    for shard in Folder(examples).shards():
        ids = Folder(examples).read_table(shard)["example_id"]
        truth = pa.table([ids, pa.array([0] * len(ids), pa.int32())], schema=TRUTH)
        Folder(str(folder / "load" / "truth")).write_table(truth, shard)
    read, cls = Folder.read_table, METHODS.resolve(plugin.name)

    def tripwire(self: Folder, *parts: str, columns: Any = None) -> pa.Table:
        assert "truth" not in self.path(*parts), "training opened the truth"
        return read(self, *parts, columns=columns)

    handed: dict[str, list[set[str]]] = {hook: [] for hook in HOOKS}
    spec = FitSpec(Plugin(name=TOY), plugin, TrainingConfig(epochs=2, batch_size=7), ("a", "b", "c"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "read_table", tripwire)
        for hook in HOOKS:
            patch.setattr(cls, hook, _watched(getattr(cls, hook), handed[hook]))
        result = fit(job(examples, folder / "out"), spec, consult=Answering())
    return result, Folder(str(folder / "out")), handed


def _watched(hook: Callable[..., Any], handed: list[set[str]]) -> Any:
    """The hook, and a note of the columns it is handed."""

    def noted(self: Method, state: State, *rest: Any) -> Any:
        handed.append(set(state))
        return hook(self, state, *rest)

    return noted


# --- detectors ---


def detector_case() -> DetectorBatch:
    """400 examples of five classes; a good model sees plainly which three in ten labels are wrong."""
    base = noisy_case(1, 400, 5, 0.3, 6.0)
    return replace(base, features=base.probabilities.copy(), group=base.unit_id)


def check_detector(plugin: Plugin) -> None:
    """A detector finds what `detector_case` shows plainly, however it is cut into shards."""
    batch = detector_case()
    detector = DETECTORS.build(plugin, 5)
    state = pickle.loads(pickle.dumps(detector.fit(cut(batch, [150]), in_process)))
    quality, vote = detector.score(batch, state)
    assert quality.dtype == np.float32
    assert vote.dtype == np.bool_
    assert quality.shape == vote.shape == (400,)
    assert ((quality >= 0) & (quality <= 1)).all()
    wrong = batch.given_label != batch.predicted_label
    assert quality[wrong].mean() < quality[~wrong].mean(), "lower means more likely wrong"
    assert vote[wrong].mean() > 0.8 > 0.2 > vote[~wrong].mean()

    other = DETECTORS.build(plugin, 5)
    again = other.fit(cut(batch, [40, 41, 300]), backwards)
    parts = [other.score(shard.batch, again) for shard in cut(batch, [200])]
    np.testing.assert_allclose(np.concatenate([part for part, _ in parts]), quality, rtol=1e-5, atol=1e-6)
    assert (np.concatenate([part for _, part in parts]) == vote).all(), "the votes depend on the shards"

    answers = detector.answer_probabilities(batch, state)
    if answers is not None:
        assert answers.shape == batch.probabilities.shape
        known = ~np.isnan(answers).any(axis=1)
        np.testing.assert_allclose(answers[known].sum(axis=1), 1, atol=1e-4)
    assert all(isinstance(value, float) for value in detector.metrics(state).values())
    assert isinstance(detector.note(state), str)


# --- annotators ---

ERROR_KINDS = {"timeout", "connection", "rate_limit", "server", "client", "invalid", "outside"}
ANSWERS = (Label(0, "BIZ", "b"), Label(1, "SPO", "s", "about games"), Label(2, "HATE", "po"))
OFFERED = tuple(map(Candidate.of, ANSWERS))


def questions() -> list[Query]:
    """Plain ones, and some that are hard to ask: no text, markup of a template, a long text, all answers, a single one."""
    found = []
    for number in range(12):
        shown = tuple(Demonstration(f"shown {k}", OFFERED[k % 2], 0.9 - k / 10) for k in range(number % 4))
        pair = OFFERED[:2]
        found.append(Query(number, f"text {number} *{'bs'[number % 2]}", pair, shown, pair[0], pair[1]))
    texts = ("", "{{ 7 * 7 }} {% raw %} \x00 \u202e </text>", "word " * 3000)
    found += [replace(found[0], unit_id=20 + place, text=text) for place, text in enumerate(texts)]
    found.append(replace(found[1], unit_id=30, candidates=OFFERED))
    return [*found, replace(found[1], unit_id=31, candidates=OFFERED[:1], suggested=OFFERED[0])]


def check_annotator(plugin: Plugin, failing: Sequence[int] = ()) -> None:
    """An annotator answers every query in order, and equal ones equally; a query that fails is an answer with an error.

    Args:
        plugin: name and options.
        failing: ids of `questions` to which whoever is asked gives no good answer.
    """
    queries = questions()
    one, same = (ANNOTATORS.build(plugin, ANSWERS, 7) for _ in range(2))
    one.check()
    answers = _asked(one, [queries])
    assert len(answers) == len(queries), "one answer per query"
    failed = set()
    for query, answer in zip(queries, answers, strict=True):
        if answer is None:
            continue
        assert (answer.unit_id, answer.key) == (query.unit_id, one.key(query)), "in the order of the queries"
        assert answer.choice is None or 0 <= answer.choice < len(query.candidates)
        assert len(answer.scores) in (0, len(query.candidates))
        assert all(math.isfinite(score) for score in answer.scores)
        if answer.error is not None:
            assert answer.error_kind in ERROR_KINDS
            assert answer.choice is None, "an answer that failed chooses nothing"
            failed.add(query.unit_id)
    assert failed == {*failing}
    # Asked one by one in another order, as the engine does after a restart.
    backward = _asked(same, [[query] for query in reversed(queries)])
    again = [_said(answer) for answer in reversed(backward)]
    assert again == [_said(answer) for answer in answers], "equal questions get other answers"
    assert [same.key(query) for query in queries] == [one.key(query) for query in queries]

    json.dumps([one.identity(), one.sent(queries[0])])
    free = one.content_free(queries[0])
    assert free.unit_id == -1
    if not one.calibrated:  # then its bias may be measured by such a question
        assert len(_asked(one, [[free]])) == 1
    expected = one.expected(queries[0])
    assert min(expected.requests, expected.prompt_tokens, expected.answer_tokens) >= 0
    count, selector = one.demonstrations(None, "nearest")
    assert count >= 0
    assert isinstance(selector, str)
    assert one.calibration("auto", len(ANSWERS)) in ("none", "controls", "content_free")


def _asked(annotator: Annotator, calls: list[list[Query]]) -> list[Annotation | None]:
    """The answers to one call after the other."""

    async def ask() -> list[Annotation | None]:
        await annotator.start()
        try:
            return [answer for queries in calls for answer in await annotator.annotate(queries)]
        except Exception as error:
            raise AssertionError(
                "it raised for a single query, instead of an answer with an error"
            ) from error
        finally:
            await annotator.close()

    return asyncio.run(ask())


def _said(answer: Annotation | None) -> Any:
    return answer and (answer.choice, answer.scores, answer.error_kind)


# --- tasks ---


def check_task(plugin: Plugin) -> None:
    """A task takes labels apart into units and puts them together again, and its network learns and answers."""
    task = TASKS.build(plugin, LabelSet(Label(number, name, name) for number, name in enumerate("abc")))
    assert len(task.output_names) == task.outputs
    names = task.answers.names
    assert len({*names}) == len(names)
    examples = _examples(task)
    _check_network(task, examples)
    predictions = _predictions(task, examples)
    _check_units(task, examples, predictions)
    _check_answers(task, examples, predictions)


def _examples(task: Task) -> pa.Table:
    """24 examples of four words, in the order of no id, some of them negative."""
    rng = np.random.default_rng(3)
    tags = [rng.integers(0, 7, 4).tolist() for _ in range(24)]
    labels = {
        "class": [number % 3 for number in range(24)],
        "classes": [[c for c in range(3) if rng.random() < 0.4] for _ in range(24)],
        "tags": [tags_of(spans_of(each), 4) for each in tags],
    }[task.label_form]
    ids = rng.permutation(24) * 11 - 90
    texts = [f"w{number} x y z" for number in range(24)]
    columns = {"example_id": ids, "text": texts, "given_label": pa.array(labels, task.label_type)}
    return pa.table(columns)


def _logits(task: Task) -> npt.NDArray[np.float32]:
    """Of all examples, one after another; of every word where the task answers for each."""
    rows = 24 * (4 if task.per_token else 1)
    return np.random.default_rng(4).normal(0, 2, (rows, task.outputs)).astype(np.float32)


def _predictions(task: Task, examples: pa.Table) -> pa.Table:
    offsets = np.arange(25) * 4 if task.per_token else None
    probabilities = task.probabilities(_logits(task))
    fold = np.zeros(24, np.int16)
    ids = examples["example_id"].to_numpy()
    table = task.prediction_table(ids, examples["given_label"], probabilities, fold, offsets)
    assert table["example_id"].to_pylist() == examples["example_id"].to_pylist()
    assert table["given_label"].to_pylist() == examples["given_label"].to_pylist()
    return table


def _check_network(task: Task, examples: pa.Table) -> None:
    targets = torch.from_numpy(task.targets(examples["given_label"]))
    logits = torch.from_numpy(_logits(task))
    logits = (logits.view(24, 4, -1) if task.per_token else logits).requires_grad_()
    loss = task.loss(logits, targets)
    assert loss.shape == (24,), "one loss per example; the caller takes the mean"
    assert loss.isfinite().all()
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.flatten(1).any(1).all(), "an example teaches nothing"
    correct = task.correct(logits, targets)
    assert correct.shape == (24,)
    assert ((correct >= 0) & (correct <= 1)).all()
    for scale in (1, 1e4):
        found = task.probabilities(scale * _logits(task))
        assert found.shape == _logits(task).shape
        assert ((found >= 0) & (found <= 1)).all(), "no probabilities"  # nor NaN


def _check_units(task: Task, examples: pa.Table, predictions: pa.Table) -> None:
    units = task.unit_rows(examples)
    assert {"unit_id", "example_id", "given_label", "given_value", "text"} <= {*units.column_names}
    ids = units["unit_id"].to_pylist()
    assert len({*ids}) == len(ids), "two units have the same id"
    assert {*units["example_id"].to_pylist()} == {*examples["example_id"].to_pylist()}
    if task.units_are_examples:
        assert ids == examples["example_id"].to_pylist()
    order = np.random.default_rng(5).permutation(24)
    moved = task.unit_rows(examples.take(order))
    assert _by_id(moved) == _by_id(units), "units depend on the order of the examples"
    unknown = examples.set_column(2, "given_label", pa.nulls(24, task.label_type))
    assert task.unit_rows(unknown)["given_label"].null_count == len(units)

    p = task.unit_probabilities(predictions)
    assert p.shape == (len(units), len(task.answers))
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    every = range(len(task.answers))
    for given, suggested in zip(units["given_label"].to_pylist(), p.argmax(axis=1).tolist(), strict=True):
        for kind in ("binary", "all"):
            offered = task.candidates(given, suggested, kind)
            assert {given, suggested} <= {*offered} <= {*every}
            assert len({*offered}) == len(offered)
            assert offered == task.candidates(suggested, given, kind), "the order tells which one is given"
            further = {*task.further(offered)}
            assert further <= {*every}
            assert not further & {*offered}
    values = (units["given_value"].to_pylist(), task.suggested_values(predictions).to_pylist())
    numbers = (units["given_label"].to_pylist(), p.argmax(axis=1).tolist())
    for number, value in zip(numbers, values, strict=True):
        for answer, said, text in zip(number, value, units["text"].to_pylist(), strict=True):
            assert task.candidate(answer, said, text).word


def _by_id(units: pa.Table) -> dict[int, Any]:
    return {row["unit_id"]: row for row in units.to_pylist()}


def _check_answers(task: Task, examples: pa.Table, predictions: pa.Table) -> None:
    units = task.unit_rows(examples)
    whole = examples.select(["example_id", "given_label"])
    as_given = {
        "example_id": units["example_id"], "final_label": units["given_label"], "final_value": units["given_value"]
    }  # fmt: skip
    back = task.assemble(pa.table(as_given), whole)
    assert _labels(back, "final_label") == _labels(whole, "given_label"), (
        "the given answers give another label"
    )

    suggested = pa.array(task.unit_probabilities(predictions).argmax(axis=1), pa.int32())
    values = task.suggested_values(predictions)
    changed = {**as_given, "final_label": suggested, "final_value": values}
    labels = task.assemble(pa.table(changed), whole)
    assert {*labels["example_id"].to_pylist()} == {*whole["example_id"].to_pylist()}
    final = labels["final_label"]
    assert final.type.equals(task.label_type)
    assert final.null_count == 0
    task.targets(final)  # a network can learn it
    again = task.unit_rows(labels.rename_columns({"final_label": "given_label"}))
    assert again["given_label"].null_count == 0
    assert all(isinstance(task.written(label, "w x y z"), str) for label in final.to_pylist())
    predicted = task.predicted_labels(predictions["probabilities"])
    assert len(predicted) == 24
    assert predicted.type.equals(task.label_type)

    findings = pa.table(
        {"unit_id": units["unit_id"], "given_value": units["given_value"], "suggested_value": values}
    )
    truth = whole.rename_columns({"given_label": "true_label"})
    true = task.true_answers(truth, findings)
    assert _labels(true, "given_label", "unit_id") == _labels(units, "given_label", "unit_id")
    given = examples["given_label"].combine_chunks()
    for figures in (task.metrics(given, given), task.metrics(predicted, given)):
        assert all(isinstance(value, float) and math.isfinite(value) for value in figures.values())


def _labels(table: pa.Table, column: str, key: str = "example_id") -> dict[int, Any]:
    return dict(zip(table[key].to_pylist(), table[column].to_pylist(), strict=True))
