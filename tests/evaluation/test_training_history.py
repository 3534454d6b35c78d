"""Small `train/epochs/` written by hand, with the columns of each kind of method."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.evaluation import plots, subsets, training_history
from rayclean.evaluation.counts import BINS, UNKNOWN
from rayclean.folder import Folder
from rayclean.functional.partition import Subset
from rayclean.measures import HIGHEST_LOSS, AnswerColumn, EpochFigure, Histogram, Measures, SubsetColumn
from rayclean.methods import METHODS
from rayclean.plugins import Plugin
from tests.verbs.test_evaluate import labelled, run_it, write  # noqa: F401

IDS = [10, 20, 30, 40, 50, 60]
GIVEN = [0, 0, 1, 1, 2, 2]
TRUE = [0, 1, 1, 1, 0, None]  # 20 and 50 are wrong, 60 is not known
UNKNOWN_ROW, RIGHT, WRONG = 0, 1, 2

NOISEAL = {
    "label_probability_strong": [0.875, 0.125, 0.875, 1.0, 0.0, 0.5],
    "label_probability_weak": [0.625, 0.375, 0.875, 1.0, 0.25, 0.5],
    "confidence_strong": [0.875, 0.75, 0.875, 1.0, 0.75, 0.5],
    "confidence_weak": [0.625, 0.5, 0.875, 1.0, 0.625, 0.5],
    "confidence": [0.75, 0.625, 0.875, 1.0, 0.625, 0.5],
    "subset": [Subset.CLEAN, Subset.PURIFIED, Subset.CLEAN, Subset.HARD, Subset.HARD, Subset.PURIFIED],
    "answer": [-1, 1, -1, -1, 1, 0],
}
LANE = {
    "margin_sum": [3.0, -9.0, 2.0, 1.0, -1.0, 4.0],
    "visits": [2, 2, 2, 2, 2, 0],
    "weight": [1.0, 0.125, 1.0, 0.875, 0.5, 1.0],
    "weight_sum": [2.0, 0.5, 2.0, 1.75, 1.5, 0.0],
}


def write_truth(
    folder: Path, true: list[int | None] | None = None, cut: int = 3, ids: list[int] = IDS
) -> Folder:
    """Truth in two shards, in another order than the training's."""
    load = Folder(str(folder / "load"))
    order = np.argsort([id_ % 7 for id_ in ids])
    column = [(TRUE if true is None else true)[i] for i in order]
    table = pa.table({
        "example_id": pa.array([ids[i] for i in order], pa.int64()), "true_label": pa.array(column, pa.int32()),
    })  # fmt: skip
    for number, part in enumerate((table.slice(0, cut), table.slice(cut))):
        load.write_table(part, "truth", f"part-{number:05d}.parquet")
    return load


def shown(method: str, **options: object) -> Measures:
    """What a method of the package declares."""
    return METHODS.build(Plugin(name=method, **options), 3).measures()


def write_epochs(
    folder: Path,
    *epochs: dict,
    shows: Measures,
    cut: int = 4,
    ids: list[int] = IDS,
    given: list[int] = GIVEN,
) -> Folder:
    """`train/` of the given columns, and with what is shown of them."""
    train = Folder(str(folder / "train"))
    train.write_text(shows.model_dump_json(), "measures.json")
    for epoch, columns in enumerate(epochs, start=1):
        table = pa.table({
            "example_id": pa.array(ids, pa.int64()),
            **{name: pa.array(np.array(values, np.float32 if isinstance(values[0], float) else np.int16))
               for name, values in columns.items()},
            "given_label": pa.array(given, pa.int32()),
        })  # fmt: skip
        for number, part in enumerate((table.slice(0, cut), table.slice(cut))):
            train.write_table(part, "epochs", f"epoch-{epoch:03d}", f"part-{number:05d}.parquet")
    return train


def write_log(train: Folder, *records: dict) -> None:
    common = {"job": "train", "loss": 1.0, "dev_loss": 0.5, "dev_accuracy": 0.75}
    lines = [json.dumps(common | {"epoch": i} | record) for i, record in enumerate(records, start=1)]
    train.write_text("\n".join(lines) + "\n", "metrics.jsonl")


