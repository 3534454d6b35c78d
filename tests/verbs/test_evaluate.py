"""The verb on a small run folder written by hand; training and testing networks is `verbs.compare_networks`, tried end to end."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from rayclean import parse_config, schema
from rayclean.annotations import ANNOTATIONS
from rayclean.config import Config
from rayclean.errors import ArtifactError
from rayclean.evaluation.report import run_summary
from rayclean.evaluation.run_figures import run_figures
from rayclean.run import Run
from rayclean.schema import EXAMPLES, LABELS, REJECTED, TRUTH, Label, LabelSet
from rayclean.verbs import evaluate

NAMES = ["ham", "spam <b>", "eggs"]
GIVEN = [0, 0, 1, 1, 0, 2]
FINAL = [1, 0, 0, 1, 0, 2]
TRUE = [1, 0, 1, 1, 1, None]
SPLIT = ["train", "train", "train", "dev", "train", "train"]
SOURCE = ["changed", "given", "changed", "given", "error", "given"]
QUALITY = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7]
IDS = [60, 10, 50, 20, 40, 30]
TEST_IDS, TEST_GIVEN, TEST_TRUE = [100, 101, 102, 103], [0, 1, None, 2], [0, 0, 1, None]

JUDGED = {
    "name": "simulated", "controls": {"asked": 20, "right": 19}, "accuracy": 0.83, "above_chance": True,
    "decided_by": "open", "scale": [0.0, 0.5], "capped": 0, "unneeded": 0, "beyond": None,
}  # fmt: skip
UNASKED = JUDGED | {
    "controls": {"asked": 0, "right": 0}, "accuracy": 0.5, "above_chance": False, "decided_by": None, "scale": None,
}  # fmt: skip


def table(schema_: pa.Schema, *columns: list) -> pa.Table:
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema_, strict=True)], schema=schema_)


def write(
    folder: Path, *, truth: bool = True, test: bool = True, asked: bool = True, cut: int = 3
) -> tuple[Config, Run]:
    """Six examples in two shards, four test examples; ids 60, 50 and 40 are suspects."""
    config = parse_config({
        "name": "small", "output": str(folder), "dataset": {"path": "x.csv"}, "annotator": {"name": "simulated", "price_prompt": 2.0, "currency": "USD"},
        "detect": {"detectors": ["self_confidence"]},
    })  # fmt: skip
    run = Run(str(folder / "small"))
    load, detect, relabel = (run.sub(verb) for verb in ("load", "detect", "relabel"))
    load.write_text(LabelSet(Label(i, name, name) for i, name in enumerate(NAMES)).to_json(), "labels.json")
    ranks = [QUALITY.index(q) for q in sorted(QUALITY)]
    rank = [ranks.index(i) if ranks.index(i) < 3 and asked else -1 for i in range(6)]
    for number, rows in enumerate((slice(0, cut), slice(cut, 6))):
        name = f"part-{number:05d}.parquet"
        texts = [f"<script>{i}</script> text" for i in IDS]
        load.write_table(table(EXAMPLES, IDS[rows], texts[rows], GIVEN[rows], SPLIT[rows]), "examples", name)
        findings = [IDS, IDS, GIVEN, [1, 1, 0, 0, 1, 0], [None] * 6, [None] * 6, QUALITY, [0.5] * 6, QUALITY, [r >= 0 for r in rank], rank, [-1] * 6, ["self_confidence"] * 6,
                    QUALITY, [q < 0.25 for q in QUALITY]]  # fmt: skip
        of_shard = [column[rows] for column in findings]
        detect.write_table(table(schema.findings(["self_confidence"]), *of_shard), "findings", name)
        final, source = (FINAL, SOURCE) if asked else (GIVEN, ["given"] * 6)
        confidence = [0.8, None, 0.7, None, 0.6, None]
        columns = (IDS, IDS, GIVEN, final, [None] * 6, source, confidence, ["simulated"] * 6, SPLIT)
        labels = [column[rows][::-1] for column in columns]  # in another order
        relabel.write_table(table(LABELS, *labels), "labels", name)
        known, true = IDS[rows], TRUE[rows]
        if number == 0 and test:
            texts = ["t"] * 4
            load.write_table(table(EXAMPLES, TEST_IDS, texts, TEST_GIVEN, ["test"] * 4), "test", name)
            known, true = known + TEST_IDS, true + TEST_TRUE
        if truth:
            load.write_table(table(TRUTH, known, true), "truth", name)
    if asked:
        rows = [dict.fromkeys(ANNOTATIONS.names) | row | {"unit_id": row["example_id"]} for row in (
            {"example_id": 60, "rank": 0, "given_label": 0, "suggested_label": 1, "chosen_label": 1, "confidence": 0.9,
             "probability": 0.8, "log_odds": 2.0, "decision": "changed", "candidates": [0, 1], "raw": " spam", "model": "m"},
            {"example_id": 50, "rank": 1, "given_label": 1, "suggested_label": 0, "chosen_label": 0, "confidence": 0.7,
             "probability": 0.7, "log_odds": 0.0, "decision": "changed", "candidates": [0, 1], "raw": " ham", "model": "m"},
            {"example_id": 40, "rank": 2, "given_label": 0, "suggested_label": 1, "decision": "error",
             "probability": 0.4, "log_odds": 1.8, "error": "timeout: 60 s", "candidates": [0, 1]},
        )]  # fmt: skip
        relabel.write_table(
            pa.Table.from_pylist(rows, schema=ANNOTATIONS), "annotations", "part-00000.parquet"
        )
    load.write_table(table(REJECTED, ["a.csv"], [4], ["empty text"], [""]), "rejected", "part-00000.parquet")
    said = {
        "load": {"test": 4 * test, "rejected": {"empty text": 1}, "warnings": []},
        "predict": {},
        "detect": {"estimated_noise_rate": 0.25},
        "relabel": {"annotator": {"name": "simulated", "model": "m"}, "audit": {"expected_wrong": None, "proposed": 0}, "judged": [JUDGED if asked else UNASKED], "cost": 0.5, "tokens": {"prompt": 30, "answer": 3},
                    "asked": 3 * asked, "from_ledger": 1, "go_on": None},
        "train": {"method": "noiseal", "epochs": 3, "best_epoch": 2,
                  "annotator": {"asked": 2, "from_ledger": 4, "tokens": {"prompt": 8, "answer": 2}, "cost": 0.25}},
    }  # fmt: skip
    for verb, metrics in said.items():
        manifest = {"verb": verb, "fingerprint": "f", "seconds": 2.0, "rayclean": "0", "metrics": metrics}
        run.sub(verb).write_json(manifest, "manifest.json")
    return config, run


@pytest.fixture
def labelled(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Stands for the networks; holds the labels that they were to be trained on."""
    seen: dict = {}

    def train_and_test(engines, config, run, out, task, labels):
        for kind, (folder, column) in labels.items():
            shards = [] if folder is None else Run(folder).shards()
            rows = [row for shard in shards for row in Run(folder).read_table(shard).to_pylist()]
            seen[kind] = {row["example_id"]: row[column] for row in rows}
        ids = np.array(TEST_IDS[::-1])
        right = {100: 0, 101: 0, 102: 1, 103: 2}
        answers = {
            "trained": [right[i] for i in ids],
            "last": [right[i] if i != 100 else 1 for i in ids],
            "given": [0, 0, 0, 0],
            "cleaned": [right[i] for i in ids],
        }
        return {kind: dict(zip(ids, answer, strict=True)) for kind, answer in answers.items()}

    monkeypatch.setattr(evaluate, "train_and_test", train_and_test)
    return seen


