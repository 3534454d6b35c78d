import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.annotations import SuspectRanking
from rayclean.errors import ArtifactError
from rayclean.evaluation.counts import RunCounts, aligned
from rayclean.evaluation.metrics import compute


def annotations(rows: list[tuple]) -> pa.Table:
    """Rows of (id, given, suggested, chosen, confidence, decision); the model holds both labels equally probable."""
    probability = [0.5 if r[4] is None else r[4] if r[3] == r[2] else 1 - r[4] for r in rows]
    return pa.table({
        "unit_id": pa.array([r[0] for r in rows], pa.int64()),
        "example_id": pa.array([r[0] for r in rows], pa.int64()),
        "rank": pa.array(range(len(rows)), pa.int64()),
        "given_label": pa.array([r[1] for r in rows], pa.int32()),
        "suggested_label": pa.array([r[2] for r in rows], pa.int32()),
        "chosen_label": pa.array([r[3] for r in rows], pa.int32()),
        "confidence": pa.array([r[4] for r in rows], pa.float32()),
        "probability": pa.array(probability, pa.float64()),
        "log_odds": pa.array([0.0] * len(rows), pa.float64()),
        "decision": pa.array([r[5] for r in rows], pa.string()),
        "given_value": pa.nulls(len(rows), pa.string()),
        "suggested_value": pa.nulls(len(rows), pa.string()),
        "annotator": pa.array(["knn"] * len(rows), pa.string()),
        "auditor": pa.nulls(len(rows), pa.string()),
        "audited_label": pa.nulls(len(rows), pa.int32()),
        "candidates": pa.array([[r[1], r[2]] if r[3] is not None else [] for r in rows], pa.list_(pa.int32())),
        "error": pa.array(["timeout: 60 s" if r[5] == "error" else None for r in rows], pa.string()),
    })  # fmt: skip


def columns(n: int = 8) -> dict[str, np.ndarray]:
    return {
        "unit_id": np.array([70, 10, 60, 20, 50, 30, 40, 80])[:n],
        "given": np.array([0, 0, 1, 1, 0, 1, 0, 1])[:n],
        "final": np.array([1, 0, 0, 1, 0, 1, 1, 1])[:n],
        "truth": np.array([1, 0, 1, 1, 1, 1, 1, -1])[:n],
        "split": np.array(["train", "train", "train", "train", "dev", "dev", "train", "train"])[:n],
        "source": np.array(["changed", "given", "changed", "given", "reverted", "given", "changed", "given"])[
            :n
        ],
        "quality": np.array([0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.15, 0.6], np.float32)[:n],
        "suspect": np.array([True, False, True, False, True, False, True, False])[:n],
        "quality_d": np.array([0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.15, 0.6], np.float32)[:n],
        "vote_d": np.array([True, False, False, False, True, False, True, True])[:n],
    }


def asked() -> SuspectRanking:
    return SuspectRanking.from_tables([annotations([
        (70, 0, 1, 1, 0.9, "changed"), (40, 0, 1, 1, 0.8, "changed"), (60, 1, 0, 0, 0.7, "changed"),
        (50, 0, 1, 1, 0.6, "changed"),
    ])])  # fmt: skip


def facts(counts: RunCounts) -> dict:
    return {"counts": counts, "truth": counts, "suspects": counts.suspects, "judged": counts.suspects}


