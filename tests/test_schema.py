"""`rayclean config --schema`: what is a config by the schema is one, and what is not is not."""

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rayclean.cli.options import option_families
from rayclean.cli.schema import config_schema
from rayclean.config import parse_config
from rayclean.errors import ConfigError
from rayclean.verb_fingerprints import check_plugins
from tests.command import run_command

ROOT = Path(__file__).parent.parent
CONFIGS = [path for path in sorted((ROOT / "configs").rglob("*.toml")) if path.parent.name != "sweeps"]


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(json.dumps(config_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_ready_configs_are_valid(path: Path, validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(tomllib.loads(path.read_text()))


@pytest.mark.parametrize(
    "section",
    [
        {"annotator": {"max_queries": 5}},
        {"annotator": "knn"},
        {"detect": {"detectors": ["knn_vote", {"name": "posterior"}], "budget": 100}},
        {"encoder": {"name": "transformer", "trainable": "head", "model": "minilm"}},
        {"method": {"name": "my_package.methods:Mine", "beta": 0.5}},
        {"dataset": {"path": ["a.csv", "b.csv"], "dev": {"share": 0.2}, "unlabelled": ["", -1]}},
        {"relabel": {"annotators": [{"name": "served", "server": {"replicas": 2}}]}},
    ],
)  # fmt: skip
def test_what_a_config_may_say_is_valid(
    section: dict[str, Any], validator: jsonschema.Draft202012Validator
) -> None:
    parse_config({"dataset": {"path": "data.csv"}, **section})
    validator.validate(section)


@pytest.mark.parametrize(
    "section",
    [
        {"detetc": {}},
        {"detect": {"bugdet": 0.1}},
        {"annotator": {"max_querys": 5}},
        {"annotator": {"name": "served", "servr": {}}},
        {"encoder": "transfomer"},
        {"encoder": {"name": "transformer", "trainable": "some"}},
        {"dataset": {"text": "body"}},
        {"predict": {"folds": 1}},
        {"method": {"name": "noiseal", "max_queries": -1}},
        {"relabel": {"annotators": [{"max_queries": 5}]}},
    ],
)  # fmt: skip
def test_what_is_no_config_is_invalid(
    section: dict[str, Any], validator: jsonschema.Draft202012Validator
) -> None:
    with pytest.raises(ConfigError):
        check_plugins(
            parse_config({**({} if "dataset" in section else {"dataset": {"path": "data.csv"}}), **section})
        )
    assert not validator.is_valid(section)


def test_every_key_is_explained_and_every_plug_in_is_there() -> None:
    schema = config_schema()
    for name, each in {"the config": schema, **schema["$defs"]}.items():
        for key, place in each.get("properties", {}).items():
            assert key == "name" or place.get("description") or "$ref" in place, (
                f"{name}: {key} is not explained"
            )
    for kind, family in option_families().items():
        assert schema["$defs"][kind]["anyOf"][0]["enum"] == list(family.all_names())


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_command("config", "--schema", capsys=capsys, monkeypatch=monkeypatch)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout) == config_schema()
    refused = run_command("config", capsys=capsys, monkeypatch=monkeypatch)
    assert refused.code == 2
    assert "--schema" in refused.stderr