def counted(histogram: np.ndarray, top: float = 1.0) -> dict[float, int]:
    """Lower edge of each bin that holds something -> its examples."""
    return {round(float(i) * top / BINS, 6): int(histogram[i]) for i in np.flatnonzero(histogram)}


def test_noiseal_histograms_by_hand(tmp_path: Path) -> None:
    found = training_history.read_history(
        write_truth(tmp_path), write_epochs(tmp_path, NOISEAL, shows=shown("noiseal"))
    )
    assert found is not None
    assert list(found.histograms) == [
        "strong", "strong_loss", "strong_confidence", "weak", "weak_loss", "weak_confidence", "co_prediction",
        "co_prediction_loss", "co_prediction_confidence",
    ]  # fmt: skip
    strong = found.histograms["strong"][0]
    assert counted(strong[RIGHT]) == {0.875: 2, 0.995: 1}  # 1.0 is in the last bin
    assert counted(strong[WRONG]) == {0.0: 1, 0.125: 1}
    assert counted(strong[UNKNOWN_ROW]) == {0.5: 1}
    joint = found.histograms["co_prediction"][
        0
    ]  # (7/8 + 5/8) / 2, 7/8, 1 | (1/8 + 3/8) / 2, (0 + 1/4) / 2 | 1/2
    assert counted(joint[RIGHT]) == {0.75: 1, 0.875: 1, 0.995: 1}
    assert counted(joint[WRONG]) == {0.25: 1, 0.125: 1}
    assert found.histograms["weak"][0].sum() == len(IDS)
    loss = found.histograms["strong_loss"][0]  # -log .875, .875, 1 | -log .125, 0
    assert counted(loss[RIGHT], HIGHEST_LOSS) == {0.1: 2, 0.0: 1}
    assert counted(loss[WRONG], HIGHEST_LOSS) == {2.0: 1, 19.9: 1}
    joint_loss = found.histograms["co_prediction_loss"][0]  # of the mean: -log .75, .875, 1 | -log .25, .125
    assert counted(joint_loss[RIGHT], HIGHEST_LOSS) == {0.2: 1, 0.1: 1, 0.0: 1}
    assert counted(joint_loss[WRONG], HIGHEST_LOSS) == {1.3: 1, 2.0: 1}
    assert counted(found.histograms["strong_confidence"][0][WRONG]) == {0.75: 2}
    assert counted(found.histograms["weak_confidence"][0][RIGHT]) == {0.625: 1, 0.875: 1, 0.995: 1}
    assert counted(found.histograms["co_prediction_confidence"][0][WRONG]) == {0.625: 2}


def test_noiseal_row_by_hand(tmp_path: Path) -> None:
    warmup = NOISEAL | {"subset": [-1] * 6, "answer": [-1] * 6}
    train = write_epochs(tmp_path, warmup, NOISEAL, shows=shown("noiseal"))
    write_log(train, {"loss": 0.5}, {"asked": 2, "from_ledger": 1, "unanswered": 0})
    load = write_truth(tmp_path)
    found = training_history.read_history(load, train)
    assert found is not None
    first, second = found.epochs
    assert (first["epoch"], first["loss"], first["dev_accuracy"]) == (1, 0.5, 0.75)
    assert {first[name] for name in ("clean", "hard", "purified", "answered", "asked", "clean_wrong")} == {
        None
    }
    # clean: 10, 30; hard: 40, 50 wrong; purified: 20 wrong, 60 not known; answered: 20 -> 1 right, 50 -> 1 wrong, 60
    assert (second["clean"], second["hard"], second["purified"], second["answered"]) == (2, 2, 2, 3)
    assert (second["clean_wrong"], second["hard_wrong"], second["purified_wrong"]) == (0.0, 0.5, 1.0)
    assert (second["answered_wrong"], second["answers_wrong"]) == (1.0, 0.5)
    assert second["purified_after_wrong"] == 0.0  # the answer to 20 is right, that to 50 is not one of these
    assert (second["asked"], second["from_ledger"]) == (2, 1)


def test_one_network_alone_has_no_co_prediction(tmp_path: Path) -> None:
    alone = {name: values for name, values in NOISEAL.items() if not name.endswith("_weak")}
    train = write_epochs(tmp_path, alone, shows=shown("noiseal", networks="strong"))
    found = training_history.read_history(write_truth(tmp_path), train)
    assert found is not None
    assert list(found.histograms) == ["strong", "strong_loss", "strong_confidence"]


