"""Decisions: what an annotator chose, what controls say it is worth, and which suspects' labels change."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from rayclean.annotations import ANNOTATIONS, DECISIONS, SuspectRanking
from rayclean.annotators.answers import ANSWERS, AnsweredQuery
from rayclean.annotators.choices import choices, measure_annotator
from rayclean.annotators.decisions import (
    DecidedStage,
    changed_by_model_alone,
    decision_counts,
    write_decisions,
)
from rayclean.folder import Folder
from rayclean.functional.class_caps import supported_changes
from rayclean.functional.decision import SURE_ALONE, suggestion_probability
from rayclean.functional.worth import Worth

Row = dict[str, Any]
CONTROLS, SUSPECTS = 60, 100


def answer(scores: dict[int, float], given: int = 0, **more: dict[int, float]) -> AnsweredQuery:
    return AnsweredQuery(tuple(scores), given, None, scores, more.get("content_free", {}))


def test_the_most_probable_candidate_is_chosen() -> None:
    pairs = [(0.3, 0.7), (0.6, 0.4), (0.5, 0.5)]
    found = choices(
        [answer({label: math.log(p) for label, p in enumerate(pair)}) for pair in pairs], np.zeros(2)
    )
    assert found.label.tolist() == [1, 0, -1]  # a tie chooses nothing
    np.testing.assert_allclose(found.confidence, [0.7, 0.6, 0.5])
    np.testing.assert_allclose(found.probabilities, pairs)
    np.testing.assert_allclose(found.scores, np.log(pairs))


def test_the_bias_of_a_text_without_content_goes_before_the_measured_one() -> None:
    """Raw scores prefer label 0 by 1; the first answer's content-free scores prefer it by 2, controls by 0.5."""
    raw = {0: -1.0, 1: -2.0}
    found = choices([answer(raw, content_free={0: -1.0, 1: -3.0}), answer(raw)], np.array([0.5, 0.0]))
    assert found.label.tolist() == [1, 0]
    np.testing.assert_allclose(found.confidence, [1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(-0.5))])


def test_an_answer_without_scores_is_certain() -> None:
    """As people give it: no bias moves it."""
    answers = [AnsweredQuery((2, 0), given=0, choice=choice, scores={}, content_free={}) for choice in (2, 0)]
    found = choices(answers, np.array([5.0, 0.0, -5.0]))
    assert (found.label.tolist(), found.confidence.tolist(), found.scores) == ([2, 0], [1, 1], [(), ()])


def test_candidates_of_any_number_and_order() -> None:
    """Rows of different lengths do not disturb each other, and the order of the candidates changes nothing."""
    rows = [{3: -0.1, 1: -3.0, 2: -4.0}, {1: -0.1, 0: -2.0}, {2: -4.0, 1: -3.0, 3: -0.1}]
    together = choices([answer(row) for row in rows], np.zeros(4))
    alone = [choices([answer(row)], np.zeros(4)) for row in rows]
    assert together.label.tolist() == [one.label[0] for one in alone] == [3, 1, 3]
    assert together.probabilities == [one.probabilities[0] for one in alone]
    assert together.confidence[0] == pytest.approx(together.confidence[2])


def test_controls_say_what_an_annotator_is_worth() -> None:
    """Right: the given label. A tie and every other label are wrong."""
    answers = (
        [answer({0: -0.1, 1: -2.0})] * 7 + [answer({0: -2.0, 1: -0.1})] * 2 + [answer({0: -1.0, 1: -1.0})]
    )
    assert measure_annotator(answers, 3, "none").worth == Worth(7, 10)
    assert measure_annotator([], 3, "controls").worth == Worth(0, 0)