def run_it(config: Config, run: Run) -> dict:
    out = run.begin("evaluate", "p")
    metrics = evaluate.run(config, run, out)
    assert json.loads(out.read_text("metrics.json")) == metrics
    assert not out.exists("compare")
    return metrics


def test_figures_by_hand(tmp_path: Path, labelled: dict) -> None:
    # known: 60 wrong -> right, 10 right, 50 right -> wrong, 20 right, 40 wrong and stays
    metrics = run_it(*write(tmp_path))
    assert metrics["noise"]["given"] == 2 / 5
    assert metrics["noise"]["final"] == 2 / 5
    assert metrics["harm"] == 1 / 3
    assert metrics["repaired"] == 1 / 2
    assert metrics["detection"]["precision_at_budget"] == 2 / 3
    assert metrics["annotator"]["accuracy"] == 1 / 2
    assert metrics["annotator"]["errors"] == {"timeout": 1}
    assert metrics["counts"]["asked"] == 3
    assert {name: metrics["counts"][name] for name in ("kept", "referred", "abstained", "error", "unasked")} == {
        "kept": 0, "referred": 0, "abstained": 0, "error": 1, "unasked": 0,
    }  # fmt: skip
    assert metrics["cost"] == {
        "amount": 0.75, "currency": "USD", "prompt_tokens": 38, "answer_tokens": 5, "queries": 5, "from_ledger": 5,
    }  # fmt: skip
    assert "0.75 USD" in next(tmp_path.rglob("report.html")).read_text()
    assert metrics["seconds"]["train"] == 2.0


