import io
import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs
from rich.console import Console

from rayclean.evaluation import metrics as figures
from rayclean.evaluation import plots, report, training_section
from rayclean.evaluation.alarms import alarms
from rayclean.evaluation.class_figures import class_figures
from rayclean.evaluation.counts import RunCounts
from rayclean.evaluation.headlines import headlines
from rayclean.evaluation.notes import measured_on, notes
from rayclean.evaluation.training_history import TrainingHistory
from rayclean.methods.noiseal_measures import noiseal_measures
from rayclean.origins import Origin
from tests.evaluation.test_counts import asked, columns, facts

EVIL = "<script>alert('label')</script>"
TEXT = "<img src=x onerror=alert('text')> </script><!-- " + "long " * 200


def believed(asked: int = 40, right: int = 36, decided_by: str | None = "open") -> dict:
    """What `relabel` says of an annotator."""
    return {
        "name": EVIL, "controls": {"asked": asked, "right": right}, "accuracy": 0.82, "above_chance": decided_by != "posterior_alone",
        "decided_by": decided_by, "scale": None if decided_by is None else [-1.0, 0.5], "capped": 0, "unneeded": 0, "beyond": None,
    }  # fmt: skip


def measured(
    counts: RunCounts, known: bool = True, judged: tuple[dict, ...] = (believed(),), audit: dict | None = None
) -> dict:
    """What the verb adds to the figures."""
    tested = {
        "examples": 0,
        "shared": 0,
        "true": 0,
        "reason": "there are no test examples",
        "trained_on_true": 0,
    }
    given = (
        facts(counts)
        if known
        else {"counts": counts, "suspects": counts.suspects, "estimated_noise_rate": 0.2}
    )
    m = figures.compute(given)
    m["noise"]["injected"] = None
    m["annotator"] |= {"name": "served", "model": EVIL}
    m["confusion"] = {"given_final": figures.confusions(counts.given_final, [EVIL, "b"]), "given_true": None}
    for name in ("accuracy", "accuracy_all", "f1_macro", "f1_weighted"):
        m[name] = dict.fromkeys(report.NETWORKS)
    m["cost"] = {
        "amount": None,
        "currency": None,
        "prompt_tokens": 10,
        "answer_tokens": 1,
        "queries": 4,
        "from_ledger": 0,
    }
    names = ("examples", "changed", "suspects", "known", "wrong_given", "wrong_final", "harmed", "repaired")
    m["counts"] = {name: counts.total(name) for name in names} | {
        "classes": 2, "train": 6, "dev": 2, "test": 0, "tested": 0, "test_shared": 0, "rejected": 1, "asked": len(counts.suspects.rank),
        "error": 0, "kept": 0, "referred": 1200, "abstained": 0, "unasked": 0, "reverted": 1,
    }  # fmt: skip
    m["judged"] = list(judged)
    rates = (
        {"noise": 0.375, "repaired": 0.25, "harm": 0.0}
        if known
        else dict.fromkeys(("noise", "repaired", "harm"))
    )
    m["model_alone"] = {"changed": 1234, **rates}
    m["audit"] = audit
    m["certificate"] = m["accuracy_difference"] = None
    m["expected_wrong"] = {"value": 3.2, "low": 0.1, "high": 6.6}
    m["classes"] = class_figures(counts, [EVIL, "b"])
    m["measured_on"] = measured_on(counts, tested)
    m["units"] = "examples"
    m["seconds"] = {"load": 1.0, "evaluate": 2.0, "total": 3.0}
    m["notes"] = notes(m, VERB_METRICS, tested)
    m["alarms"] = alarms(m["classes"], VERB_METRICS)
    return m


VERB_METRICS = {
    "load": {"warnings": [EVIL], "rejected": {EVIL: 1}},
    "detect": {},
    "relabel": {},
    "train": {},
    "predict": {},
}


CONFIG = {
    "output": "runs",
    "name": "news",
    "method": {"name": "cross_entropy"},
    "audit": {"suspects": 50, "random": 50},
    "relabel": {"certify": None},
}
SHOWN = noiseal_measures(("strong", "weak"))


