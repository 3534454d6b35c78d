"""An annotator between epochs: labels and figures, nothing paid twice, and failures that cost answers only."""

import asyncio
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rayclean.annotators.base import Annotator
from rayclean.annotators.between_epochs import answer_between_epochs
from rayclean.annotators.choices import Measured
from rayclean.annotators.engine import Engine
from rayclean.annotators.knn import KnnAnnotator
from rayclean.annotators.ledger import Ledger
from rayclean.annotators.measuring import measured_for_methods, remark_on
from rayclean.annotators.query import Annotation, Query
from rayclean.annotators.query_budget import Budget
from rayclean.annotators.simulated import SimulatedAnnotator
from rayclean.config import Plugin, parse_config
from rayclean.errors import AnnotationError
from rayclean.folder import Folder
from rayclean.functional.worth import Worth
from rayclean.schema import ABSTAINED, UNANSWERED, Candidate, Label, LabelSet, MethodQueries
from rayclean.training.loop import fit
from tests.annotators import test_decisions
from tests.training.toys import TOY, WORDS, job, spec, write_examples

LABELS = LabelSet([Label(i, name, name) for i, name in enumerate("abc")])


def label_of(candidate: Candidate) -> int:
    index = LABELS.index(json.loads(candidate.value))
    assert index is not None
    return index


class Scripted(Annotator):
    """Scores as written; keeps what it was asked."""

    scores: Any = None
    fails: tuple[int, ...] = ()
    down = False

    def __init__(self, **attributes: Any):
        super().__init__(Annotator.Config(), tuple(LABELS))
        self.asked: list[Query] = []
        self.__dict__.update(attributes)

    async def start(self) -> None:
        if self.down:
            raise AnnotationError("the endpoint is down")

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
        self.asked += queries
        query = queries[0]
        if query.unit_id in self.fails:
            return [Annotation(self.key(query), query.unit_id, None, error="timeout: too slow")]
        by_label = self.scores(query)
        scores = tuple(by_label[label_of(candidate)] for candidate in query.candidates)
        return [Annotation(self.key(query), query.unit_id, 0, scores, prompt_tokens=10, answer_tokens=1)]


@pytest.fixture
def examples(tmp_path: Path) -> str:
    return write_examples(tmp_path / "examples", 30)


def rows_of(examples: str) -> Any:
    import pandas as pd

    folder = Folder(examples)
    return pd.concat([folder.read_table(shard).to_pandas() for shard in folder.shards()]).reset_index()


def asked(examples: str, count: int, shown: int = 2, **changes: Any) -> MethodQueries:
    table = rows_of(examples)
    ids, others = table["example_id"].to_numpy(), table["given_label"].to_numpy()
    neighbours = np.stack([np.roll(ids, -row - 1)[:shown] for row in range(count)])
    labels = np.stack([np.roll(others, -row - 1)[:shown] for row in range(count)])
    values = {
        "ids": ids[:count], "given": others[:count].astype(np.int64), "predicted": (others[:count] + 1) % 3, "log_odds": np.full(count, 2.0),
        "neighbours": neighbours, "neighbour_labels": labels.astype(np.int64),
        "similarity": np.tile(np.linspace(0.9, 0.8, shown, dtype=np.float32), (count, 1)),
        "candidates": "all", "accept": 0.6,
    }  # fmt: skip
    return MethodQueries(**{**values, **changes})


def run(annotator: Annotator, what: MethodQueries, examples: str, ledger: Path, **options: Any) -> Any:
    calibration, measured = options.pop("calibration", "none"), options.pop("measured", None)
    engine = Engine(annotator, Ledger(Folder(str(ledger)), "test"), **options)
    return asyncio.run(
        answer_between_epochs(
            engine, what, examples=examples, labels=LABELS, calibration=calibration, measured=measured
        )
    )


def worth(right: int, controls: int) -> Measured:
    """What relabel measured of an annotator without bias."""
    return Measured(Worth(right, controls), controls, right, np.zeros(3), 0.0)