def test_the_model_alone_by_hand(tmp_path: Path, labelled: dict) -> None:
    """Log-odds of 2 and 1.8 for 60 and 40 are sure enough, those of 0 for 50 are not: two changes are left to a person."""
    metrics = run_it(*write(tmp_path))
    assert metrics["judged"] == [JUDGED]
    assert metrics["model_alone"] == {"changed": 0, "noise": 2 / 5, "repaired": 0, "harm": 0}
    assert metrics["notes"][0].startswith(
        "simulated was right on 19 of 20 control questions: it counts as right with 83.0 %"
    )
    assert "<h3>Model alone</h3>" in next(tmp_path.rglob("report.html")).read_text()


def test_the_model_alone_may_do_harm_and_is_as_sure_as_relabel_accept(tmp_path: Path, labelled: dict) -> None:
    config, run = write(tmp_path)
    path = ("relabel", "annotations", "part-00000.parquet")
    rows = [
        row | {"log_odds": {60: 1.8, 50: 3.0, 40: 2.5}[row["unit_id"]]}
        for row in run.read_table(*path).to_pylist()
    ]
    run.write_table(pa.Table.from_pylist(rows, schema=ANNOTATIONS), *path)
    # sigmoid(1.8) = .86 is enough; 60 and 40 are wrong, 50 was right
    assert run_it(config, run)["model_alone"] == {
        "changed": 3,
        "noise": 1 / 5,
        "repaired": 2 / 2,
        "harm": 1 / 3,
    }
    stricter = config.model_copy(update={"relabel": config.relabel.model_copy(update={"accept": 0.9})})
    run.remove(".partial")
    assert run_it(stricter, run)["model_alone"] == {
        "changed": 0,
        "noise": 2 / 5,
        "repaired": 0,
        "harm": 0,
    }  # sigmoid(2.5) = .92 and sigmoid(3) = .95 would be, but are no three


def test_nobody_was_asked(tmp_path: Path, labelled: dict) -> None:
    """The posterior alone: what it does not change is referred, and no figure is of an annotator."""
    config, run = write(tmp_path)
    path, decisions = (
        ("relabel", "annotations", "part-00000.parquet"),
        {60: "changed", 50: "referred", 40: "referred"},
    )
    rows = run.read_table(*path).to_pylist()
    for row in rows:
        row |= dict.fromkeys(("chosen_label", "confidence", "raw", "model", "error"))
        row["decision"] = decisions[row["unit_id"]]
    run.write_table(pa.Table.from_pylist(rows, schema=ANNOTATIONS), *path)
    manifest = run.read_json("relabel", "manifest.json")
    manifest["metrics"] |= {
        "judged": [UNASKED | {"name": "posterior", "decided_by": "posterior_alone", "scale": [0.0, 1.0]}],
        "annotator": {"name": "posterior", "model": None}, "asked": 0, "from_ledger": 0,
    }  # fmt: skip
    run.write_json(manifest, "relabel", "manifest.json")
    metrics = run_it(config, run)
    assert metrics["notes"][0].startswith(
        "Nobody whose judgement was measured was asked: the model alone decided"
    )
    assert (metrics["counts"]["asked"], metrics["counts"]["referred"], metrics["counts"]["unasked"]) == (
        0,
        2,
        0,
    )
    assert metrics["annotator"]["outcomes"]["referred"] == 2
    assert metrics["annotator"]["accuracy"] is metrics["annotator"]["accuracy_all"] is None
    assert metrics["annotator"]["ece"] is None
    html = next(tmp_path.rglob("report.html")).read_text()
    assert "<h3>Model alone</h3>" not in html
    assert "2 are referred to a person" in html
    assert "Asked: posterior" not in html
    assert "2 labels changed, 0 suspects asked" in html
    assert 'data-chart="confidence"' not in html


