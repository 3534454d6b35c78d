"""Reverts follow what they are about: whatever happens to the files, the text that a person reverted stays as given."""

import json
from pathlib import Path
from typing import Any

import pytest

import rayclean
from rayclean import pipeline
from rayclean.annotators.reverts import Change, Reverts, write_reverts
from rayclean.errors import ConfigError
from rayclean.run import Run
from tests import toy
from tests.command import run_command
from tests.csv_runs import Row, cleaned, config, copy, labels, make, toy_rows, write


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return toy_rows(tmp_path_factory.mktemp("toy"))


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> Path:
    return make(tmp_path_factory.mktemp("made"), rows)


def changed_texts(run: rayclean.Run) -> list[str]:
    found = sorted(text for text, row in labels(run).items() if row["source"] == "changed")
    assert len(found) >= 8, "the toy has enough wrong labels"
    return found


def test_a_revert_follows_its_text_through_sorted_added_removed_and_split_rows(
    tmp_path: Path, rows: list[Row], made: Path
) -> None:
    run = copy(made)
    chosen = changed_texts(run)[:4]
    before = labels(run)
    places = [(before[text]["file"], before[text]["row"]) for text in chosen]
    assert rayclean.revert(config(), rows=places)["reverted"] == 4
    others = [row for row in rows if row["text"] not in chosen]
    (tmp_path / "data.csv").unlink()
    reverted_rows = [row for row in rows if row["text"] in chosen]
    new = {"key": "new", "text": "a tulip and a rose in the hedge", "label": "garden"}
    write(tmp_path / "parts" / "b.csv", [new, *others[100:5:-1]])
    write(tmp_path / "parts" / "a.csv", [*others[:100:-1], *reverted_rows[::-1]])
    after = labels(cleaned(config("parts")))
    reverted = {text for text, row in after.items() if row["source"] == "reverted"}
    assert reverted <= {*chosen}
    assert len(reverted) >= 2, "most of them would be changed again"
    for text in chosen:
        assert after[text]["final_label"] == after[text]["given_label"] == before[text]["given_label"]
        assert after[text]["source"] != "changed"


