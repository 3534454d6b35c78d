"""`docs/errors.md` holds every message; what is really raised is on it."""

import re
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import rayclean
from rayclean.errors import RaycleanError
from rayclean.interrupts import STOPPING
from rayclean.pipeline import resolved_config, validate_verbs
from tests import toy

ROOT = Path(__file__).parent.parent
RENDER = runpy.run_path(str(ROOT / "docs" / "render_errors.py"))
MESSAGES = cache(RENDER["messages"])


def test_the_page_is_up_to_date() -> None:
    written = (ROOT / "docs" / "errors.md").read_text()
    assert written == RENDER["render"](MESSAGES()), "run `make errors-page`"


def test_the_exit_code_of_every_signal_is_in_the_table() -> None:
    codes = sorted(str(128 + number) for number in STOPPING)
    assert f"| {', '.join(codes)} |" in RENDER["INTRODUCTION"]


def test_every_kind_of_error_is_explained() -> None:
    kinds = {each.__name__ for each in RaycleanError.__subclasses__()}
    assert kinds - RENDER["KINDS"].keys() <= {
        "DisagreementError"
    }  # no message to the user: the group restarts
    assert {message.kind for message in MESSAGES()} >= kinds - {"DisagreementError"}


def config(**changes: Any) -> Callable[[Path], Any]:
    def trigger(folder: Path) -> Any:
        values = toy.config(toy.write(folder / "data", rows=40), folder / "runs")
        return validate_verbs(
            rayclean.parse_config(values, [f"{key}={value}" for key, value in changes.items()])
        )

    return trigger


def missing_file(folder: Path) -> Any:
    return rayclean.load_config(folder / "nothing.toml")


def broken_toml(folder: Path) -> Any:
    (folder / "a.toml").write_text("a,b\n1,2\n")
    return rayclean.load_config(folder / "a.toml")


def data_file(folder: Path) -> Any:
    return rayclean.load_config(folder / "tickets.csv")


def verb_too_early(folder: Path) -> Any:
    return rayclean.detect(
        rayclean.parse_config(toy.config(toy.write(folder / "data", rows=40), folder / "runs"))
    )


TRIGGERS: dict[str, Callable[[Path], Any]] = {
    "no such config": missing_file,
    "no TOML": broken_toml,
    "a data file": data_file,
    "a verb before its inputs": verb_too_early,
    "unknown plug-in": config(**{"annotator.name": "oracle"}),
    "no such data": config(**{"dataset.path": "nowhere/*.csv"}),
    "no such column": config(**{"dataset.text": "body"}),
    "a wrong budget": config(**{"detect.budget": "7.5"}),
    "no endpoint": config(**{"annotator.name": "openai", "annotator.base_url": "ftp://x"}),
    "a folder without a run": lambda folder: resolved_config(str(folder)),
}


@pytest.mark.parametrize("trigger", TRIGGERS.values(), ids=TRIGGERS)
def test_what_is_raised_is_on_the_page(trigger: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(RaycleanError) as caught:
        trigger(tmp_path)
    kind = type(caught.value).__name__
    patterns = [RENDER["pattern"](each) for each in MESSAGES() if each.kind == kind]
    assert [each for each in patterns if each.search(str(caught.value))], str(caught.value)
    assert re.search(r"[;:(,]", str(caught.value)), "says no next step"