def saying(answers: Sequence[int], what: MethodQueries, sure: float = 0.99) -> Scripted:
    """An annotator that gives these labels, as sure of each."""
    said = dict(zip(what.ids.tolist(), answers, strict=True))

    def script(query: Query) -> list[float]:
        rest = (1 - sure) / (len(query.candidates) - 1)
        return [math.log(sure if label == said[query.unit_id] else rest) for label in range(3)]

    return Scripted(scores=script)


def test_labels_and_figures_and_nothing_is_paid_twice(examples: str, tmp_path: Path) -> None:
    annotator = Scripted(scores=lambda query: (-5.0, -1.0, -3.0))
    what = asked(examples, 6)
    labels, figures = run(annotator, what, examples, tmp_path / "ledger")
    assert labels.tolist() == [1] * 6
    assert (figures["asked"], figures["from_ledger"], figures["tokens"]) == (6, 0, 66)
    worth = figures["prompt_tokens"], figures["answer_tokens"]
    assert worth == (60, 6)
    again, figures = run(annotator, what, examples, tmp_path / "ledger")
    assert again.tolist() == labels.tolist()
    assert (figures["asked"], figures["from_ledger"], figures["tokens"]) == (0, 6, 0)
    assert (figures["prompt_tokens"], figures["answer_tokens"]) == worth  # whoever paid them


def test_a_question_shows_the_nearest_last(examples: str, tmp_path: Path) -> None:
    table = rows_of(examples)
    what = asked(examples, 1, 3)
    what.neighbours[0, 2] = -1  # there are no more
    annotator = Scripted(scores=lambda query: (0.0, -1.0, -2.0))
    run(annotator, what, examples, tmp_path / "ledger")
    (query,) = annotator.asked
    text = table.set_index("example_id")["text"]
    assert [d.text for d in query.demonstrations] == [
        text[what.neighbours[0, 1]],
        text[what.neighbours[0, 0]],
    ]
    assert [d.similarity for d in query.demonstrations] == pytest.approx([0.85, 0.9])
    assert query.text == text[what.ids[0]]
    assert len(query.candidates) == 3


def test_binary_questions_and_acceptance_of_an_annotator_that_cannot_be_measured(
    examples: str, tmp_path: Path
) -> None:
    what = asked(examples, 3, candidates="binary", accept=0.7)
    scores = {int(what.ids[0]): 2.0, int(what.ids[1]): 0.1, int(what.ids[2]): -2.0}

    def script(query: Query) -> list[float]:
        values = [-50.0] * 3
        first, second = map(label_of, query.candidates)
        values[first], values[second] = 0.0, scores[query.unit_id]
        return values

    annotator = Scripted(scores=script)
    labels, figures = run(annotator, what, examples, tmp_path / "ledger")
    pairs = [sorted((int(g), int(p))) for g, p in zip(what.given, what.predicted, strict=True)]
    assert labels.tolist() == [pairs[0][1], ABSTAINED, pairs[2][0]]
    assert figures["abstained"] == 1


def test_a_bias_that_all_answers_share_is_taken_away(examples: str, tmp_path: Path) -> None:
    """A model that always prefers label 0: calibrated, the rows that prefer it less choose another."""
    what = asked(examples, 8, accept=0.5)
    lean = {int(example): float(row % 2) for row, example in enumerate(what.ids)}
    annotator = Scripted(scores=lambda query: (5.0, 2.0 + lean[query.unit_id], -9.0))
    assert run(annotator, what, examples, tmp_path / "one")[0].tolist() == [0] * 8
    labels, _ = run(annotator, what, examples, tmp_path / "two", calibration="controls")
    assert labels[1::2].tolist() == [1] * 4
    assert 1 not in labels[0::2]


def test_a_single_answer_is_not_calibrated_by_itself(examples: str, tmp_path: Path) -> None:
    annotator = Scripted(scores=lambda query: (5.0, 2.0, -9.0))
    labels, _ = run(annotator, asked(examples, 1), examples, tmp_path, calibration="controls")
    assert labels.tolist() == [0]


