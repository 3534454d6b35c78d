"""Two data sets do not share a run folder: its default name is the config file's, and nothing is replaced unasked."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rayclean
from rayclean import pipeline
from rayclean.config import Config
from rayclean.config.run_name import name_of_file
from rayclean.errors import ConfigError
from tests.command import run_command

WORDS = {"pet": "cat dog hamster parrot goldfish".split(), "car": "tyre clutch bonnet gearbox wiper".split()}


def texts(seed: int, count: int = 60) -> list[tuple[str, str]]:
    """Texts with labels, of which no two seeds share one."""
    draw = random.Random(seed)
    return [
        (f"{' '.join(draw.choices(WORDS[label], k=4))} number {seed}-{row}", label)
        for row in range(count)
        for label in [draw.choice(["pet", "car"])]
    ]


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return str(path)


def config(folder: Path, path: str, **values: Any) -> Config:
    return rayclean.parse_config(
        {"output": str(folder / "runs"), "dataset": {"path": path}, "cluster": {"ray": False}, **values}
    )


def test_the_name_is_that_of_the_file(tmp_path: Path) -> None:
    plain = f'output = "{tmp_path}"\n[dataset]\npath = "data.csv"\n'
    (tmp_path / "Support tickets.toml").write_text(plain)
    (tmp_path / "named.toml").write_text(f'name = "mine"\n{plain}')
    (tmp_path / "gpu.toml").write_text("[cluster]\ngpus = 1\n")
    tickets, over = str(tmp_path / "Support tickets.toml"), str(tmp_path / "gpu.toml")
    assert rayclean.load_config(tickets).name == "Support-tickets"
    assert rayclean.load_config(tickets, [over]).name == "Support-tickets"  # not that of a file laid over
    assert rayclean.load_config(tickets, ["name=other"]).name == "other"
    assert rayclean.load_config(tmp_path / "named.toml").name == "mine"
    assert rayclean.parse_config({"dataset": {"path": "data.csv"}}).name == "run"


@given(st.text(max_size=40))
def test_every_file_name_gives_a_valid_name(stem: str) -> None:
    Config(dataset={"path": "data.csv"}, name=name_of_file(f"{stem.replace('/', '')}.toml"))


def test_names_without_latin_letters_differ() -> None:
    assert name_of_file("данные.toml") != name_of_file("билеты.toml")
    assert name_of_file("---.toml") == "run"


def test_a_run_of_another_data_set_is_not_replaced(tmp_path: Path) -> None:
    mine, theirs = write(tmp_path / "mine.csv", texts(1)), write(tmp_path / "theirs.csv", texts(2))
    run = rayclean.load(config(tmp_path, mine))
    before = (run.read_json("load", "manifest.json"), run.read_text("config.json"))
    with pytest.raises(ConfigError) as error:
        rayclean.load(config(tmp_path, theirs))
    message = str(error.value)
    for part in (mine, theirs, run.url(), 'name = "theirs"', "name=...", run.url("load")):
        assert part in message
    assert (run.read_json("load", "manifest.json"), run.read_text("config.json")) == before
    rayclean.load(config(tmp_path, theirs, name="theirs"))
    run.remove("load")  # what the message offers
    assert rayclean.load(config(tmp_path, theirs)).manifest("load").metrics["examples"] == 60


def test_the_same_file_name_in_another_folder_is_another_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, folder in enumerate(("one", "two")):
        write(tmp_path / folder / "data" / "train.csv", texts(number))
    monkeypatch.chdir(tmp_path / "one")
    rayclean.load(config(tmp_path, "data/train.csv"))
    monkeypatch.chdir(tmp_path / "two")
    with pytest.raises(ConfigError, match="another data set"):
        rayclean.load(config(tmp_path, "data/train.csv"))


def test_a_few_common_texts_do_not_make_two_data_sets_one(tmp_path: Path) -> None:
    common = [("thank you", "pet"), ("ok", "car")]
    rayclean.load(config(tmp_path, write(tmp_path / "a.csv", [*texts(1), *common])))
    with pytest.raises(ConfigError, match="another data set"):
        rayclean.load(config(tmp_path, write(tmp_path / "b.csv", [*common, *texts(2)])))


@pytest.mark.parametrize("kind", ["reversed", "grown", "halved", "split", "moved", "relabelled"])
def test_the_same_data_set_stays_the_same(tmp_path: Path, kind: str) -> None:
    rows = texts(1)
    path = write(tmp_path / "old" / "a.csv", rows)
    rayclean.load(config(tmp_path, path))
    new = tmp_path / "new"
    if kind == "moved":
        shutil.move(tmp_path / "old", new)
    elif kind == "split":
        write(new / "a.csv", rows[30:])
        write(new / "b.csv", rows[:30])
    else:
        changed = {
            "reversed": rows[::-1],
            "grown": [*rows, *texts(2, 100)],
            "halved": rows[1::2],
            "relabelled": [(text.upper(), "car" if label == "pet" else "pet") for text, label in rows],
        }
        write(new / "a.csv", changed[kind])
    assert rayclean.load(config(tmp_path, str(new))).manifest("load") is not None


def test_other_texts_in_the_same_file_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "data.csv", texts(1))
    rayclean.load(config(tmp_path, path))
    assert caplog.text == ""
    write(tmp_path / "data.csv", texts(2))
    assert rayclean.load(config(tmp_path, path)).manifest("load").metrics["examples"] == 60
    assert f"{path!r} holds other texts now" in caplog.text


def test_another_label_column_of_the_same_texts_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its run takes the place of the one before, of which nothing else would say so."""
    path = write(tmp_path / "data.csv", texts(1))
    content = Path(path).read_text().splitlines()
    Path(path).write_text(
        "\n".join([f"{content[0]},topic", *(f"{line},{'xy'[n % 2]}" for n, line in enumerate(content[1:]))])
    )
    rayclean.load(config(tmp_path, path))
    assert caplog.text == ""
    before = config(tmp_path, path)
    rayclean.load(before.model_copy(update={"dataset": before.dataset.model_copy(update={"label": "topic"})}))
    assert "was made with dataset.label = 'label', and is replaced by one with 'topic'" in caplog.text


def test_a_run_of_an_earlier_version_is_told_by_its_config(tmp_path: Path) -> None:
    mine, theirs = write(tmp_path / "mine.csv", texts(1)), write(tmp_path / "theirs.csv", texts(2))
    run = rayclean.load(config(tmp_path, mine))
    run.remove("load", "sources.json")
    with pytest.raises(ConfigError, match=r"mine\.csv"):
        rayclean.load(config(tmp_path, theirs))


def test_the_command_line_says_it_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = write(tmp_path / "mine.csv", texts(1)), write(tmp_path / "theirs.csv", texts(2))
    file = tmp_path / "tickets.toml"
    file.write_text(f'output = "{tmp_path}/runs"\n[dataset]\npath = "{mine}"\n[cluster]\nray = false\n')
    done = run_command("load", str(file), capsys=capsys, monkeypatch=monkeypatch)
    assert done.code == 0, done.stderr
    assert (tmp_path / "runs" / "tickets" / "load" / "manifest.json").exists()
    refused = run_command("load", str(file), f"dataset.path={theirs}", capsys=capsys, monkeypatch=monkeypatch)
    assert refused.code == 2
    assert 'name = "theirs"' in refused.stderr
    again = pipeline.open_run(rayclean.load_config(file))
    assert again.manifest("load").metrics["examples"] == 60