def trained(epochs: int = 4) -> TrainingHistory:
    """NoiseAL's columns: the first epoch has no subsets yet."""
    row = dict.fromkeys(
        ("loss", "dev_accuracy", "asked", "from_ledger", "clean", "hard", "purified", "answered",
         *(f"{name}_wrong" for name in (
             "clean", "hard", "purified", "purified_after", "answered", "answers")))
    )  # fmt: skip
    split = {"clean": 5, "hard": 1, "purified": 1234, "clean_wrong": 0.125, "purified_wrong": 0.5,
             "purified_after_wrong": 0.375, "asked": 7, "from_ledger": 3, "answered": 4, "answered_wrong": 0.75,
             "answers_wrong": 0.25}  # fmt: skip
    rows = [row | {"epoch": i, "loss": 1 / i} | (split if i > 1 else {}) for i in range(1, epochs + 1)]
    counts = np.zeros((epochs, 3, plots.BINS), np.int64)
    counts[:, 1, -1], counts[:, 2, 0] = 6, np.arange(1, epochs + 1)
    return TrainingHistory(rows, {"co_prediction": counts}, SHOWN)


def page(
    counts: RunCounts,
    known: bool = True,
    labels: tuple[str, ...] = (EVIL, "b"),
    dynamics: TrainingHistory | None = None,
    judged: tuple[dict, ...] = (believed(),),
) -> str:
    change = {
        "text": TEXT, "quality": 0.1, "reason": EVIL, "raw": EVIL, "model": EVIL, "example_id": 7, "origin": Origin(EVIL, f"{EVIL}.csv", 3), "given": EVIL,
        "final": "b", "true": "b", "confidence": 0.9,
    }  # fmt: skip
    denied = {
        "text": TEXT, "given": EVIL, "chosen": f"{EVIL} b", "quality": 0.12, "detected": 0.97, "annotator": EVIL, "example_id": 8,
        "origin": None,
    }  # fmt: skip
    bad = {"source": EVIL, "row": 1, "reason": EVIL, "value": EVIL}
    config = CONFIG | {"name": EVIL}
    verb_metrics = VERB_METRICS | {"train": {"method": EVIL, "best_epoch": 3}}
    material = report.ReportInputs(
        EVIL, config, list(labels), counts, verb_metrics, [change], [change], [denied], [bad], dynamics
    )
    return report.render_report(measured(counts, known, judged), material)


@pytest.fixture(scope="module")
def counts() -> RunCounts:
    counts = RunCounts(asked(), ["d"])
    counts.add(columns())
    return counts


def without_plotly(html: str) -> str:
    return html.replace(get_plotlyjs(), "")


def test_texts_of_users_are_escaped_everywhere(counts: RunCounts) -> None:
    html = without_plotly(page(counts))
    assert "&lt;script&gt;alert" in html
    assert "<script>alert" not in html
    assert "<img" not in html
    assert 'key <code dir="auto">&lt;script&gt;' in html
    assert ".csv:3</code>" in html
    scripts = re.findall(r"<script\b[^>]*>", html)
    assert len(scripts) == 3
    assert all("nonce=" in script for script in scripts)


def test_page_asks_no_network(counts: RunCounts) -> None:
    html = page(counts)
    assert html.count(get_plotlyjs()) == 1
    assert not re.findall(r"""(?:src|href)\s*=\s*["']""", without_plotly(html))
    assert "default-src 'none'" in html


def test_long_texts_fold_and_keep_their_whole(counts: RunCounts) -> None:
    html = without_plotly(page(counts))
    assert html.count('<details class="text"') == 2
    assert html.count("long " * 200) == 2


def test_page_without_truth_and_without_suspects(counts: RunCounts) -> None:
    nobody = RunCounts(type(counts.suspects).from_tables([]), ["d"])
    nobody.add(columns() | {"truth": np.full(8, -1), "suspect": np.zeros(8, bool)})
    html = without_plotly(page(nobody, known=False))
    assert "Systematic noise is invisible to self-prediction" in html
    assert "estimates that 20.0 % of the labels are wrong; 0 % were doubted" in html
    assert "Annotator</h2>" not in html
    assert json.loads(re.search(r'id="charts">(.*?)</script>', html, re.S)[1]).keys() == {"quality"}


def test_a_thousand_classes_are_listed_not_drawn(counts: RunCounts) -> None:
    html = without_plotly(page(counts, labels=tuple(f"class {i}" for i in range(1000))))
    assert 'class="heat"' not in html
    assert "most frequent" in html
    assert len(html) < 100_000


def test_training_shows_first_middle_and_last_epoch(counts: RunCounts) -> None:
    assert "Training</h2>" not in without_plotly(page(counts))
    html = without_plotly(page(counts, dynamics=trained()))
    assert "Training</h2>" in html
    assert "<script>alert" not in html
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', html, re.S)[1])
    drawn = [name for name in charts if name.startswith("training-")]
    assert drawn == ["training-co_prediction-1", "training-co_prediction-2", "training-co_prediction-4"]
    assert all(html.count(f'data-chart="{name}"') == 1 for name in drawn)
    assert [sum(trace["y"]) for trace in charts["training-co_prediction-4"]["data"]] == [6, 4]
    for name in drawn:
        go.Figure(charts[name])
    assert "label is wrong</span>" in html
    assert "truth unknown</span>" not in html