@pytest.mark.parametrize(
    ("controls", "model", "found"),
    [(60, "small", Worth(55, 60, 0.2)), (0, "small", Worth(0, 0)), (60, "large", Worth(0, 0))],
)
def test_what_relabel_measured_of_this_very_annotator_counts(controls: int, model: str, found: Worth) -> None:
    """Another model of the same plug-in is not measured by it; and an unknown one is worth nothing."""
    endpoint = {"name": "openai", "base_url": "http://127.0.0.1:1/v1"}
    config = parse_config(
        {
            "name": "x",
            "dataset": {"path": "x.csv"},
            "annotator": {**endpoint, "model": "small"},
            "relabel": {"annotators": ["knn", {**endpoint, "model": model}]},
        }
    )
    asked = Measured(Worth(55, 60, 0.2), controls, min(controls, 55), np.array([0.0, 0.25, -0.125]), 0.5)
    judged = [Measured.nothing(3).to_json(), {"name": "openai", **json.loads(json.dumps(asked.to_json()))}]
    measured = measured_for_methods(config, judged, 3)
    assert measured is not None
    assert measured.worth == found
    assert measured.bias.tolist() == ([0, 0.25, -0.125] if found.asked else [0, 0, 0])
    assert measured.underclaimed == (0.5 if found.asked else 0)
    unknown = measured_for_methods(config, (), 3)
    assert unknown is not None
    assert unknown.worth == Worth(0, 0)


def test_a_vote_of_neighbours_cannot_be_measured() -> None:
    config = parse_config({"name": "x", "dataset": {"path": "x.csv"}, "annotator": "knn"})
    assert measured_for_methods(config, [Measured.nothing(3).to_json()], 3) is None


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (None, "cannot measure it: "),
        (Measured.nothing(3), "nothing is known of it"),
        (worth(50, 100), "no better than chance"),
        (worth(90, 100), None),
    ],
)
def test_what_is_said_of_an_annotator(measured: Measured | None, said: str | None) -> None:
    remark = remark_on("it", measured)
    assert remark == said if said is None or remark is None else said in remark


@pytest.mark.parametrize("measured", [Measured.nothing(3), worth(75, 150), worth(60, 100)])
def test_an_annotator_not_surely_better_than_chance_decides_nothing(
    examples: str, tmp_path: Path, measured: Measured
) -> None:
    """Right on .6 of 100 control questions is not sure yet; it is not even asked, and it may claim what it wants."""
    what = asked(examples, 4, log_odds=np.full(4, 8.0))
    annotator = saying(what.predicted.tolist(), what)
    labels, figures = run(annotator, what, examples, tmp_path / "ledger", measured=measured)
    assert labels.tolist() == [ABSTAINED] * 4
    assert (figures["abstained"], figures["unanswered"], figures["asked"]) == (4, 0, 0)
    assert annotator.asked == []
    _, good = run(annotator, what, examples, tmp_path / "ledger", measured=worth(90, 100))
    assert good["asked"] == 4
    assert figures.keys() == good.keys()


def test_an_annotator_right_on_six_of_ten_overrules_no_network_that_is_sure(
    examples: str, tmp_path: Path
) -> None:
    """It claims .99, and with it alone 12 of 30 labels would change, where the networks give them odds of 1 to 400."""
    what = asked(examples, 30, log_odds=np.full(30, -6.0), candidates="binary")
    answers = np.where(np.arange(30) % 5 < 2, what.predicted, what.given)
    labels, _ = run(
        saying(answers.tolist(), what), what, examples, tmp_path / "one", measured=worth(120, 200)
    )
    assert not (labels == what.predicted).any()
    believed, _ = run(saying(answers.tolist(), what), what, examples, tmp_path / "two")
    assert believed.tolist() == answers.tolist()