def test_controls_take_a_preference_away() -> None:
    """It reads the text, and likes label 0 by 5 whatever it reads: uncalibrated it is no better than its word."""
    rng = np.random.default_rng(0)
    given = np.arange(90) % 3
    scores = rng.normal(scale=0.3, size=(90, 3)) + np.eye(3)[given] * 2 + [5.0, 0, 0]
    pairs = np.stack([given, (given + 1 + np.arange(90) // 3 % 2) % 3], axis=1)
    answers = [
        AnsweredQuery(tuple(pair), int(pair[0]), None, {int(k): float(row[k]) for k in pair}, {})
        for pair, row in zip(pairs.tolist(), scores, strict=True)
    ]
    raw, calibrated = (measure_annotator(answers, 3, kind) for kind in ("none", "controls"))
    assert raw.bias.tolist() == [0, 0, 0]
    assert raw.worth.right == sum(0 not in pair or pair[0] == 0 for pair in pairs.tolist()) < 70
    assert calibrated.worth.right >= 88
    preference = calibrated.bias - calibrated.bias[1]
    assert preference[0] == pytest.approx(5, abs=1.5)
    assert preference[2] == pytest.approx(0, abs=1)


# --- from tables of answers to tables of decisions


def log_scores(candidates: Sequence[int], choice: int | None, sure: float = 0.9) -> list[Row]:
    """Scores of an annotator that is `sure` of its choice; of none, a tie."""
    rest = (1 - sure) / (len(candidates) - 1)
    p = {k: (0.5 if choice is None else sure if k == choice else rest) for k in candidates}
    return [{"label": k, "score": math.log(p[k])} for k in candidates]


def row_of(unit: int, rank: int, given: int, suggested: int, choice: int | None, **more: Any) -> Row:
    candidates = more.pop("candidates", sorted((given, suggested)))
    return {
        "unit_id": unit, "example_id": unit, "rank": rank, "given_label": given, "suggested_label": suggested,
        "log_odds": 0.0, "candidates": candidates, "state": "answered", "choice": choice, "content_free": [],
        "all_scores": log_scores(candidates, choice), "prompt_tokens": 10, "answer_tokens": 1, "reused": False,
        "model": "m", **more,
    }  # fmt: skip


def unanswered(row: Row, state: str) -> Row:
    error = "timeout: too slow" if state == "error" else None
    return row | {"state": state, "choice": None, "all_scores": [], "error": error, "model": None}


def controls(right: int, asked: int = CONTROLS) -> list[Row]:
    """Of which the annotator answers `right` with the given label, of every class alike."""
    rows = []
    for n in range(asked):
        given, other = n % 3, (n + 1) % 3
        rows.append(row_of(10_000 + n, n - asked, given, other, given if n < right else other))
    return rows


def suspects(
    answers: Sequence[str | None], log_odds: float | npt.NDArray[np.float64] = 0.0, given: int | None = None
) -> list[Row]:
    """Rows of suspects, whose answers are "suggested", "given", "tie", "error" or "unasked"."""
    odds = np.broadcast_to(np.asarray(log_odds, dtype=np.float64), len(answers))
    rows = []
    for n, said in enumerate(answers):
        label = n % 3 if given is None else given
        other = (label + 1 + n // 3 % 2) % 3
        row = row_of(
            n * 7 - 50,
            n,
            label,
            other,
            {"suggested": other, "given": label}.get(said or ""),
            log_odds=float(odds[n]),
        )
        rows.append(unanswered(row, said) if said in ("error", "unasked") else row)
    return rows


def decide(
    folder: Path,
    rows: Sequence[Row],
    *,
    files: int = 1,
    accept: float = 0.6,
    asks: bool = True,
    last: bool = True,
    calibration: str = "none",
    stage: int = 0,
) -> tuple[DecidedStage, dict[int, Row]]:
    """The statistics, and the written decisions by unit."""
    out = Folder(str(folder))
    for number, part in enumerate(np.array_split(np.arange(len(rows)), files)):
        table = pa.Table.from_pylist([rows[n] for n in part], schema=ANSWERS)
        out.write_table(table, "answers", f"annotator-{stage:02d}", f"part-{number:05d}.parquet")
    found = write_decisions(
        out,
        stage,
        "someone",
        3,
        calibration,
        accept,
        0,
        suspects=10**9,
        asks=asks,
        last=last,
        decides_alone=True,
    )
    written = [
        row for name in out.shards("annotations") for row in out.read_table("annotations", name).to_pylist()
    ]
    assert all(
        out.read_table("annotations", name).schema.equals(ANNOTATIONS) for name in out.shards("annotations")
    )
    by_unit = {row["unit_id"]: row for row in written}
    assert len(by_unit) == len(written)
    return found, by_unit


def names(decided: dict[int, Row], rows: Sequence[Row]) -> list[str | None]:
    """The decision on each suspect, in the order of the rows; None: it has none yet."""
    return [decided.get(row["unit_id"], {}).get("decision") for row in rows if row["rank"] >= 0]


def changed(decided: dict[int, Row]) -> set[int]:
    return {unit for unit, row in decided.items() if row["decision"] == "changed"}


def arrays(rows: Sequence[Row]) -> dict[str, npt.NDArray[Any]]:
    return {key: np.array([row[key] for row in rows])
            for key in ("unit_id", "given_label", "suggested_label", "log_odds")}  # fmt: skip


SURE = np.linspace(-3, 3, SUSPECTS)
"""Log-odds of suggestions from most improbable to most probable."""


@pytest.mark.parametrize("right", [15, 30, 33])
def test_the_answers_of_an_annotator_at_chance_count_for_nothing(tmp_path: Path, right: int) -> None:
    """Nothing changes that the posterior alone would not change, whatever it says; and nothing is confirmed."""
    rows = suspects(["suggested", "given"] * (SUSPECTS // 2), SURE)
    found, decided = decide(tmp_path / "coin", controls(right) + rows)
    alone = changed_by_model_alone(arrays(rows), 0.6, 3, 0)
    assert changed(decided) == {row["unit_id"] for row, at in zip(rows, alone, strict=True) if at}
    assert [name == "changed" for name in names(decided, rows)] == (
        1 / (1 + np.exp(-SURE)) >= SURE_ALONE
    ).tolist()
    assert set(names(decided, rows)) == {"changed", "referred"}
    assert found.judged["decided_by"] == "posterior_alone"
    assert (found.judged["controls"], found.judged["above_chance"]) == ({"asked": 60, "right": right}, False)
    _, nobody = decide(tmp_path / "nobody", [unanswered(row, "unasked") for row in rows], asks=False)
    assert names(nobody, rows) == names(decided, rows)  # the budget is not to blame where nobody is asked
    np.testing.assert_allclose([decided[unit]["probability"] for unit in nobody],
                               [row["probability"] for row in nobody.values()])  # fmt: skip


def test_an_annotator_right_nine_times_of_ten_keeps_most_repairs(tmp_path: Path) -> None:
    """Half of the suggestions are right, the model does not know which; it is believed as far as it has earned."""
    n = np.arange(SUSPECTS)
    is_wrong = n % 2 == 0
    says_suggested = is_wrong ^ (n // 2 % 10 == 0)  # a tenth of either kind
    rows = suspects(["suggested" if says else "given" for says in says_suggested])
    found, decided = decide(tmp_path / "good", controls(54) + rows)
    assert found.judged["decided_by"] == "open"
    is_changed = np.array([name == "changed" for name in names(decided, rows)])
    assert (is_changed & is_wrong).sum() == 0.9 * is_wrong.sum()
    assert (is_changed & ~is_wrong).sum() == 0.1 * is_wrong.sum()
    assert [name == "kept" for name in names(decided, rows)] == (~says_suggested).tolist()
    assert found.judged["accuracy"] == Worth(54, 60).lower < 0.9
    _, alone = decide(tmp_path / "alone", [unanswered(row, "unasked") for row in rows], asks=False)
    assert not changed(alone)


def test_an_annotator_that_claims_too_little_is_believed_as_far_as_controls_show(tmp_path: Path) -> None:
    """One suggestion in three is right: after an answer for it with P = .82 at the .9 of the controls, with .43 at .6."""
    n = np.arange(SUSPECTS)
    says_suggested = (n % 3 == 0) ^ (n // 3 % 10 == 0)
    rows = suspects(["suggested" if says else "given" for says in says_suggested])
    found = {}
    for claims in (0.6, 0.9):
        answers = [
            row | {"all_scores": log_scores(row["candidates"], row["choice"], claims)}
            for row in controls(57) + rows
        ]
        found[claims] = changed(decide(tmp_path / str(claims), answers)[1])
    assert found[0.6] == found[0.9]
    assert len(found[0.9]) > 20


def test_no_label_changes_where_the_answers_do_not_show_that_most_changes_are_right(tmp_path: Path) -> None:
    """An annotator that is right .9 of the time says "suggested" of a tenth: about as many as it errs."""
    said = ["suggested" if n % 10 == 0 else "given" for n in range(SUSPECTS)]
    rows = suspects(said, 2.0)  # the model is sure of itself, and wrong
    found, decided = decide(tmp_path, controls(54) + rows)
    assert found.judged["decided_by"] == "closed"
    assert names(decided, rows) == ["referred" if one == "suggested" else "kept" for one in said]
    assert changed_by_model_alone(arrays(rows), 0.6, 3, 0).sum() > 90


def test_the_names_of_what_is_not_decided(tmp_path: Path) -> None:
    said = ["suggested"] * 60 + ["given"] * 20 + ["tie", "error", "unasked"] * 5
    rows = suspects(said, np.where(np.arange(95) < 80, 0.0, -9.0))
    found, decided = decide(tmp_path, controls(58) + rows)
    expected = {
        "suggested": "changed",
        "given": "kept",
        "tie": "abstained",
        "error": "error",
        "unasked": "unasked",
    }
    assert names(decided, rows) == [expected[one] for one in said]
    assert set(expected.values()) < set(DECISIONS)
    assert found.counts["answered"] == 85
    assert found.error_kinds == {"timeout": 5}
    counts = decision_counts([found])
    assert {name: counts[name] for name in expected.values()} == {
        "changed": 60, "kept": 20, "abstained": 5, "error": 5, "unasked": 5
    }  # fmt: skip
    assert counts["model"] == "m"
    for row in decided.values():
        answered = row["error"] is None and row["decision"] not in ("error", "unasked")
        assert (row["confidence"] is None) == (not answered)
        assert (row["chosen_label"] is None) == (row["decision"] in ("abstained", "error", "unasked"))
        assert row["accepted"] == (row["decision"] == "changed")
        assert row["annotator"] == "someone"


def test_a_label_may_change_without_an_answer_where_all_others_show_it(tmp_path: Path) -> None:
    """Of suspects as doubtful as one whose query failed, nearly all suggestions are right."""
    rows = suspects(["suggested"] * 90 + ["error"] * 5 + ["unasked"] * 5, 2.0)
    _, decided = decide(tmp_path, controls(58) + rows)
    assert set(names(decided, rows)) == {"changed"}
    rows = suspects(["suggested"] * 90 + ["error"] * 5 + ["unasked"] * 5, np.repeat([2.0, -9.0], [90, 10]))
    _, decided = decide(tmp_path / "others", controls(58) + rows)
    assert names(decided, rows)[90:] == ["error"] * 5 + ["unasked"] * 5


def test_a_third_label_changes_nothing(tmp_path: Path) -> None:
    """Where every label is a candidate; a change always leads to the suggested one."""
    rows = suspects(["suggested"] * 80)
    for row in rows[:20]:
        third = 3 - row["given_label"] - row["suggested_label"]
        row |= {
            "candidates": [0, 1, 2],
            "choice": third,
            "all_scores": log_scores([0, 1, 2], third),
            "log_odds": 5.0,
        }
    _, decided = decide(tmp_path, controls(58) + rows)
    assert names(decided, rows) == ["abstained"] * 20 + ["changed"] * 60
    for row in rows[:20]:
        assert decided[row["unit_id"]]["chosen_label"] == 3 - row["given_label"] - row["suggested_label"]


def test_the_bias_that_controls_show_is_taken_from_suspects(tmp_path: Path) -> None:
    """It reads right, and prefers label 0 by 4: uncalibrated it takes every suspect for label 0 where it can."""
    rows = controls(CONTROLS) + suspects(["suggested", "given"] * (SUSPECTS // 2))
    wanted = {row["unit_id"]: row["choice"] for row in rows if row["rank"] >= 0}
    for row in rows:
        row["all_scores"] = [
            {"label": pair["label"], "score": pair["score"] + 4 * (pair["label"] == 0)}
            for pair in row["all_scores"]
        ]
    _, raw = decide(tmp_path / "raw", rows)
    assert all(row["chosen_label"] == 0 for row in raw.values() if 0 in row["candidates"])
    found, decided = decide(tmp_path / "calibrated", rows, calibration="controls")
    assert {unit: row["chosen_label"] for unit, row in decided.items()} == wanted
    assert found.judged["controls"] == {"asked": 60, "right": 60}
    for unit, row in decided.items():  # raw scores stay what was answered
        scores = {
            pair["label"]: pair["score"]
            for pair in next(r for r in rows if r["unit_id"] == unit)["all_scores"]
        }
        np.testing.assert_allclose(row["scores"], [scores[label] for label in row["candidates"]], rtol=1e-5)
        assert sum(row["probabilities"]) == pytest.approx(1)


def test_a_class_loses_no_more_labels_than_its_suspects_support(tmp_path: Path) -> None:
    """A hundred labels of class 0, each with a suggestion that is right with probability .86, and the most probable
    changes stay.
    """
    odds = np.linspace(1.8, 1.9, SUSPECTS)
    rows = suspects(["tie"] * SUSPECTS, odds, given=0)
    found, decided = decide(tmp_path, rows)
    p = 1 / (1 + np.exp(-odds))
    most = int(supported_changes(p, np.zeros(SUSPECTS, dtype=np.int64), 3)[0])
    assert 70 < most < SUSPECTS
    is_changed = [name == "changed" for name in names(decided, rows)]
    assert is_changed == [False] * (SUSPECTS - most) + [True] * most
    assert found.judged["capped"] == SUSPECTS - most
    alone = changed_by_model_alone(arrays(rows), 0.6, 3, 0)
    assert alone.tolist() == is_changed


@pytest.mark.parametrize("right", [36, 56])
def test_a_higher_acceptance_changes_fewer_of_the_same(tmp_path: Path, right: int) -> None:
    rng = np.random.default_rng(1)
    rows = suspects(list(rng.choice(["suggested", "given", "tie"], SUSPECTS, p=[0.5, 0.4, 0.1])), SURE)
    sets = []
    for number, accept in enumerate((0.5, 0.6, 0.8, 0.95, 1.0)):
        found, decided = decide(tmp_path / str(number), controls(right) + rows, accept=accept)
        assert all(decided[unit]["probability"] >= accept for unit in changed(decided))
        assert found.judged["controls"]["right"] == right
        sets.append(changed(decided))
    assert all(more >= less for more, less in itertools.pairwise(sets))
    assert sets[0] > sets[3] >= sets[4] == set()


def test_the_probability_is_that_of_model_and_annotator_together(tmp_path: Path) -> None:
    said = ["suggested"] * 60 + ["given"] * 30 + ["tie"] * 10
    rows = suspects(said, SURE)
    found, decided = decide(tmp_path, controls(56) + rows)
    says = np.repeat([1, 0, np.nan], [60, 30, 10])
    expected = suggestion_probability(SURE, says, Worth(56, 60).lower, tuple(found.judged["scale"]))
    np.testing.assert_allclose([decided[row["unit_id"]]["probability"] for row in rows], expected)
    ranking = SuspectRanking.read(Folder(str(tmp_path)))
    assert ranking.unit_id.tolist() == sorted(row["unit_id"] for row in rows)
    is_changed = ranking.decided("changed")
    np.testing.assert_allclose(ranking.certainty[is_changed], ranking.probability[is_changed], rtol=1e-6)
    np.testing.assert_allclose(
        ranking.certainty[~is_changed], 1 - ranking.probability[~is_changed], rtol=1e-6
    )
    np.testing.assert_allclose(ranking.log_odds, SURE)
    assert ranking.suggested.tolist() == [row["suggested_label"] for row in rows]


@pytest.mark.parametrize("calibration", ["none", "controls"])
def test_files_and_the_order_of_rows_change_nothing(tmp_path: Path, calibration: str) -> None:
    """Controls and suspects are judged together, wherever they are written."""
    rng = np.random.default_rng(2)
    rows = controls(52) + suspects(list(rng.choice(["suggested", "given", "tie", "error"], SUSPECTS)), SURE)
    one, first = decide(tmp_path / "one", rows, calibration=calibration)
    shuffled = [rows[n] for n in rng.permutation(len(rows))]
    many, second = decide(tmp_path / "many", shuffled, files=7, calibration=calibration)
    assert first.keys() == second.keys()
    for unit, row in first.items():
        assert row["probability"] == pytest.approx(second[unit].pop("probability"), abs=1e-6)
        assert {key: row[key] for key in ("decision", "chosen_label", "candidates", "rank")} == {
            key: second[unit][key] for key in ("decision", "chosen_label", "candidates", "rank")
        }
    assert one.counts == many.counts
    assert one.judged["controls"] == many.judged["controls"]
    assert (one.prompt_tokens, one.answer_tokens) == (many.prompt_tokens, many.answer_tokens)


def test_the_next_annotator_is_asked_about_what_the_first_leaves_open(tmp_path: Path) -> None:
    said = ["suggested"] * 60 + ["given"] * 20 + ["tie", "error", "unasked"] * 5
    rows = suspects(said, np.where(np.arange(95) < 80, 0.0, -9.0))
    first, decided = decide(tmp_path, controls(58) + rows, last=False)
    assert names(decided, rows) == ["changed"] * 60 + ["kept"] * 20 + [None] * 15
    assert first.undecided.tolist() == sorted(row["unit_id"] for row in rows[80:])
    rest = [row_of(row["unit_id"], row["rank"], row["given_label"], row["suggested_label"], row["suggested_label"],
                   model="other") for row in rows[80:]]  # fmt: skip
    second, decided = decide(tmp_path, controls(60) + rest, stage=1)
    assert names(decided, rows) == ["changed"] * 60 + ["kept"] * 20 + ["changed"] * 15
    assert len(second.undecided) == 0
    counts = decision_counts([first, second])
    assert (counts["changed"], counts["kept"], counts["error"], counts["errors"]) == (75, 20, 0, {})
    assert counts["model"] == "m, other"


def test_controls_are_paid_for_and_are_no_suspects(tmp_path: Path) -> None:
    rows = suspects(["suggested"] * 40)
    for row in rows[:10]:
        row["reused"] = True
    found, decided = decide(tmp_path, controls(58) + rows)
    assert len(decided) == 40
    assert (found.prompt_tokens, found.answer_tokens) == (1000, 100)
    assert (found.counts["answered"], found.counts["reused"]) == (40, 10)


def test_failed_controls_say_nothing_of_an_annotator(tmp_path: Path) -> None:
    failed = [unanswered(row, "error") for row in controls(0, 30)]
    others = [row | {"unit_id": row["unit_id"] + 500} for row in controls(30, 30)]
    rows = suspects(["suggested"] * 40)
    found, decided = decide(tmp_path, failed + others + rows)
    assert found.judged["controls"] == {"asked": 30, "right": 30}
    assert names(decided, rows) == ["changed"] * 40


@pytest.mark.parametrize("asked", [0, 60])
def test_without_suspects_nothing_is_decided(tmp_path: Path, asked: int) -> None:
    found, decided = decide(tmp_path, controls(asked, asked))
    assert not decided
    assert found.judged["controls"] == {"asked": asked, "right": asked}
    out = Folder(str(tmp_path / "nothing"))
    found = write_decisions(
        out, 0, "someone", 3, "none", 0.6, 0, suspects=10**9, asks=True, last=True, decides_alone=True
    )
    assert (found.judged["decided_by"], found.judged["scale"], len(found.undecided)) == (None, None, 0)


def test_an_annotator_is_measured_in_the_classes_that_it_is_asked_about() -> None:
    """It knows class 2 and guesses in class 1: what counts is how many suspects each has."""
    answers = [answer({0: -1.0, 2: 0.0}, given=2) for _ in range(80)]
    answers += [answer({0: 0.0, 1: -1.0 if n % 2 else 1.0}, given=1) for n in range(20)]
    assert measure_annotator(answers, 3, "none").worth == Worth(90, 100)
    of_class_1 = measure_annotator(answers, 3, "none", np.array([0, 50, 0]))
    assert (of_class_1.asked, of_class_1.right, of_class_1.worth) == (100, 90, Worth(10, 20))
    both = measure_annotator(
        answers, 3, "none", np.array([0, 50, 50])
    ).worth  # 1 / (1 / 80 + 1 / 20) * 4 = 64 answers
    assert both == Worth(48, 64)
    unknown = measure_annotator(answers, 3, "none", np.array([50, 0, 50])).worth  # a coin in class 0
    assert unknown == Worth(60, 80)
