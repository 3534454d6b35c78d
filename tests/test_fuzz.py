"""Whatever a user writes into a config, a file or a Python call: an error that is named, never a traceback."""

import json
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rayclean
from rayclean.config import Config, parse_config
from rayclean.errors import RaycleanError
from rayclean.pipeline import validate_verbs
from rayclean.verb_fingerprints import check_plugins
from tests import toy
from tests.command import run_command

FILES = 40
"""Number of random data files."""

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**40), 10**40),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["", "[/red]", "a\0b", "\ud800", "../..", "knn", "0.5", "~", "s3://", "x:Y", "os:system", "{}", "%s"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
SECTIONS = sorted(Config.model_fields)
KEYS = sorted(
    {
        key
        for field in Config.model_fields.values()
        for key in getattr(field.annotation, "model_fields", {"name": None, "path": None})
    }
)
"""Keys of all sections."""
CONFIGS = st.dictionaries(
    st.sampled_from(SECTIONS) | st.text(max_size=5),
    VALUES | st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4),
    max_size=4,
)
OVERRIDES = st.lists(
    st.text(max_size=20)
    | st.builds(
        "{}.{}={}".format,
        st.sampled_from(SECTIONS),
        st.sampled_from(KEYS),
        st.text(max_size=12) | st.integers(),
    ),
    max_size=3,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=CONFIGS, overrides=OVERRIDES)