def test_what_runs_are_compared_by_counts_control_questions_and_nobody_who_was_not_asked(
    tmp_path: Path,
) -> None:
    config, run = write(tmp_path)
    manifest = run.read_json("relabel", "manifest.json")
    metrics = manifest["metrics"] | {
        "suspects": 3,
        "unasked": 0,
        "changed": 2,
        "worth": {"tokens": 33, "cost": 0.5},
    }
    run.write_json(
        run.read_json("detect", "manifest.json") | {"metrics": {"suspects": 3, "estimated_noise_rate": 0.25}},
        "detect", "manifest.json",
    )  # fmt: skip
    for judged, answered, errors, expected in (
        ([JUDGED], 2, {"timeout": 1}, 3 + 20),
        ([JUDGED, JUDGED], 3, {}, 3 + 40),
        ([UNASKED], 0, {}, 0),
    ):
        said = metrics | {"judged": judged, "answered": answered, "errors": errors}
        run.write_json(manifest | {"metrics": said}, "relabel", "manifest.json")
        found = run_figures(config, run, ("detect", "relabel"))
        assert (found["asked"], found["suspects"], found["changed"]) == (expected, 3, 2)


def test_a_method_that_asks_nobody_pays_nothing(tmp_path: Path, labelled: dict) -> None:
    config, run = write(tmp_path)
    manifest = run.read_json("train", "manifest.json")
    del manifest["metrics"]["annotator"]
    run.write_json(manifest, "train", "manifest.json")
    assert run_it(config, run)["cost"]["amount"] == 0.5


def test_accuracy_is_measured_on_the_truth_where_it_is_known(tmp_path: Path, labelled: dict) -> None:
    metrics = run_it(*write(tmp_path))
    assert metrics["accuracy"]["cleaned"] == 1.0
    assert metrics["accuracy"]["given"] == 2 / 4  # says 0 of all; expected 0, 0, 1 and, given, 2
    assert metrics["accuracy"]["last"] == 3 / 4
    assert "the same after its last epoch" in next(tmp_path.rglob("report.html")).read_text()
    assert metrics["accuracy"]["true"] is None
    assert metrics["measured_on"]["accuracy"].startswith(
        "4 test examples, 3 on their true labels and 1 on their given"
    )
    assert labelled["true"] == {60: 1, 10: 0, 50: 1, 20: 1, 40: 1, 30: None}
    assert labelled["cleaned"] == dict(zip(IDS, FINAL, strict=True))
    assert labelled["given"] == {}


def test_without_truth_everything_that_needs_it_is_null(tmp_path: Path, labelled: dict) -> None:
    config, run = write(tmp_path, truth=False)
    metrics = run_it(config, run)
    assert metrics["noise"]["given"] is metrics["harm"] is metrics["detection"]["roc_auc"] is None
    assert metrics["annotator"]["accuracy"] is None
    assert metrics["noise"]["estimated"] == 0.25
    assert metrics["model_alone"] == {"changed": 0, "noise": None, "repaired": None, "harm": None}
    assert "true" not in labelled
    assert metrics["counts"]["tested"] == 3  # one test example has neither label
    assert "wrong labels among them lower every figure" in metrics["measured_on"]["accuracy"]
    assert any("invisible to self-prediction" in note for note in metrics["notes"])


def test_without_test_split_accuracies_are_null_with_a_reason(tmp_path: Path, labelled: dict) -> None:
    metrics = run_it(*write(tmp_path, test=False))
    assert set(metrics["accuracy"].values()) == {None}
    assert "no test examples" in metrics["measured_on"]["accuracy"]
    assert labelled == {}


def test_without_suspects(tmp_path: Path, labelled: dict) -> None:
    config, run = write(tmp_path, asked=False)
    metrics = run_it(config, run)
    assert metrics["counts"]["suspects"] == metrics["model_alone"]["changed"] == 0
    assert metrics["notes"][0].endswith("was left nothing to decide.")
    assert metrics["noise"]["final"] == metrics["noise"]["given"] == 2 / 5
    assert metrics["detection"]["precision_at_budget"] is None
    assert metrics["annotator"]["accuracy"] is None