@pytest.mark.parametrize("candidates", ["all", "binary"])
def test_a_good_annotators_answers_are_kept(examples: str, tmp_path: Path, candidates: str) -> None:
    """Worth .95: with two suggestions in three right by its answers, every one of them counts."""
    what = asked(examples, 30, candidates=candidates)
    answers = np.where(np.arange(30) % 3 < 2, what.predicted, what.given)
    labels, _ = run(
        saying(answers.tolist(), what), what, examples, tmp_path / "ledger", measured=worth(145, 150)
    )
    assert labels.tolist() == answers.tolist()


def test_a_third_label_decides_nothing_and_silence_stays_silence(examples: str, tmp_path: Path) -> None:
    """Whatever the networks say of them, and however sure the annotator is of the third label."""
    what = asked(examples, 30, log_odds=np.full(30, 9.0))
    answers = what.predicted.copy()
    answers[0] = 3 - what.given[0] - what.predicted[0]
    annotator = saying(answers.tolist(), what)
    annotator.fails = (int(what.ids[1]),)
    labels, figures = run(
        annotator, what, examples, tmp_path / "ledger", measured=worth(145, 150), max_error_rate=0.5
    )
    assert labels.tolist() == [ABSTAINED, UNANSWERED, *answers[2:].tolist()]
    assert (figures["abstained"], figures["unanswered"]) == (1, 1)


@pytest.mark.parametrize("right", [58, 50, 42])
def test_methods_and_relabel_decide_by_one_path(examples: str, tmp_path: Path, right: int) -> None:
    """The same controls, log-odds and answers: labels that relabel changes, keeps and refers."""
    odds = np.linspace(-4, 6, 30)
    what = asked(examples, 30, log_odds=odds, candidates="binary", accept=0.7)
    for_suggestion = np.sin(np.arange(30.0)) + odds / 3 > 0
    answers = np.where(for_suggestion, what.predicted, what.given)
    rows = [
        test_decisions.row_of(number, number, int(given), int(predicted), int(answer), log_odds=float(lp))
        | {"all_scores": test_decisions.log_scores(sorted((given, predicted)), answer, 0.8)}
        for number, (given, predicted, answer, lp) in enumerate(
            zip(what.given, what.predicted, answers, odds, strict=True)
        )
    ]
    stage, decided = test_decisions.decide(
        tmp_path / "relabel", test_decisions.controls(right) + rows, accept=0.7
    )
    assert stage.judged["capped"] == 0
    expected = [
        {"changed": row["suggested_label"], "kept": row["given_label"]}.get(row["decision"], ABSTAINED)
        for _, row in sorted(decided.items())
    ]
    measured = Measured.from_json(stage.judged, 3)
    annotator = saying(answers.tolist(), what, sure=0.8)
    labels, _ = run(annotator, what, examples, tmp_path / "ledger", measured=measured)
    assert labels.tolist() == expected
    assert {58: 3, 50: 3, 42: 2}[right] <= len({row["decision"] for row in decided.values()}), expected


def test_failed_answers_are_no_answers(examples: str, tmp_path: Path) -> None:
    what = asked(examples, 4)
    annotator = Scripted(scores=lambda query: (0.0, -1.0, -2.0), fails=(int(what.ids[2]),))
    labels, figures = run(annotator, what, examples, tmp_path / "ledger")
    assert labels.tolist() == [0, 0, UNANSWERED, 0]
    assert figures["unanswered"] == 1


def test_an_annotator_that_is_down_costs_answers_only(examples: str, tmp_path: Path) -> None:
    labels, figures = run(Scripted(down=True), asked(examples, 4), examples, tmp_path / "ledger")
    assert labels.tolist() == [UNANSWERED] * 4
    assert figures["annotator_failed"] == 1


def test_a_budget_that_ends(examples: str, tmp_path: Path) -> None:
    annotator = Scripted(scores=lambda query: (0.0, -1.0, -2.0))
    budget = Budget(max_tokens=20)
    labels, figures = run(
        annotator, asked(examples, 6), examples, tmp_path / "ledger", budget=budget, concurrency=1
    )
    assert (labels >= 0).tolist() == [True, True, False, False, False, False]
    assert figures["asked"] == 2


