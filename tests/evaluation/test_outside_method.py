"""What a method of another package declares is in the table, the charts, `metrics.json` and the terminal."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

import rayclean
from rayclean.errors import ConfigError
from rayclean.run import Run
from rayclean.verbs import train
from tests import toy

DEV = ("dev accuracy, given labels", "dev accuracy, final labels")


def config(folder: Path, method: str) -> rayclean.Config:
    data = toy.write(folder / "data", rows=120, noise=0.2)
    values = toy.config(data, folder / "runs") | {
        "method": {"name": f"tests.evaluation.outside:{method}"}, "train": {"epochs": 3}, "evaluate": {"compare": False},
    }  # fmt: skip
    return rayclean.parse_config(values, ["cluster.ray=false"])


def test_an_outside_method_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = rayclean.clean(config(tmp_path, "Halves"))
    folder = Path(run.url())
    declared = json.loads((folder / "train" / "measures.json").read_text())
    assert declared["subsets"] == {"column": "side", "values": {"well_believed": 0, "doubted": 1}}

    # -- terminal: sizes from the second epoch on, the figure from the first -----------------------------
    printed = " ".join("".join(capsys.readouterr()).split())  # the terminal breaks long lines
    notes = re.findall(r"train: (epoch \d/3 .*?)(?= train:)", printed)
    assert len(notes) == 3
    sizes = [re.search(r"well believed (\d+), doubted (\d+)", note) for note in notes]
    assert sizes[0] is None
    assert all(re.search(r" · mean belief \d+\.\d %", note) for note in notes)
    assert not any("hidden" in note for note in notes)

    # -- metrics.json: sizes and noise as counted from the columns and the truth -------------------------
    rows = json.loads((folder / "evaluate" / "metrics.json").read_text())["training"]["epochs"]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert (rows[0]["well_believed"], rows[0]["doubted_wrong"]) == (None, None)
    last, truth = (
        pd.concat(pd.read_parquet(path) for path in folder.joinpath(*part).glob("*.parquet"))
        for part in (("train", "epochs", "epoch-003"), ("load", "truth"))
    )
    joined = last.merge(truth, on="example_id")
    for name, value in declared["subsets"]["values"].items():
        members = joined[joined.side == value]
        assert rows[2][name] == len(members) > 0
        assert rows[2][f"{name}_wrong"] == (members.given_label != members.true_label).mean()
    assert rows[2]["mean_belief"] == pytest.approx(joined.belief.mean(), rel=1e-5)
    assert rows[2]["hidden"] == 1.0
    assert [int(size) for size in sizes[2].groups()] == [rows[2]["well_believed"], rows[2]["doubted"]]

    # -- report: table and charts, escaped ---------------------------------------------------------------
    html = (folder / "evaluate" / "report.html").read_text()
    head = re.search(r'<table class="epochs">(.*?)<tbody>', html, re.S)[1]
    titles = re.findall(r"<th[^>]*>([^<]*)</th>", head)
    assert titles == ["epoch", "loss", *DEV, "well believed", "doubted", "mean belief"]
    assert "Belief &lt;b&gt;" in html
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', html, re.S)[1])
    assert sum(sum(trace["y"]) for trace in charts["training-belief-3"]["data"]) == len(last)
    assert charts["training-belief-3"]["layout"]["xaxis"]["title"]["text"] == "probability &lt;i&gt;"


def test_a_column_that_is_not_kept_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"names the columns belief, side, which state\(\).*keeps loss"):
        train.validate(config(tmp_path, "Careless"), Run(str(tmp_path / "runs")))