def test_any_config_is_valid_or_refused_in_words(values: dict[str, Any], overrides: list[str]) -> None:
    values = {"dataset": {"path": "bbc_news"}, **values}
    try:
        config = parse_config(values, overrides)
        check_plugins(config)
    except RaycleanError:
        return
    assert parse_config(json.loads(config.model_dump_json())) == config


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="replace")),
    end=st.sampled_from([".toml", ".json", "", ".yaml"]),
)
def test_any_config_file_is_read_or_refused_in_words(content: bytes, end: str, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz{end}"
    path.write_bytes(content)
    with pytest.raises(RaycleanError, match="fuzz"):  # none is a whole config by chance
        rayclean.load_config(path)


class Nothing:
    """Any object of somebody's own."""


OBJECTS = [
    None,
    3,
    2.5,
    "my.toml",
    b"bytes",
    Path("my.toml"),
    [],
    {},
    {"dataset": {"path": "x"}},
    Nothing(),
    Nothing,
    print,
]
FUNCTIONS = (
    "load",
    "predict",
    "detect",
    "relabel",
    "train",
    "evaluate",
    "export",
    "revert",
    "audit",
    "certify",
    "status",
)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_verb_wants_a_config_and_says_how_to_get_one(name: str) -> None:
    import pandas as pd

    for given_ in [*OBJECTS, pd.DataFrame({"text": ["a"]})]:
        with pytest.raises(
            TypeError, match=r"expected a rayclean.Config, got \w+: give rayclean\.(load|parse)_config"
        ):
            getattr(rayclean, name)(given_)


@pytest.mark.parametrize("name", ["clean", "find_label_errors"])
def test_what_is_no_data_is_refused_with_the_right_call(name: str) -> None:
    for given_ in (None, 3, 2.5, b"bytes", {}, {"dataset": {"path": "x"}}, Nothing(), Nothing, print):
        with pytest.raises(
            TypeError,
            match=r"expected a table, the path of a file or a rayclean.Config, got \w+; give a DataFrame",
        ):
            getattr(rayclean, name)(given_, text="text", label="label")


def test_python_arguments_of_other_types_are_refused_with_the_right_call(tmp_path: Path) -> None:
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame({"text": ["a"], "label": ["b"]})
    for given_ in [None, 3, frame, {"dataset": {}}, ["a.toml"]]:
        with pytest.raises(TypeError, match=r"rayclean\.parse_config"):
            rayclean.load_config(given_)  # type: ignore[arg-type]
    for given_ in [None, 3, "my.toml", frame, [("dataset", {})]]:
        with pytest.raises(TypeError, match=r"give rayclean\.(load|parse)_config"):
            parse_config(given_)  # type: ignore[arg-type]
    for overrides in ["detect.budget=5", 3, [3], None, frame]:
        with pytest.raises(TypeError, match=r"expected .*overrides"):
            parse_config({"dataset": {"path": "x"}}, overrides)  # type: ignore[arg-type]
    for table in (frame, pa.table({"text": ["a"]})):
        with pytest.raises(rayclean.RaycleanError, match=r"dataset.path.*to_parquet"):
            parse_config({"dataset": {"path": table}})
    config = parse_config(
        {"dataset": {"path": tmp_path / "x.csv"}, "seed": np.int64(3), "detect": {"budget": np.float32(0.5)}}
    )
    assert (config.dataset.path, config.seed, config.detect.budget) == (str(tmp_path / "x.csv"), 3, 0.5)


def random_file(choose: random.Random, folder: Path) -> Path:
    """A data file of any content under an end that may not suit it."""
    words = [
        "text",
        "label",
        "id",
        '"',
        ",",
        "\n",
        "\r\n",
        "\t",
        ";",
        "{",
        "}",
        "[",
        "]",
        ":",
        "null",
        "1",
        "-0.5",
        "é",
        "\0",
        "\\",
        "a",
        " ",
    ]
    kind = choose.choice(["bytes", "words", "rows", "parquet", "empty", "folder"])
    path = (
        folder
        / f"data{choose.choice(['.csv', '.tsv', '.jsonl', '.json', '.parquet', '.txt', '.csv.gz', '.conll', ''])}"
    )
    if kind == "folder":
        path.mkdir()
    elif kind == "parquet":
        columns = choose.sample(["text", "label", "id", "x"], k=choose.randint(1, 4))
        values: list[list[Any]] = [
            [1, 2, None],
            ["a", "b", None],
            [[1], [], None],
            [{"k": 1}, None, {"k": 2}],
            [b"\xff", b"", None],
        ]
        pq.write_table(pa.table({column: choose.choice(values) for column in columns}), path)
    elif kind == "bytes":
        path.write_bytes(choose.randbytes(choose.randint(0, 300)))
    elif kind == "rows":
        rows = "\n".join(
            ",".join(choose.choice(words) for _ in range(choose.randint(1, 3))) for _ in range(20)
        )
        path.write_bytes(f"text,label\n{rows}".encode())
    else:
        path.write_bytes("".join(choose.choices(words, k=0 if kind == "empty" else 200)).encode())
    return path


def test_any_data_file_is_read_or_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = int(os.environ.get("RAYCLEAN_FUZZ_SEED", "0"))  # another one draws other inputs
    print(f"seed {seed}")
    choose, config, codes = random.Random(seed), tmp_path / "config.json", []
    for number in range(FILES):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = random_file(choose, folder)
        dataset = {
            "path": str(path),
            **choose.choice([{}, {"id": "id"}, {"unlabelled": ["", -1]}, {"test": {"share": 0.5}}]),
        }
        values = {
            "name": f"run{number}",
            "output": str(tmp_path / "runs"),
            "dataset": dataset,
            "cluster": {"ray": False},
        }
        config.write_text(json.dumps(values))
        ended = run_command("load", str(config), capsys=capsys, monkeypatch=monkeypatch)
        codes.append(ended.code)
        assert ended.code in (0, 1, 2)
        assert "Traceback" not in ended.stderr
        assert "internal error" not in ended.stderr, (seed, number, path, ended.stderr)
    assert 2 in codes


ARGUMENTS = [
    "clean",
    "status",
    "config",
    "load",
    "--again",
    "--help",
    "no.toml",
    "runs",
    "a=b",
    "=",
    "--answers",
    "",
    "[/x]",
    "\udcff",
    "detect.budget=",
    "-1",
    "options",
    "annotator.knn",
]


def test_any_command_line_is_run_or_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = int(os.environ.get("RAYCLEAN_FUZZ_SEED", "0"))  # another one draws other inputs
    print(f"seed {seed}")
    choose = random.Random(seed)
    monkeypatch.chdir(tmp_path)
    for _ in range(80):
        line = choose.choices(ARGUMENTS, k=choose.randint(1, 4))
        ended = run_command(*line, capsys=capsys, monkeypatch=monkeypatch)
        assert ended.code in (0, 1, 2), (seed, line)
        assert "Traceback" not in ended.stderr, (seed, line)
        assert "internal error" not in ended.stderr, (seed, line, ended.stderr)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "line", [("options", "\udcff", "\udcff"), ("clean", "\udcff"), ("status", "a=\udcff")]
)
def test_arguments_that_are_no_text_are_refused_in_words(
    line: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = run_command(*line, capsys=capsys, monkeypatch=monkeypatch)
    assert ended.code == 2
    assert "internal error" not in ended.stderr
    assert "\\udcff" in ended.stderr


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{"),
        ("config.json", '{"dataset": 3}'),
        ("load/manifest.json", "[1]"),
        ("load/manifest.json", '{"verb": "load"'),
        ("load/examples/part-00000.parquet", "PAR1"),
        ("load/examples", None),
    ],
)
def test_a_run_folder_that_was_changed_by_hand_is_refused_in_words(
    file: str, content: str | None, tmp_path: Path
) -> None:
    values = toy.config(toy.write(tmp_path / "data", rows=40), tmp_path / "runs")
    values["cluster"] = {"ray": False}
    run = rayclean.load(parse_config(values))
    path = Path(run.path()) / file
    if content is None:
        for part in path.iterdir():
            part.unlink()
    else:
        path.write_text(content)
    with pytest.raises(RaycleanError, match=str(tmp_path)):
        rayclean.predict(rayclean.pipeline.resolved_config(run.path()))


def test_values_of_a_config_that_only_a_run_would_refuse_are_refused_before(tmp_path: Path) -> None:
    values = toy.config(toy.write(tmp_path / "data", rows=40), tmp_path / "runs")
    for override in ["seed=-1", f"seed={2**70}", 'output="a\\u0000b"', 'output="\ud800"']:
        with pytest.raises(RaycleanError):
            validate_verbs(parse_config(values, [override]))