def test_lane_by_hand(tmp_path: Path) -> None:
    train = write_epochs(tmp_path, LANE, shows=shown("lane"))
    write_log(train, {"negative_margins": 2, "mean_weight": 0.75, "negative_mean": -5.0})
    found = training_history.read_history(write_truth(tmp_path), train)
    assert found is not None
    assert list(found.histograms) == ["weight", "weight_below_one", "mean_weight"]
    weight, below, mean = (histogram[0] for histogram in found.histograms.values())
    assert counted(weight[RIGHT]) == {0.995: 2, 0.875: 1}
    assert counted(below[RIGHT]) == {0.875: 1}
    assert counted(below[WRONG]) == counted(weight[WRONG]) == {0.125: 1, 0.5: 1}
    assert counted(weight[UNKNOWN_ROW]) == {0.995: 1}
    assert below[UNKNOWN_ROW].sum() == 0
    assert counted(mean[RIGHT]) == {0.995: 2, 0.875: 1}  # 2/2, 2/2, 1.75/2
    assert counted(mean[WRONG]) == {0.25: 1, 0.75: 1}
    assert mean[UNKNOWN_ROW].sum() == 0  # never visited
    (row,) = found.epochs
    assert (row["negative_margins"], row["mean_weight"], row["clamp_rate"]) == (2, 0.75, None)
    assert not {"clean", "answered", "answers_wrong", "negative_mean"} & set(row)


def test_loss_of_cross_entropy(tmp_path: Path) -> None:
    losses = [0.05, 3.05, 0.05, 0.25, float("inf"), float("nan")]
    train = write_epochs(tmp_path, {"loss": losses}, shows=shown("cross_entropy"))
    found = training_history.read_history(write_truth(tmp_path), train)
    assert found is not None
    assert list(found.histograms) == ["loss"]
    loss = found.histograms["loss"][0]
    assert counted(loss[RIGHT], HIGHEST_LOSS) == {0.0: 2, 0.2: 1}
    assert counted(loss[WRONG], HIGHEST_LOSS) == {3.0: 1, 19.9: 1}
    assert loss[UNKNOWN_ROW].sum() == 0
    assert found.epochs[0]["loss"] is None  # nothing was logged


def test_computations_by_hand(tmp_path: Path) -> None:
    columns = {"a": [0.5, 0.25, 0.75, 1.0, 0.0, 0.5], "b": [1.0, 0.0, 0.5, 4.0, -1.0, 2.0]}
    declared = {
        "mean": {"columns": ("a", "b"), "top": 2.5},
        "ratio": {"columns": ("a", "b"), "combine": "ratio", "top": 2.0},
        "loss_of_ratio": {"columns": ("a", "b"), "combine": "ratio", "minus_log": True, "top": 2.0},
        "below": {"columns": ("a",), "below": 0.5},
    }
    histograms = {name: Histogram(title="", means="", axis="", **each) for name, each in declared.items()}
    train = write_epochs(tmp_path, columns, shows=Measures(histograms=histograms))
    found = training_history.read_history(Folder(str(tmp_path / "load")), train)
    assert found is not None
    counts = {name: found.histograms[name][0, UNKNOWN_ROW] for name in histograms}
    # .75, .125, .625, 2.5, -.5, 1.25: what is above the top is in the last bin, what is below 0 in the first
    assert counted(counts["mean"], 2.5) == {0.75: 1, 0.125: 1, 0.625: 1, 2.4875: 1, 0.0: 1, 1.25: 1}
    # .5, -, 1.5, .25, -, .25: a second column of 0 or less counts nothing
    assert counted(counts["ratio"], 2.0) == {0.5: 1, 1.5: 1, 0.25: 2}
    # -log of these: .693, -.405, 1.386, 1.386
    assert counted(counts["loss_of_ratio"], 2.0) == {0.69: 1, 0.0: 1, 1.38: 2}
    assert counted(counts["below"]) == {0.25: 1, 0.0: 1}  # .5 itself is not below