def test_training_has_a_row_per_epoch_and_only_columns_that_are_known(counts: RunCounts) -> None:
    html = without_plotly(page(counts, dynamics=trained()))
    table = re.search(r'<table class="epochs">(.*?)</table>', html, re.S)[1]
    head = re.findall(r"<th[^>]*>([^<]*)</th>", table.partition("<tbody>")[0])
    assert head == ["epoch", "loss", "clean", "hard", "purified", "asked", "answers so far"]
    rows = re.findall(r"<tr>(.*?)</tr>", table.partition("<tbody>")[2], re.S)
    assert len(rows) == 4
    assert rows[0].count("–") == 5  # not split yet
    for text in ("1,234", "12.5 % wrong", "+ 3 reused", "75.0 % → 25.0 % wrong", "50.0 % → 37.5 % wrong"):
        assert text in rows[1]
    assert ["best" in row for row in rows] == [False, False, True, False]


def test_training_without_known_columns_is_a_table_alone(counts: RunCounts) -> None:
    html = without_plotly(page(counts, dynamics=TrainingHistory(trained().epochs, {}, SHOWN)))
    assert "Training</h2>" in html
    assert "How the examples spread" not in html
    assert 'data-chart="training-' not in html


def test_long_trainings_are_thinned_out_and_keep_the_best_epoch(counts: RunCounts) -> None:
    html = without_plotly(page(counts, dynamics=trained(300)))
    table = re.search(r'<table class="epochs">(.*?)</table>', html, re.S)[1]
    epochs = [int(number) for number in re.findall(r"<tr><th>(\d+)", table)]
    assert epochs[0] == 1
    assert epochs[-1] == 300
    assert 3 in epochs
    assert len(epochs) == training_section.MAX_EPOCHS + 1
    assert "279 epochs in between are left out" in html


def test_systematic_noise_is_named() -> None:
    counts = RunCounts(asked(), ["d"])
    counts.add(columns() | {"quality": 1 - columns()["quality"]})
    assert "The model repeats the errors: systematic noise" in page(counts)


def test_charts_are_valid_plotly_and_hold_no_markup(counts: RunCounts) -> None:
    charts = report._charts(measured(counts), counts)
    assert set(charts) == {"quality", "roc", "precision_recall", "confidence", "reliability"}
    for chart in charts.values():
        go.Figure(chart)  # raises on a wrong key
        json.dumps(chart, allow_nan=False)
    assert plots.plain_values("<b>x</b>") == "&lt;b&gt;x&lt;/b&gt;"


def test_quality_histogram_counts_all() -> None:
    histogram = np.zeros((3, plots.BINS), np.int64)
    histogram[1, 0], histogram[2, -1] = 3, 4
    chart = plots.quality_histogram(histogram, cut=-np.inf)
    assert [(trace["name"], sum(trace["y"])) for trace in chart["data"]] == [
        ("label is right", 3),
        ("label is wrong", 4),
    ]
    assert "shapes" not in chart["layout"]


def test_terminal_table_shows_the_headlines_and_no_markup(counts: RunCounts) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(report.run_summary(measured(counts), CONFIG))
    text = console.export_text()
    assert "42.9 % → 28.6 %" in text
    assert "1 of 4 right labels made wrong" in text
    assert re.search(
        r"Model alone +1,234 +labels it would change if nobody were asked; 37.5 % of the labels", text
    )
    assert "1,200 are referred to a person" in text
    assert "counts as right with 82.0 %" in " ".join(text.split())
    assert EVIL in text


def test_the_terminal_shows_the_whole_command_in_eighty_columns(counts: RunCounts) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    run = "a-folder-of-a-name-that-is-longer-than-one-line/" * 2 + "news"
    output, _, name = run.rpartition("/")
    console.print(report.run_summary(measured(counts), CONFIG | {"output": output, "name": name}))
    assert f"(raycleanaudit{run})" in re.sub(r"\s", "", console.export_text())


BELIEVED = {
    "open": r"^.* was right on 36 of 40 control questions: it counts as right with 82.0 %, and labels were decided by model and",
    "closed": r"was right on 36 of 40 control questions, but its answers do not show that more suggestions are right than wrong",
    "posterior_alone": r"was right on 36 of 40 control questions, which is not surely better than chance: its answers count for",
}


