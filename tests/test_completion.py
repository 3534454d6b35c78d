"""What a shell completes: commands, options, keys of configs and their values."""

import os
import subprocess
import sys

import pytest

from rayclean.cli.completion import complete_option_name, complete_override


def completed(words: str, current: str) -> list[str]:
    """What bash is told for a line, by a process of its own, as on a press of the tab key."""
    environment = {
        **os.environ, "_RAYCLEAN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1),
    }  # fmt: skip
    if not current:
        environment["COMP_CWORD"] = str(len(words.split()))
    code = "import sys, rayclean.__main__ as m; sys.argv[0] = 'rayclean'; m.run()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    return done.stdout.split()


def test_the_shell_is_told_commands_and_options() -> None:
    assert {"estimate", "evaluate"} <= set(completed("rayclean e", "e"))
    assert "--measure-model" in completed("rayclean estimate --mea", "--mea")
    assert completed("rayclean clean my.toml detect.bud", "detect.bud") == ["detect.budget="]


@pytest.mark.parametrize(
    ("incomplete", "found"),
    [
        ("detect.b", ["detect.budget="]),
        ("annotator.n", ["annotator.name="]),
        ("dataset.dev.sh", ["dataset.dev.share="]),
        ("predict.mode=in", ["predict.mode=in_sample"]),
        ("relabel.ask_all=", ["relabel.ask_all=true", "relabel.ask_all=false"]),
        ("dataset.first_label=", ["dataset.first_label=0", "dataset.first_label=1"]),
        ("encoder=bag", ["encoder=bag_of_words"]),
        ("annotator.name=ser", ["annotator.name=served"]),
        ("nothing.at.all=", []),
    ],
)  # fmt: skip
def test_keys_and_values(incomplete: str, found: list[str]) -> None:
    assert complete_override(incomplete) == found


def test_names_of_sections_and_plug_ins() -> None:
    assert complete_option_name("det") == ["detect", *complete_option_name("detector.")]
    assert "method.noiseal" in complete_option_name("method.")


def test_completing_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from rayclean.cli.completion import complete_override, complete_option_name; "
        "complete_override('annotator.name='); complete_override('d'); complete_option_name('m'); "
        "print([m for m in ('torch', 'ray') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