def test_answers_without_subsets_are_counted_from_the_first_epoch(tmp_path: Path) -> None:
    shows = Measures(answers=AnswerColumn(column="answer"), figures={"kept": EpochFigure(title="kept")})
    train = write_epochs(tmp_path, {"answer": [0, -1, -1, -2, 1, 0]}, shows=shows)
    write_log(train, {"kept": 3})
    found = training_history.read_history(write_truth(tmp_path), train)
    assert found is not None
    (row,) = found.epochs
    # answered: 10 -> 0 right, 50 -> 1 wrong (its label, too), 60 of unknown truth
    assert (row["answered"], row["answered_wrong"], row["answers_wrong"], row["kept"]) == (3, 0.5, 0.5, 3)


def test_two_subsets_of_other_names_and_values(tmp_path: Path) -> None:
    shows = Measures(subsets=SubsetColumn(column="part", values={"unlabelled": 7, "labelled": 3}))
    train = write_epochs(tmp_path, {"part": [7, 7, 3, 3, 3, 0]}, shows=shows)
    write_log(train, {})
    found = training_history.read_history(write_truth(tmp_path), train)
    assert found is not None
    (row,) = found.epochs
    assert (row["unlabelled"], row["labelled"]) == (2, 3)
    assert (row["unlabelled_wrong"], row["labelled_wrong"]) == (1 / 2, 1 / 3)  # 20; 50
    assert not any("answer" in name or "after" in name for name in row)


def test_without_truth_everything_is_in_one_histogram(tmp_path: Path) -> None:
    train = write_epochs(tmp_path, NOISEAL, shows=shown("noiseal"))
    found = training_history.read_history(Folder(str(tmp_path / "load")), train)
    assert found is not None
    for histogram in found.histograms.values():
        assert histogram[:, UNKNOWN_ROW].sum() == len(IDS)
        assert histogram[:, RIGHT:].sum() == 0
    (row,) = found.epochs
    assert (row["clean"], row["purified"], row["answered"]) == (2, 2, 3)
    assert {row[name] for name in ("clean_wrong", "hard_wrong", "answered_wrong", "answers_wrong")} == {None}


def test_an_older_run_has_no_dynamics(tmp_path: Path) -> None:
    load, train = write_truth(tmp_path), Folder(str(tmp_path / "train"))
    assert training_history.read_history(load, train) is None
    write_log(train, {})
    train.write_text(Measures().model_dump_json(), "measures.json")
    assert training_history.read_history(load, train) is None  # figures alone, no epochs
    train.write_text("", "epochs", "epoch-001", "empty.txt")
    assert training_history.read_history(load, train) is None


def test_columns_that_nobody_declares_leave_the_figures(tmp_path: Path) -> None:
    load, train = write_truth(tmp_path), write_epochs(tmp_path, {"curious": [0.5] * 6}, shows=Measures())
    assert training_history.read_history(load, train) is None
    write_log(train, {"dev_accuracy": None, "dev_loss": float("inf")})
    found = training_history.read_history(load, train)
    assert found is not None
    assert found.histograms == {}
    assert (found.epochs[0]["loss"], found.epochs[0]["dev_accuracy"]) == (1.0, None)
    assert found.epochs[0]["dev_loss"] is None  # JSON knows no infinity