def test_a_revert_whose_text_or_label_is_gone_is_named(
    tmp_path: Path, rows: list[Row], made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(made)
    gone, relabelled, stays = changed_texts(run)[:3]
    places = [(labels(run)[text]["file"], labels(run)[text]["row"]) for text in (gone, relabelled, stays)]
    rayclean.revert(config(), rows=places)
    given = {row["text"]: row["label"] for row in rows}
    other = next(name for name in sorted(toy.TOPICS) if name != given[relabelled])
    write(
        tmp_path / "data.csv",
        [
            {**row, "label": other if row["text"] == relabelled else row["label"]}
            for row in rows
            if row["text"] != gone
        ],
    )
    (warning,) = cleaned(config()).manifest("relabel").metrics["warnings"]
    assert warning.startswith("2 reverts have no effect")
    assert gone[:40] in warning
    assert relabelled[:40] in warning
    assert stays[:40] not in warning
    assert f"data.csv:{places[0][1]} " in warning
    assert f"({given[gone]} → " in warning
    assert f"relabel: {warning}" in capsys.readouterr().err


def test_without_a_key_identical_texts_are_reverted_together(
    tmp_path: Path, rows: list[Row], made: Path
) -> None:
    text = changed_texts(copy(made))[0]
    (row,) = [row for row in rows if row["text"] == text]
    write(tmp_path / "data.csv", [*rows, {**row, "key": "copy-1"}, {**row, "key": "copy-2"}])
    run = cleaned(config())
    labelled = [
        row
        for part in run.shards("relabel", "labels")
        for row in run.read_table("relabel", "labels", part).to_pylist()
    ]
    one = labels(run)[text]
    copies = sum(each["source"] == "changed" and each["row"] in (one["row"], 240, 241) for each in labelled)
    result = rayclean.revert(config(), rows=[(one["file"], one["row"])])
    assert result["reverted"] == result["copies"] + 1 >= copies >= 1
    assert rayclean.revert(config(), everything=True, undo=True)["reverted"] == result["reverted"]


def test_with_a_key_a_revert_is_of_the_one_example(
    tmp_path: Path,
    rows: list[Row],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(tmp_path / "data.csv", rows)
    keyed = config(id="key")
    text = changed_texts(cleaned(keyed))[0]
    key = labels(pipeline.open_run(keyed))[text]["key"]
    (row,) = [row for row in rows if row["text"] == text]
    assert key == row["key"]
    assert labels(pipeline.open_run(keyed))[text]["given_name"] == row["label"]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(keyed.model_dump(mode="json", exclude_none=True)))

    def revert(*arguments: str) -> Any:
        return run_command("revert", str(file), *arguments, capsys=capsys, monkeypatch=monkeypatch)

    done = revert("--id", key)
    assert done.code == 0, done.stderr
    assert "1 label reverted" in done.stdout
    assert "identical" not in done.stdout
    assert labels(pipeline.open_run(keyed))[text]["source"] == "reverted"
    write(tmp_path / "data.csv", [{**row, "key": "copy"}, *rows[::-1]])
    run = cleaned(keyed)
    parts = [run.read_table("relabel", "labels", part) for part in run.shards("relabel", "labels")]
    after = {each["key"]: each for part in parts for each in part.to_pylist()}
    assert after["copy"]["source"] != "reverted"
    assert after[key]["final_label"] == after[key]["given_label"]
    missing = revert("--id", "T-0")
    assert (missing.code, "no example has the key 'T-0'" in missing.stderr) == (2, True)
    unknown = revert("--row", "data.csv:99999")
    assert (unknown.code, "rows count from 0" in unknown.stderr) == (2, True)
    wrong = revert("--row", "data.csv")
    assert (wrong.code, "--row tickets.csv:17" in wrong.stderr) == (2, True)


def test_a_row_and_a_label_select_together(tmp_path: Path, made: Path) -> None:
    run = copy(made)
    text = changed_texts(run)[0]
    row = labels(run)[text]
    names = [each["name"] for each in run.read_json("load", "labels.json")]
    given, final = names[row["given_label"]], names[row["final_label"]]
    place = [(row["file"], row["row"])]
    assert rayclean.revert(config(), rows=place, from_label=final)["reverted"] == 0
    assert rayclean.revert(config(), rows=place, from_label=given, to_label=final)["reverted"] == 1
    untouched = next(row for row in labels(run).values() if row["source"] == "given")
    with pytest.raises(ConfigError, match="its label was not changed"):
        rayclean.revert(config(), rows=[(untouched["file"], untouched["row"])])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "run"))


ONE, COPY = Change.of(1, "same text", "ham", "spam"), Change.of(2, "same text", "ham", "spam")
OTHER = Change.of(3, "same text", "spam", "ham")


def test_segments_without_keys_of_an_earlier_version_are_read(run: Run) -> None:
    record = {"v": 1, "time": 1.0, "action": "revert", "changes": [[99, ONE.text_hash, "ham", "spam"]]}
    run.write_json(record, "ledger", "reverts", "segment-00000000000000000001-aaaaaaaa.json")
    for keyed in (False, True):
        reverts = Reverts.read(run, keyed)
        assert [reverts.undoes(each) for each in (ONE, COPY, OTHER)] == [True, True, False]
    ((unit, lost),) = Reverts.read(run, True).active()
    assert unit is None
    assert lost.described == f"text {ONE.text_hash[:8]} (ham → spam)"


def test_the_last_segment_about_a_change_counts(run: Run) -> None:
    write_reverts(run, [ONE, COPY], undo=False, keyed=True)
    write_reverts(run, [COPY], undo=True, keyed=True)
    reverts = Reverts.read(run, True)
    assert [reverts.undoes(each) for each in (ONE, COPY)] == [True, False]
    write_reverts(run, [COPY], undo=False, keyed=False)  # from a time without keys: all copies
    write_reverts(run, [ONE], undo=True, keyed=True)
    reverts = Reverts.read(run, True)
    assert [reverts.undoes(each) for each in (ONE, COPY)] == [False, True]
    assert not Reverts.read(run, False).undoes(COPY)  # without keys the last word is about all


def test_a_revert_holds_whatever_is_suggested_next(run: Run) -> None:
    write_reverts(run, [ONE], undo=False, keyed=False)
    assert Reverts.read(run, False).undoes(Change.of(7, "same text", "ham", "eggs"))
    assert not Reverts.read(run, False).undoes(Change.of(7, "same text.", "ham", "spam"))
