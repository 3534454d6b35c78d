"""What is guessed of a table: columns, forms of labels, and what looks odd."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayclean.errors import ConfigError, DataError
from rayclean.first_look import reading
from rayclean.first_look.oddities import oddities
from rayclean.first_look.page_checks import checked_page
from rayclean.first_look.proposed_config import ProposedConfig, guess_columns, propose_config
from rayclean.first_look.toml_page import toml_page
from tests.first_look.tables import tickets, write_csv


def proposed(path: Path, *overrides: str) -> ProposedConfig:
    """The proposal for a file, whose page `load` accepts."""
    found = propose_config([str(path)], [f"output={path.parent / 'runs'}", *overrides])
    checked = checked_page(toml_page(found, "my.toml"), str(path.parent / "my.toml"))
    assert checked.dataset == found.config.dataset
    return found


def sentences(found: ProposedConfig) -> str:
    return "\n".join(each for kind in oddities(found).values() for each in kind)


def test_columns_of_tickets(tmp_path: Path) -> None:
    found = proposed(write_csv(tmp_path / "t.csv", tickets()))
    dataset = found.values["dataset"]
    assert dataset == {
        "path": str(tmp_path / "t.csv"), "text": "body", "label": "category", "id": "ticket_id", "group": "customer_id",
    }  # fmt: skip
    assert found.roles.is_clear
    assert found.look.is_whole
    assert set(found.look.classes) == {"billing", "login", "delivery"}
    assert sum(found.look.classes.values()) == found.look.rows == 120
    page = toml_page(found, "t.toml")
    assert '# text = ["subject", "body"]' in page
    assert "3 classes: " in page


def test_what_is_said_is_not_guessed(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", tickets())
    found = proposed(path, "dataset.text=subject", "dataset.label=priority", "detect.budget=0.2", "name=mine")
    assert found.values["dataset"]["text"] == "subject"
    assert found.values["dataset"]["label"] == "priority"
    assert found.config.detect.budget == 0.2
    assert found.config.name == "mine"
    with pytest.raises(DataError, match=r"no column 'topic' for dataset\.label"):
        propose_config([str(path)], ["dataset.label=topic"])


def test_oddities_are_counted(tmp_path: Path) -> None:
    rows = tickets(100)
    for row, label in zip(
        rows, ["Billing", "Billing", "delivry", "delivry", "", "n/a", "unknown"], strict=False
    ):
        row["category"] = label
    rows[10]["body"] = "  "
    rows[20]["body"] = rows[21]["body"].upper()  # a copy for a reader
    rows[20]["category"], rows[21]["category"] = "billing", "login"
    rows[30]["ticket_id"] = rows[31]["ticket_id"]
    found = proposed(write_csv(tmp_path / "t.csv", rows))
    said = sentences(found)
    assert "1 of 100 rows cannot be used: empty text" in said
    assert "1 rows hold a text that came before" in said
    assert "1 texts come with different labels" in said
    assert "'Billing' and 'billing' (2 and" in said or "'billing' and 'Billing' (" in said
    assert "differ by case only" in said
    assert "'delivry' and 'delivery' (2 and" in said
    assert "may be one with a slip of the pen" in said
    assert "'ticket_id' is named like a key, and is missing or comes again" in said
    assert "id" not in found.values["dataset"]
    assert found.values["dataset"]["unlabelled"] == ["", "n/a"]
    assert "'unknown': a class, or no label?" in said
    assert "3 classes have fewer than 5 labels" in said  # Billing, delivry, unknown; n/a is none


def test_a_column_that_could_be_the_key_is_offered(tmp_path: Path) -> None:
    rows = [
        {"ticket": str(1000 + n), "body": f"ship {n} sails to the harbour", "topic": "ab"[n % 2]}
        for n in range(30)
    ]
    found = proposed(write_csv(tmp_path / "k.csv", rows))
    assert "id" not in found.values["dataset"]
    assert '# id = "ticket"' in toml_page(found, "k.toml")


def test_numbers_as_labels(tmp_path: Path) -> None:
    rows = [{"text": f"ship {n} sails to the harbour", "label": str(1 + n % 3)} for n in range(30)]
    found = proposed(write_csv(tmp_path / "n.csv", rows))
    assert "the classes are numbers from 1 to 3" in sentences(found)
    assert "# first_label = 1" in toml_page(found, "n.toml")
    rows[0]["label"] = "-1"
    again = proposed(write_csv(tmp_path / "m.csv", rows))
    assert again.values["dataset"]["unlabelled"] == [-1]
    signs = [{"text": f"a film that I saw {n} times", "label": str(1 - 2 * (n % 2))} for n in range(30)]
    assert "unlabelled" not in proposed(write_csv(tmp_path / "s.csv", signs)).values["dataset"]


@pytest.mark.parametrize("separator", ["|", ";"])
def test_sets_of_classes(separator: str, tmp_path: Path) -> None:
    sets = [["joy"], ["anger", "fear"], ["joy", "surprise"], ["fear"], ["anger", "joy"], ["surprise"]]
    rows = [
        {"text": f"what a day number {n} it was today", "emotions": separator.join(sets[n % len(sets)])}
        for n in range(60)
    ]
    found = proposed(write_csv(tmp_path / "e.csv", rows))
    assert found.look.form == "classes"
    assert found.values["dataset"]["label_separator"] == separator
    assert found.config.task.name != "classification"
    assert found.look.classes["joy"] == 30


def test_a_comma_in_a_name_divides_nothing(tmp_path: Path) -> None:
    names = ["Food, drink", "Home, garden", "Cars, bikes", "Toys"]
    rows = [{"text": f"the shop sells item {n} at a price", "category": names[n % 4]} for n in range(40)]
    assert proposed(write_csv(tmp_path / "c.csv", rows)).look.form == "class"


def test_lists_tags_and_columns_of_bits(tmp_path: Path) -> None:
    lists = [{"text": f"a day like any other {n}", "labels": ["a", "b"][: 1 + n % 2]} for n in range(20)]
    path = tmp_path / "lists.jsonl"
    path.write_text("\n".join(map(json.dumps, lists)))
    assert proposed(path).look.form == "classes"
    tagged = [
        {"tokens": ["Ann", "met", "Bob", str(n)], "ner": ["B-PER", "O", "B-PER", "O"]} for n in range(20)
    ]
    path = tmp_path / "tags.jsonl"
    path.write_text("\n".join(map(json.dumps, tagged)))
    found = proposed(path)
    assert (found.look.form, found.values["dataset"]["tokens"]) == ("tags", "tokens")
    bits = [
        {"comment": f"you are all fools number {n}", "toxic_": str(n % 2), "insult": str(n % 3 % 2)}
        for n in range(60)
    ]
    found = proposed(write_csv(tmp_path / "bits.csv", bits), 'dataset.label=["toxic_", "insult"]', "task.name=multi_label",
                     'dataset.labels=["toxic_", "insult"]')  # fmt: skip
    assert found.look.classes == {"toxic_": 30, "insult": 20}


def test_a_column_that_somebody_has_checked_is_the_truth(tmp_path: Path) -> None:
    rows = tickets(90)
    checked = [{**row, "gold_category": row["category"]} for row in rows]
    assert proposed(write_csv(tmp_path / "g.csv", checked)).values["dataset"]["truth"] == "gold_category"
    weak = [{"text": row["body"], "label": row["category"], "weak_label": row["category"]} for row in rows]
    dataset = proposed(write_csv(tmp_path / "w.csv", weak)).values["dataset"]
    assert (dataset["label"], dataset["truth"]) == ("weak_label", "label")


def test_a_file_without_header(tmp_path: Path) -> None:
    path = tmp_path / "bare.csv"
    path.write_text("".join(f"{n % 2},the ship number {n} sails to port\n" for n in range(30)))
    found = proposed(path)
    assert found.values["dataset"] | {"path": ""} == {
        "path": "",
        "header": False,
        "text": "column_2",
        "label": "column_1",
    }
    assert "the first line is no header" in sentences(found)


def test_a_header_of_numbers(tmp_path: Path) -> None:
    """As pandas writes one for columns without names."""
    path = tmp_path / "frame.csv"
    path.write_text(
        "0,1\n" + "".join(f"the ship number {n} sails to port,{'ab'[n % 2]}\n" for n in range(30))
    )
    found = proposed(path)
    assert found.values["dataset"] | {"path": ""} == {"path": "", "text": "0", "label": "1"}
    assert found.look.rows == 30


def test_dialect_and_encoding_are_told(tmp_path: Path) -> None:
    rows = [{**row, "body": f"café {row['body']}"} for row in tickets(40)]
    found = proposed(write_csv(tmp_path / "w.csv", rows, delimiter=";", encoding="cp1252"))
    assert "cp1252" in sentences(found)
    assert "CSV: ';' between fields, cp1252" in toml_page(found, "w.toml")


def test_names_and_texts_that_toml_must_escape(tmp_path: Path) -> None:
    rows = [
        {'the "text"\\': f"ship {n} sails to a port", "cat # x": ["a\x07b", 'c"#'][n % 2]} for n in range(30)
    ]
    found = proposed(write_csv(tmp_path / "q.csv", rows), 'dataset.label="cat # x"')
    assert found.values["dataset"]["text"] == 'the "text"\\'


def test_other_formats_and_several_files(tmp_path: Path) -> None:
    rows = tickets(60)
    for number in range(3):
        pq.write_table(pa.Table.from_pylist(rows[number::3]), tmp_path / f"{number}.parquet")
    found = proposed(tmp_path / "*.parquet")
    assert found.look.rows == 60
    assert found.values["dataset"]["label"] == "category"


def test_reading_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file gives its first rows, so that a data set sorted by class shows more than one."""
    monkeypatch.setattr(reading, "MOST_ROWS", 40)
    monkeypatch.setattr(reading.FirstRows.read, "__defaults__", (40,))
    for topic in ("sea", "land"):
        rows = [{"text": f"ship {n} and {topic} of old", "label": topic} for n in range(100)]
        write_csv(tmp_path / f"{topic}.csv", rows)
    found = proposed(tmp_path / "*.csv")
    assert found.look.classes == {"land": 20, "sea": 20}
    assert not found.look.is_whole
    assert "the first 40 rows" in toml_page(found, "x.toml")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("one.csv", "hello world\nthis is text\n", "it has one column"),
        ("none.csv", "", "empty"),
        ("rows.csv", "text,label\n", "and no rows"),
        ("x.xlsx", "PK", "a spreadsheet; save its table"),
        ("nolabel.csv", "\n".join(["text,note", *(f"ship {n} sails far,word{n}" for n in range(30))]), "looks like a label"),
        ("notext.csv", "\n".join(["a,label", *(f"{n},{n % 2}" for n in range(30))]), "looks like a text"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises((ConfigError, DataError), match=message):
        propose_config([str(tmp_path / name)])


def test_a_guess_that_is_not_clear(tmp_path: Path) -> None:
    rows = [
        {
            "a": f"the ship sails to port {n}",
            "b": f"the crane lifts cargo {n}",
            "c": "xy"[n % 2],
            "d": "uvw"[n % 3],
        }
        for n in range(40)
    ]
    assert not guess_columns(str(write_csv(tmp_path / "ab.csv", rows))).is_clear
