"""`rayclean log`: readable at 80 columns, with data as data; or one JSON document and nothing else."""

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from rich.console import Console

import rayclean
from rayclean.cli.story_table import story_table
from rayclean.cli.terminal import readable
from tests.command import Ended, run_command
from tests.stories.conftest import EVIL, Told

HEADINGS = {"text", "load", "predict", "detect", "question", "answer", "decision", "label", "train", ""}

Run = Callable[..., Ended]


@pytest.fixture
def log(told: Told, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return partial(run_command, "log", told.run.url(), capsys=capsys, monkeypatch=monkeypatch)


def shown(told: Told, key: str, characters: int | None = 1000) -> list[str]:
    """The lines of a story at 80 columns, as a terminal with colours gets them."""
    console = Console(width=80, record=True, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.capture() as capture:
        console.print(story_table(rayclean.log(told.run, key=key), characters))
    return capture.get().splitlines()


def without_styles(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def test_a_hostile_text_stays_in_its_column(told: Told) -> None:
    lines = shown(told, "evil")
    plain = [without_styles(line) for line in lines]
    assert all(len(line) <= 80 for line in plain)
    assert {line[:9].strip() for line in plain} <= HEADINGS
    assert not any(ord(char) < 32 or char in "\u202e\x7f" for line in plain for char in line)
    text = "\n".join(plain)
    assert r"[bold red]rose\x1b[2J\x07 soil\u202e tulip\r" in text
    assert "[/bold red] :smile:" in text
    # of styles there are only those of the table itself
    assert {*re.findall(r"\x1b\[([0-9;]*)m", "\n".join(lines))} <= {"0", "1", "2"}


def test_every_event_has_its_line(told: Told) -> None:
    row = next(row for row in told.rows("relabel", "annotations") if row["decision"] == "changed")
    key = told.row("load", "origins", example_id=row["example_id"])["key"]
    text = " ".join(without_styles(" ".join(shown(told, key, None))).split())
    story = rayclean.log(told.run, key=key)
    assert f"{story.name} row {story.row} of {story.file}" in text
    names = [each["name"] for each in told.run.read_json("load", "labels.json")]
    for part in (
        f"given label: {names[row['given_label']]}",
        "true label (for measuring only): ",
        f"suspect, {row['rank'] + 1}",
        "nearest texts:",
        "openai (suspect): ",
        "prompt, as sent (its hash is that of the ledger):",
        "Category:",
        f"{row['prompt_tokens']:,} + {row['answer_tokens']} tokens, ",
        "changed (asked last: openai)",
        f"final label: {names[row['suggested_label']]} (changed by openai",
        "aum, on the label ",
        "epoch 3: ",
        "not finished: evaluate",
    ):
        assert part in text, part
    assert "--full" in "\n".join(shown(told, key))


def test_llm_disagreement_is_told_by_its_name(told: Told) -> None:
    for row in told.rows("relabel", "beyond"):
        key = told.row("load", "origins", example_id=row["example_id"])["key"]
        text = " ".join(without_styles(" ".join(shown(told, key, None))).split())
        assert f"({'LLM disagreement' if row['vote'] else 'agreement'}); " in text


def test_json_is_one_document_and_nothing_else(log: Run, told: Told) -> None:
    for arguments in (["--id", "evil"], ["--row", "002.parquet:0"]):
        done = log(*arguments, "--json")
        assert (done.code, done.stderr) == (0, "")
        assert json.loads(done.stdout) == rayclean.log(told.run, key="evil").to_json()
        assert done.stdout.isascii()
    assert json.loads(log("--text", EVIL[:12], "--json").stdout)["text"] == EVIL
    rejected = json.loads(log("--row", "002.parquet:4", "--json").stdout)
    assert rejected["events"] == [
        {
            "event": "rejected",
            "part": "",
            "file": "002.parquet",
            "row": 4,
            "reason": "empty text",
            "value": "   ",
        }
    ]


def test_several_matches_are_listed(log: Run, told: Told) -> None:
    text = told.row("load", "origins", key="copy-2")
    own = rayclean.log(told.run, key="copy-2", neighbours=0).text
    done = log("--text", own, "--json")
    found = json.loads(done.stdout)
    assert done.code == 0
    assert found["total"] == 3
    assert {each["name"] for each in found["matches"]} == {"row-00005", "copy-1", "copy-2"}
    listed = log("--text", own).stdout
    for each in found["matches"]:
        assert str(each["example_id"]) in listed
    (again,) = [each for each in found["matches"] if each["name"] == "copy-2"]
    assert again["origin"] == {"key": "copy-2", "file": text["file"], "row": text["row"]}
    many = log("--text", "e")
    assert many.code == 0
    assert re.search(r"the first 20 of \d\d\d; ", many.stdout)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--id", "evli"], "config error: no example has the key 'evli' (did you mean 'evil'?)"),
        (["--row", "002.parquet"], "--row tickets.csv:17"),
        (["--row", "002.parquet:9"], "up to 4 in this file"),
        ([], "say which example in one way, got 0"),
        (["--id", "evil", "--text", "rose"], "got 2"),
    ],
)
def test_errors_leave_stdout_empty(log: Run, arguments: list[str], said: str) -> None:
    done = log(*arguments, "--json")
    assert (done.code, done.stdout) == (2, "")
    assert said in done.stderr


def test_readable_escapes_what_a_terminal_obeys_or_hides() -> None:
    hostile: Any = "a\x00\x1b]0;title\x07\x9b2J\u200b\u2028\ud800\ufeffé漢\n"
    assert readable(hostile) == "a\\x00\\x1b]0;title\\x07\\x9b2J\\u200b\\u2028\\ud800\\ufeffé漢\n"