def test_shards_change_nothing(tmp_path: Path, labelled: dict) -> None:
    one, other = (run_it(*write(tmp_path / str(cut), cut=cut)) for cut in (3, 5))
    assert {k: v for k, v in one.items() if k != "seconds"} == {
        k: v for k, v in other.items() if k != "seconds"
    }


def test_report_shows_changes_with_texts_and_harm(tmp_path: Path, labelled: dict) -> None:
    config, run = write(tmp_path)
    run_it(config, run)
    html = run.sub(".partial", "evaluate-p").read_text("report.html")
    assert "&lt;script&gt;60&lt;/script&gt; text" in html
    assert "<script>60" not in html
    assert html.count("&lt;script&gt;50") == 2  # among the changes, and among those that did harm
    assert html.index("&lt;script&gt;60") < html.index("&lt;script&gt;50")
    assert "spam &lt;b&gt;" in html
    assert "&lt;script&gt;40" not in html


def test_compare_off_writes_no_true_labels(tmp_path: Path, labelled: dict) -> None:
    config, run = write(tmp_path)
    config = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"compare": False})})
    run_it(config, run)
    assert "true" not in labelled


def test_labels_of_other_examples_are_refused(tmp_path: Path, labelled: dict) -> None:
    config, run = write(tmp_path)
    shard = run.read_table("relabel", "labels", "part-00000.parquet")
    run.write_table(shard.slice(1), "relabel", "labels", "part-00000.parquet")
    with pytest.raises(ArtifactError, match=r"labels/part-00000\.parquet holds 2 rows"):
        run_it(config, run)


def test_texts_of_the_training_data_are_left_out_of_the_headline(tmp_path: Path, labelled: dict) -> None:
    """Test example 100 is answered right by `trained` and wrong by `last`; its text was trained on."""
    config, run = write(tmp_path)
    shared = pa.table({"example_id": pa.array([100, 60], pa.int64())})  # of a development file, too
    run.sub("load").write_table(shared, "shared", "part-00000.parquet")
    metrics = run_it(config, run)
    assert metrics["counts"]["tested"] == 3
    assert metrics["counts"]["test_shared"] == 1
    # labels 0, 0, 1, 2 of examples 100 to 103; `last` says 1, 0, 1, 2, and `given` always 0
    assert metrics["accuracy"]["last"] == 1.0
    assert metrics["accuracy_all"]["last"] == 0.75
    assert metrics["accuracy"]["given"] == pytest.approx(1 / 3)
    assert metrics["accuracy_all"]["given"] == 0.5
    assert (
        "3 test examples whose texts are not in the training data (1 others are)"
        in metrics["measured_on"]["accuracy"]
    )
    report = (Path(run.path(".partial", "evaluate-p", "report.html"))).read_text()
    assert "with texts of the training data" in report
    assert "with the 1 whose text it was trained on" in report


def test_a_test_set_of_nothing_but_training_texts_has_no_headline(tmp_path: Path, labelled: dict) -> None:
    config, run = write(tmp_path)
    shared = pa.table({"example_id": pa.array(TEST_IDS, pa.int64())})
    run.sub("load").write_table(shared, "shared", "part-00000.parquet")
    metrics = run_it(config, run)
    assert metrics["accuracy"]["trained"] is None
    assert metrics["accuracy_all"]["trained"] == 1.0
    assert "the texts of all 4 test examples are in the training data" in metrics["measured_on"]["accuracy"]
    assert metrics["accuracy_difference"] is None


def test_alarms_open_the_report_and_the_table(tmp_path: Path, labelled: dict) -> None:
    config, run = write(tmp_path)
    manifest = run.read_json("detect", "manifest.json")
    manifest["metrics"]["alarms"] = ["96% of the labels <b>would</b> be wrong"]
    run.write_json(manifest, "detect", "manifest.json")
    metrics = run_it(config, run)
    assert metrics["alarms"] == ["detect: 96% of the labels <b>would</b> be wrong"]
    page = Path(run.path(".partial", "evaluate-p", "report.html")).read_text()
    assert "detect: 96% of the labels &lt;b&gt;would&lt;/b&gt; be wrong" in page
    assert page.index("figures that can hardly be true") < page.index('aria-label="Verdict"')
    console = Console(file=io.StringIO(), width=200)
    console.print(run_summary(metrics, config.model_dump(mode="json")))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert 0 < shown.index("Look first") < shown.index("Not audited")