def test_counts_by_hand() -> None:
    # 7 of known truth; wrong before: 70, 50, 40; wrong after: 60 (harm), 50 (reverted)
    counts = RunCounts(asked(), ["d"])
    counts.add(columns())
    found = compute(facts(counts))
    assert found["noise"]["given"] == 3 / 7
    assert found["noise"]["final"] == 2 / 7
    assert found["harm"] == 1 / 4
    assert found["repaired"] == 2 / 3
    assert found["detection"]["precision_at_budget"] == 3 / 4
    assert found["detection"]["recall_at_budget"] == 1
    assert found["detection"]["roc_auc"] == pytest.approx(
        11 / 12
    )  # 60 (.2) is above 50 (.3): 1 of 3 x 4 pairs
    assert (
        found["detection"]["detectors"]["d"]["precision_of_votes"] == 1
    )  # votes: 70, 50, 40 and 80, unknown
    assert found["detection"]["detectors"]["d"]["votes"] == 4
    assert found["noise"]["by_split"]["dev"] == {"examples": 2, "given": 1 / 2, "final": 1 / 2}
    assert found["annotator"]["accuracy"] == 3 / 4
    assert counts.reverted == {50}
    assert counts.cut == pytest.approx(0.3)
    assert counts.given_final == {(0, 1): 2, (0, 0): 2, (1, 0): 1, (1, 1): 3}
    assert counts.given_true == {(0, 1): 3, (0, 0): 1, (1, 1): 3}


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(8)), st.lists(st.integers(0, 8), max_size=3))
def test_shards_and_order_change_nothing(order: list[int], cuts: list[int]) -> None:
    whole = RunCounts(asked(), ["d"])
    whole.add(columns())
    parts = RunCounts(asked(), ["d"])
    edges = [0, *sorted(cuts), 8]
    for start, stop in itertools.pairwise(edges):
        parts.add({name: column[order[start:stop]] for name, column in columns().items()})
    assert compute(facts(parts)) == compute(facts(whole))
    assert (parts.histogram == whole.histogram).all()
    assert parts.suspects.truth.tolist() == whole.suspects.truth.tolist()


def test_suspects_without_answers() -> None:
    found = SuspectRanking.from_tables(
        [annotations([(3, 0, 1, None, None, "error"), (1, 0, 1, None, None, "unasked")])]
    )
    assert found.example_id.tolist() == [1, 3]
    assert found.chosen.tolist() == [-1, -1]
    assert np.isnan(found.confidence).all()
    assert found.probability.tolist() == [0.5, 0.5]
    assert found.error_kinds == {"timeout": 1}


def test_no_suspects_at_all() -> None:
    found = SuspectRanking.from_tables([])
    assert len(found.example_id) == 0
    assert not found.among_candidates().any()


def test_a_change_goes_to_the_suggested_label_and_is_as_sure_as_its_probability() -> None:
    """Whatever the annotator chose: the model and other answers may outweigh it, and nothing may too."""
    found = SuspectRanking.from_tables([annotations([
        (1, 0, 1, 0, 0.6, "changed"), (2, 0, 2, 0, 0.9, "kept"), (3, 1, 0, None, None, "referred"),
        (4, 1, 0, 2, 0.9, "abstained"),
    ])])  # fmt: skip
    assert found.suggested.tolist() == [1, 2, 0, 0]
    np.testing.assert_allclose(found.probability, [0.4, 0.1, 0.5, 0.1])
    np.testing.assert_allclose(found.certainty, [0.4, 0.9, 0.5, 0.9])
    assert found.certainty.dtype == np.float32
    assert [found.decided(name).tolist().index(True) for name in ("changed", "kept", "referred", "abstained")] == [
        0, 1, 2, 3,
    ]  # fmt: skip


def test_every_label_a_candidate() -> None:
    table = annotations([(1, 0, 1, 2, 0.9, "changed")])
    table = table.set_column(
        table.column_names.index("candidates"), "candidates", pa.array([[0, 1, 2]], pa.list_(pa.int32()))
    )
    found = SuspectRanking.from_tables([table])
    found.truth[:] = 2
    assert found.among_candidates().tolist() == [True]


def test_aligned_puts_rows_in_order_and_refuses_others() -> None:
    table = pa.table({"unit_id": [3, 1, 2], "x": ["c", "a", "b"]})
    assert aligned(table, np.array([1, 2, 3]), "labels/x")["x"].to_pylist() == ["a", "b", "c"]
    with pytest.raises(ArtifactError, match="rayclean detect CONFIG --again"):
        aligned(table, np.array([1, 2, 4]), "labels/x")
    with pytest.raises(ArtifactError):
        aligned(table, np.array([1, 2]), "labels/x")
