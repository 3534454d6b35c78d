"""What a network learns and answers in every task, with the numbers worked out by hand."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.plugins import Plugin
from rayclean.schema import Label, LabelSet
from rayclean.tasks import TASKS
from rayclean.tasks.base import IGNORED, Task

NAMES = ("a", "b", "c")


def task(name: str, names: tuple[str, ...] = NAMES) -> Task:
    return TASKS.build(Plugin(name=name), LabelSet(Label(n, each, each) for n, each in enumerate(names)))


def lists(values: list[Any]) -> pa.Array:
    return pa.array(values, pa.list_(pa.int32()))


def test_what_each_task_asks_of_a_network() -> None:
    expected = {
        "classification": ("class", False, 3),
        "multi_label": ("classes", False, 3),
        "tagging": ("tags", True, 7),  # O, and B- and I- of three classes
    }
    assert expected.keys() == dict(TASKS).keys()
    for name, (form, per_token, outputs) in expected.items():
        one = task(name)
        assert (one.label_form, one.per_token, one.outputs) == (form, per_token, outputs)


def test_targets_of_a_class() -> None:
    targets = task("classification").targets(pa.array([2, None, 0], pa.int32()))
    assert targets.dtype == np.int64
    assert targets.tolist() == [2, -1, 0]


def test_targets_of_classes() -> None:
    column = lists([[0, 2], [], [1], None, [0, 1, 2]])
    expected = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1]]
    for labels in (column, pa.chunked_array([column.slice(0, 2), column.slice(2)]), column.slice(1)):
        targets = task("multi_label").targets(labels)
        assert targets.dtype == np.float32
        assert targets.tolist() == expected[-len(labels) :]


def test_targets_of_tags_are_padded() -> None:
    column = lists([[9], [0, 1, 2], [], [3]]).slice(1)
    targets = task("tagging").targets(column)
    assert targets.dtype == np.int64
    assert targets.tolist() == [[0, 1, 2], [-1, -1, -1], [3, -1, -1]]
    assert task("tagging").targets(lists([[]])).tolist() == [[-1]]


def test_loss_of_a_class() -> None:
    one = task("classification")
    logits = torch.tensor([[0.0, math.log(2), 0.0], [0.0, 0.0, 0.0]])
    targets = torch.tensor([1, 0])
    # p = 1/4, 2/4, 1/4 and thirds: -log 1/2 and -log 1/3
    torch.testing.assert_close(one.loss(logits, targets), torch.tensor([math.log(2), math.log(3)]))
    assert one.correct(logits, targets).tolist() == [1.0, 1.0]  # of equal ones the first
    assert one.correct(logits, torch.tensor([2, 1])).tolist() == [0.0, 0.0]
    assert one.probabilities(logits.numpy())[0].tolist() == [0.25, 0.5, 0.25]


def test_loss_of_classes() -> None:
    one = task("multi_label")
    logits = torch.tensor([[0.0, math.log(3), -math.log(3)]])
    # p = 1/2, 3/4, 1/4. The set {0, 2}: -log of 1/2, 1/4, 1/4, so (log 2 + log 4 + log 4) / 3 = 5/3 log 2
    targets = torch.from_numpy(one.targets(lists([[0, 2]])))
    torch.testing.assert_close(one.loss(logits, targets), torch.tensor([5 / 3 * math.log(2)]))
    # Said to apply: 0 and 1. Right about 0, wrong about 1 and 2.
    torch.testing.assert_close(one.correct(logits, targets), torch.tensor([1 / 3]))
    none = torch.from_numpy(one.targets(lists([[]])))  # 1/2, 1/4, 3/4
    expected = (math.log(2) + math.log(4) + math.log(4 / 3)) / 3
    torch.testing.assert_close(one.loss(logits, none), torch.tensor([expected]))
    torch.testing.assert_close(one.correct(logits, none), torch.tensor([1 / 3]))
    np.testing.assert_allclose(one.probabilities(logits.numpy()), [[0.5, 0.75, 0.25]], rtol=1e-6)
    assert one.probabilities(np.array([[1e4, -1e4, 0.0]], np.float32)).tolist() == [[1.0, 0.0, 0.5]]


def test_loss_of_tags() -> None:
    one = task("tagging", ("x",))  # O, B-x, I-x
    logits = torch.zeros(3, 3, 3)
    logits[0, 0, 1], logits[0, 1, 2] = math.log(2), math.log(6)
    targets = torch.from_numpy(one.targets(lists([[1, 0], [2, 0, 1], []])))
    # Text 0: p = 1/4, 2/4, 1/4 with tag 1 and 1/8, 1/8, 6/8 with tag 0: (log 2 + log 8) / 2 = 2 log 2. Text 1:
    # thirds. Text 2 has no token.
    expected = torch.tensor([2 * math.log(2), math.log(3), 0.0])
    torch.testing.assert_close(one.loss(logits, targets), expected)
    # Right about one of two; of equal tags the first, O, is said: one of three.
    torch.testing.assert_close(one.correct(logits, targets), torch.tensor([1 / 2, 1 / 3, 1.0]))
    found = one.probabilities(logits[0, :2].numpy())
    np.testing.assert_allclose(found, [[1 / 4, 2 / 4, 1 / 4], [1 / 8, 1 / 8, 6 / 8]], rtol=1e-6)


@given(st.integers(1, 5), st.integers(0, 4), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_padding_and_what_is_ignored_change_no_loss_of_tags(tokens: int, more: int, random: Any) -> None:
    one = task("tagging", ("x", "y"))
    generator = torch.Generator().manual_seed(random.randrange(1000))
    logits = torch.randn(2, tokens + more, 5, generator=generator, requires_grad=True)
    targets = torch.randint(0, 5, (2, tokens + more), generator=generator)
    targets[:, tokens:] = IGNORED
    for function in (one.loss, one.correct):
        torch.testing.assert_close(
            function(logits, targets), function(logits[:, :tokens], targets[:, :tokens])
        )
    one.loss(logits, targets).sum().backward()
    assert logits.grad is not None
    assert not logits.grad[:, tokens:].any()
    assert logits.grad[:, :tokens].any()


def test_prediction_tables_of_lists() -> None:
    ids, fold = np.array([7, 8]), np.array([0, -1], np.int16)
    given = lists([[0, 2], None])
    probabilities = np.array([[0.5, 0.25, 1.0], [0.0, 0.75, 0.5]], np.float32)
    table = task("multi_label").prediction_table(ids, given, probabilities, fold)
    assert table.to_pylist() == [
        {"example_id": 7, "given_label": [0, 2], "fold": 0, "probabilities": [0.5, 0.25, 1.0]},
        {"example_id": 8, "given_label": None, "fold": -1, "probabilities": [0.0, 0.75, 0.5]},
    ]
    one = task("tagging", ("x",))
    table = one.prediction_table(ids, lists([[1, 0], None]), probabilities, fold, np.array([0, 2, 2]))
    assert table["probabilities"].to_pylist() == [[[0.5, 0.25, 1.0], [0.0, 0.75, 0.5]], []]
    assert table["given_label"].to_pylist() == [[1, 0], None]
    for name in ("probabilities", "given_label"):
        assert pa.types.is_list(table[name].type)
    assert table.schema.field("probabilities").type == pa.list_(pa.list_(pa.float32()))


def test_who_asks_only_how_labels_are_stored_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from rayclean.tasks import TASKS; "
        "print([TASKS.resolve(name).label_form for name in TASKS], 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "['class', 'classes', 'tags'] False\n"
