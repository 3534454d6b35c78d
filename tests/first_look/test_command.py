"""`rayclean init` at the command line."""

from functools import partial
from pathlib import Path

import pytest

from rayclean.config import load_config
from rayclean.first_look.page_checks import write_page
from rayclean.first_look.proposed_config import config_file_name
from tests.command import Ended, run_command
from tests.first_look.tables import tickets, write_csv


@pytest.fixture
def run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> "partial[Ended]":
    monkeypatch.chdir(tmp_path)
    return partial(run_command, capsys=capsys, monkeypatch=monkeypatch)


def test_a_table_becomes_a_config_that_loads(run: "partial[Ended]", tmp_path: Path) -> None:
    write_csv(tmp_path / "tickets.csv", tickets())
    done = run("init", "tickets.csv")
    assert done.code == 0, done.stderr
    assert "3 classes" in done.stdout
    assert "then: rayclean clean tickets.toml" in done.stdout
    assert load_config(tmp_path / "tickets.toml").dataset.label == "category"
    assert run("config", "tickets.toml").code == 0
    loaded = run("load", "tickets.toml", "cluster.ray=false")
    assert loaded.code == 0, loaded.stderr
    assert "examples: 120" in loaded.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "tickets.csv", "tickets.toml"]


def test_a_file_that_is_there_stays(run: "partial[Ended]", tmp_path: Path) -> None:
    write_csv(tmp_path / "tickets.csv", tickets())
    (tmp_path / "mine.toml").write_text("# mine")
    refused = run("init", "tickets.csv", "--to", "mine.toml")
    assert refused.code == 2
    assert "mine.toml exists already" in refused.stderr
    assert (tmp_path / "mine.toml").read_text() == "# mine"
    assert run("init", "tickets.csv", "--to", "mine.toml", "--force").code == 0
    assert load_config(tmp_path / "mine.toml").dataset.text == "body"


def test_what_fails_leaves_nothing(run: "partial[Ended]", tmp_path: Path) -> None:
    write_csv(tmp_path / "tickets.csv", tickets())
    refused = run("init", "tickets.csv", "dataset.test.share=0.6", "dataset.dev.share=0.6")
    assert refused.code == 2
    assert "leaves nothing to clean" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["tickets.csv"]
    assert run("init", "dataset.text=body").code == 2


def test_columns_may_be_named(run: "partial[Ended]", tmp_path: Path) -> None:
    write_csv(tmp_path / "tickets.csv", tickets())
    done = run(
        "init",
        "tickets.csv",
        "--text",
        "subject",
        "--text",
        "body",
        "--label",
        "priority",
        "--id",
        "ticket_id",
    )
    assert done.code == 0, done.stderr
    dataset = load_config(tmp_path / "tickets.toml").dataset
    assert (dataset.text, dataset.label, dataset.id) == (("subject", "body"), "priority", "ticket_id")


def test_a_file_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rayclean.errors import ConfigError
    from rayclean.first_look import page_checks

    target = tmp_path / "x.toml"
    monkeypatch.setattr(page_checks, "refuse_existing", lambda name: target.write_text("# other"))
    with pytest.raises(ConfigError, match="exists meanwhile"):
        write_page("a = 1\n", str(target))
    assert target.read_text() == "# other"
    assert [path.name for path in tmp_path.iterdir()] == ["x.toml"]


@pytest.mark.parametrize(
    ("path", "name"),
    [("data/tickets.csv.gz", "tickets.toml"), ("s3://b/tickets/*.parquet", "tickets.toml"), ("hf://ag_news", "ag_news.toml"),
     ("my data.csv", "my-data.toml")],
)  # fmt: skip
def test_the_config_is_named_after_the_data(path: str, name: str) -> None:
    assert config_file_name([path]) == name