def test_neighbours_vote(examples: str, tmp_path: Path) -> None:
    annotator = KnnAnnotator(KnnAnnotator.Config(neighbours=4), tuple(LABELS))
    what = asked(examples, 5, shown=annotator.demonstrations(2, "nearest")[0])
    labels, _ = run(annotator, what, examples, tmp_path / "ledger")
    for row, chosen in enumerate(labels):
        votes = np.bincount(what.neighbour_labels[row], weights=what.similarity[row], minlength=3)
        assert chosen in (int(votes.argmax()), ABSTAINED)


def purified(folder: Path, accuracy: float, *, noise: float, learning_rate: float, **options: Any) -> Any:
    """What a simulated annotator answered about NoiseAL's purified examples: columns answer, predicted,
    given, truth.
    """
    examples = write_examples(folder / "examples", 120, noise=noise)
    table = rows_of(examples)
    words = [set(line.split()) for line in WORDS]
    right = [max(range(3), key=lambda c: len(words[c] & set(text.split()))) for text in table["text"]]
    columns = {"example_id": table["example_id"], "true_label": pa.array(right, pa.int32())}
    Folder(str(folder / "truth")).write_table(pa.table(columns), "part-00000.parquet")
    config = SimulatedAnnotator.Config(accuracy=accuracy, truth_path=str(folder / "truth"))

    class Here:
        engine = Engine(
            SimulatedAnnotator(config, tuple(LABELS)), Ledger(Folder(str(folder / "ledger")), "s")
        )

        def demonstrations(self, count: int, selector: str) -> tuple[int, str]:
            return count, selector

        def __call__(self, what: MethodQueries) -> Any:
            work = answer_between_epochs(
                self.engine, what, examples=examples, labels=LABELS, calibration="none", measured=None
            )
            return asyncio.run(work)

    method = Plugin(name="noiseal", weak={"name": TOY}, warmup_epochs=2, lambda_=0.3, **options)
    one = job(examples, folder / "out")
    fit(one, spec(method=method, epochs=5, learning_rate=learning_rate), consult=Here())
    found = Folder(one.output).read_table("dynamics", "part-00000.parquet").to_pandas()
    known = table.assign(given=table["given_label"], truth=right)[["example_id", "given", "truth"]]
    return found[found["answer"] >= 0].merge(known, on="example_id", validate="1:1")


@pytest.mark.parametrize("candidates", ["all", "binary"])
def test_an_annotator_that_is_always_right_leaves_no_noise_in_what_it_was_asked(
    tmp_path: Path, candidates: str
) -> None:
    """With a simulated accuracy of 1 the noise of the purified examples after their answers is 0."""
    found = purified(tmp_path, 1.0, noise=0.3, learning_rate=0.05, candidates=candidates)
    assert (found["given"] != found["truth"]).sum() > 3
    if candidates == "all":
        assert found["answer"].tolist() == found["truth"].tolist()
    else:  # where the truth is no candidate it cannot be chosen
        reachable = found[(found["truth"] == found["given"]) | (found["truth"] == found["predicted"])]
        assert (reachable["answer"] == reachable["truth"]).mean() > 0.9


def test_an_annotator_that_guesses_is_worse_than_the_labels_that_were_given(tmp_path: Path) -> None:
    """An accuracy of 1/K leaves a noise of 1 - 1/K, more than the purified examples had: the
    networks have hardly learnt anything yet, and dispute right labels.
    """
    found = purified(tmp_path, 1 / 3, noise=0.1, learning_rate=0.003)
    assert len(found) > 20
    before, after = ((found[name] != found["truth"]).mean() for name in ("given", "answer"))
    assert 0 < before < 0.3
    assert after == pytest.approx(2 / 3, abs=0.25)
