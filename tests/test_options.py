"""`rayclean options`: every key of every section and plug-in is explained."""

import pytest
from typer.testing import CliRunner

from rayclean.cli.main import command_line
from rayclean.cli.options import describe_options, find_options, option_families, option_sections
from rayclean.errors import ConfigError

NAMES = [
    *option_sections(),
    *(f"{kind}.{name}" for kind, family in option_families().items() for name in family),
]


@pytest.mark.parametrize("name", NAMES)
def test_every_key_has_a_type_and_a_help_sentence(name: str) -> None:
    owner, model = find_options(name)
    assert owner.__doc__
    for option in describe_options(model):
        assert len(option.help.split()) > 2, f"{name}: {option.key} needs a docstring"
        assert option.type
        assert not option.type.startswith("typing.")


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_rendered(name: str) -> None:
    result = CliRunner().invoke(command_line, ["options", name])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{name}: ")


def test_without_a_name_all_are_listed() -> None:
    output = CliRunner().invoke(command_line, ["options"]).output
    for name in NAMES:
        assert name.rpartition(".")[2] in output


def test_type_default_bounds_and_nested_keys() -> None:
    options = {option.key: option for option in describe_options(find_options("dataset")[1])}
    assert options["path"].default == "required"
    assert options["text"].type == "text or list of text"
    assert options["dev"].type == "table"
    assert options["dev.share"][1:3] == ("number, >= 0, < 1", "0.0")
    assert options["noise"].default == "none"
    assert options["noise.kind"].type.startswith('"sym" | ')
    assert "server.replicas" in {
        option.key for option in describe_options(find_options("annotator.served")[1])
    }


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("detcet", "did you mean detect"),
        ("annotator.opanai", "did you mean openai"),
        ("knn", "annotator.knn"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=nearest):
        find_options(name)