@pytest.mark.parametrize("decided_by", list(BELIEVED))
def test_notes_say_first_how_far_an_annotator_was_believed(counts: RunCounts, decided_by: str) -> None:
    judged = believed(decided_by=decided_by)
    found = measured(counts, judged=(judged,))["notes"]
    assert re.search(BELIEVED[decided_by], found[0])
    assert found[0].startswith(judged["name"])
    html = without_plotly(page(counts, judged=(judged,)))
    assert "control questions" in html
    assert "<script>alert" not in html


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"value": 0.244, "low": 0.08, "high": 0.37},
            "24.4 % of all labels that were neither doubted nor control questions are wrong (8.0 % to 37.0 %)",
        ),
        (None, "it is too often wrong on control questions to say what this means"),
    ],
)
def test_notes_say_what_an_annotator_sees_beyond_the_suspects(
    counts: RunCounts, wrong: dict | None, said: str
) -> None:
    judged = believed() | {"beyond": {"asked": 200, "denied": 60, "wrong": wrong}}
    note = measured(counts, judged=(judged,))["notes"][1]
    assert note.startswith(f"LLM disagreement: beyond the suspects, {EVIL} denies 60 of 200 labels")
    assert said in note


def test_what_an_annotator_denies_beyond_the_suspects_is_a_section(counts: RunCounts) -> None:
    assert "LLM disagreement" not in without_plotly(page(counts))
    wrong = {"value": 0.244, "low": 0.08, "high": 0.37}
    judged = believed() | {"beyond": {"asked": 200, "denied": 60, "wrong": wrong}}
    html = without_plotly(page(counts, judged=(judged,)))
    section = re.search(r"<h2>LLM disagreement.*?</section>", html, re.S)[0]
    assert "about 200 labels that no detector doubted" in section
    assert "denies 60 of them" in section
    assert (
        "24.4 % of all labels that were neither doubted nor control questions are wrong (8.0 % to 37.0 %)"
        in section
    )
    assert "quality by detection 0.97" in section
    assert "<script>alert" not in html
    judged["beyond"]["wrong"] = None
    assert "too often wrong on control questions" in without_plotly(page(counts, judged=(judged,)))


def test_notes_of_each_annotator_stand_in_their_order(counts: RunCounts) -> None:
    first, second = believed(decided_by="closed"), believed(1000, 900) | {"name": "openai"}
    found = measured(counts, judged=(first, second))["notes"]
    assert found[0].startswith(EVIL)
    assert found[1].startswith(
        "openai was right on 900 of 1,000 control questions: it counts as right with 82.0 %"
    )


@pytest.mark.parametrize("decided_by", ["posterior_alone", None])
def test_without_control_questions_nobody_was_measured(counts: RunCounts, decided_by: str | None) -> None:
    judged = (believed(0, 0, decided_by),)
    found = measured(counts, judged=judged)
    expected = "Nobody whose judgement was measured was asked" if decided_by else "was left nothing to decide"
    assert expected in found["notes"][0]
    assert not any("control questions" in note for note in found["notes"])
    # the model alone is what was done, so there is nothing to compare with
    assert "Model alone" not in {card.title for card in headlines(found)}
    assert "Model alone" not in without_plotly(page(counts, judged=judged))


def test_scores_that_only_rank_are_told(counts: RunCounts) -> None:
    unmeasured = believed(0, 0, "posterior_alone") | {"alone": False}
    guessing = believed(40, 20, "posterior_alone") | {"alone": False}
    for judged in (unmeasured, guessing):
        found = measured(counts, judged=(judged,))["notes"][0]
        assert "are no probabilities by which labels may change: none was" in found
        assert "the model alone decided" not in found


def test_the_model_alone_is_what_an_annotator_has_to_beat(counts: RunCounts) -> None:
    cards = {card.title: card for card in headlines(measured(counts))}
    assert list(cards).index("Model alone") < list(cards).index("Labels changed")
    assert cards["Model alone"].value == "1,234"
    assert "if nobody were asked; 37.5 % of the labels would be wrong" in cards["Model alone"].means
    assert "1,200 are referred to a person" in cards["Labels changed"].means
    html = without_plotly(page(counts))
    assert "<h3>Model alone</h3>" in html
    unknown = {card.title: card for card in headlines(measured(counts, known=False))}["Model alone"]
    assert unknown.value == "1,234"
    assert "would be wrong" not in unknown.means + unknown.brief