def test_epochs_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    epochs = [{"loss": [i / 10 + 0.05] * 6} for i in range(12)]
    train = write_epochs(tmp_path, *epochs, shows=shown("cross_entropy"))
    found = training_history.read_history(write_truth(tmp_path), train)
    assert found is not None
    assert [row["epoch"] for row in found.epochs] == list(range(1, 13))
    assert found.histograms["loss"].sum(axis=1).argmax(axis=1).tolist() == list(range(12))


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 40), cuts=st.tuples(st.integers(0, 40), st.integers(0, 40)), parts=st.integers(1, 3),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_shards_change_nothing_and_counts_equal_those_of_whole_columns(
    tmp_path_factory: pytest.TempPathFactory, n: int, cuts: tuple[int, int], parts: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("random")
    ids = sorted(rng.choice(1000, n, replace=False).tolist())
    given_label, true = rng.integers(0, 3, n), rng.integers(-1, 3, n)
    columns = {
        "label_probability_strong": rng.random(n).astype(np.float32).astype(float).tolist(),
        "subset": rng.integers(-1, 3, n).tolist(),
        "answer": rng.integers(-2, 3, n).tolist(),
    }
    load = write_truth(folder, [None if t == UNKNOWN else t for t in true.tolist()], cuts[0], ids)
    strong = Histogram(title="", means="", axis="", columns=("label_probability_strong",))
    shows = shown("noiseal").model_copy(update={"histograms": {"strong": strong}})
    train = write_epochs(folder, columns, shows=shows, cut=cuts[1], ids=ids, given=given_label.tolist())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subsets, "PARTS", parts)
        found = training_history.read_history(load, train)
    assert found is not None
    kinds = (
        true == UNKNOWN,
        (true != UNKNOWN) & (given_label == true),
        (true != UNKNOWN) & (given_label != true),
    )
    for row, rows in enumerate(kinds):
        values = np.array(columns["label_probability_strong"])[rows]
        expected = np.histogram(values, bins=BINS, range=(0, 1))[0]
        assert (
            np.abs(np.cumsum(found.histograms["strong"][0, row] - expected)).max() <= 1
        )  # an edge may be rounded
        assert found.histograms["strong"][0, row].sum() == rows.sum()
    subset, answer = np.array(columns["subset"]), np.array(columns["answer"])
    for name, member in (("clean", 0), ("hard", 1), ("purified", 2)):
        rows = (subset == member) & (true != UNKNOWN)
        wrong = float((given_label != true)[rows].mean()) if rows.any() and (subset >= 0).any() else None
        assert found.epochs[0][f"{name}_wrong"] == wrong
    rows = (answer >= 0) & (true != UNKNOWN)
    if rows.any() and (subset >= 0).any():
        assert found.epochs[0]["answers_wrong"] == float((answer != true)[rows].mean())
        assert found.epochs[0]["answered_wrong"] == float((given_label != true)[rows].mean())


def test_small_figures_keep_every_example() -> None:
    histograms = np.zeros((2, 3, BINS), np.int64)
    histograms[0, RIGHT, :60] = 100
    histograms[1, WRONG, [0, BINS - 1]] = 1000, 5
    half, other = plots.epoch_histograms(histograms, "loss", 20.0, bounded=False)
    assert half["layout"]["xaxis"]["range"] == other["layout"]["xaxis"]["range"] == [0, 10.0]
    assert [trace["name"] for trace in half["data"]] == ["label is right"]
    assert sum(half["data"][0]["y"]) == 6000
    assert other["data"][0]["y"][0] == 1000
    assert other["data"][0]["y"][-1] == 5  # beyond the axis, hence in the last bar
    assert "and above" in other["layout"]["xaxis"]["title"]["text"]
    whole, _ = plots.epoch_histograms(histograms, "weight", 1.0)
    assert whole["layout"]["xaxis"]["range"] == [0, 1.0]
    assert len(whole["data"][0]["y"]) == plots.BARS


def test_an_epoch_without_examples_says_so() -> None:
    (figure,) = plots.epoch_histograms(np.zeros((1, 3, BINS), np.int64), "weight", 1.0)
    assert figure["data"] == []
    assert figure["layout"]["annotations"][0]["text"] == "no example"


def test_the_verb_writes_the_rows_and_the_section(tmp_path: Path, labelled: dict) -> None:  # noqa: F811
    config, run = write(tmp_path / "old")
    assert run_it(config, run)["training"] is None
    assert "Training</h2>" not in run.sub(".partial", "evaluate-p").read_text("report.html")

    config, run = write(
        tmp_path / "new"
    )  # 20, 50: right; 40: wrong; 30: not known; 10, 60 are right as trained on
    write_epochs(tmp_path / "new" / "small", NOISEAL, shows=shown("noiseal"), given=[0, 1, 2, 0, 1, 1])
    (row,) = run_it(config, run)["training"]["epochs"]
    assert (row["clean_wrong"], row["hard_wrong"], row["purified_wrong"]) == (0.0, 0.5, 0.0)
    html = run.sub(".partial", "evaluate-p").read_text("report.html")
    assert "Training</h2>" in html
    assert 'data-chart="training-co_prediction-1"' in html
