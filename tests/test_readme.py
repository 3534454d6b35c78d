"""The blocks of the documentation: TOML is a valid config, commands are valid command lines, the example method works."""

import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import typer

import rayclean
from rayclean import api
from rayclean.cli.main import command_line
from rayclean.config import Config, Plugin, parse_config
from rayclean.folder import Folder
from rayclean.methods.base import Method
from rayclean.methods.batch import Output, StepBatch
from rayclean.models.loading import build_encoder
from rayclean.schema import Label, LabelSet
from rayclean.sweeps.sweep_file import load_sweep
from rayclean.tasks import TASKS
from rayclean.training.job_outputs import save_network
from tests import toy
from tests.exports.runs import QUICK
from tests.models.tiny import write

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(*languages: str) -> list[Any]:
    """The blocks of some languages, each with the page and line where it stands."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            if match[1] in languages:
                line = text[: match.start()].count("\n") + 1
                found.append(pytest.param(match[2], id=f"{page.name}:{line}"))
    return found


def commands() -> Iterator[Any]:
    for block in blocks("bash"):
        for line in block.values[0].splitlines():
            if line.startswith("rayclean "):
                yield pytest.param(shlex.split(line, comments=True)[1:], id=f"{block.id} {line[:50].strip()}")


@pytest.mark.parametrize("block", blocks("toml"))
def test_toml_is_a_config(block: str, tmp_path: Path) -> None:
    values = tomllib.loads(block)
    if "project" in values:  # of a package with plug-ins
        assert all(group.startswith("rayclean.") for group in values["project"]["entry-points"])
        return
    if "base" in values:
        path = tmp_path / "sweep.toml"
        base = (ROOT / "configs" / "sweeps" / values["base"]).resolve()
        path.write_text(block.replace(values["base"], str(base)))
        assert load_sweep(path, ["dataset.path=train.parquet", "dataset.test.path=test.parquet"]).name
        return
    values.setdefault("dataset", {"path": "data.csv"})
    parse_config(values)


@pytest.mark.parametrize("arguments", commands())
def test_commands_are_parsed(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    name, *rest = arguments
    command: Any = typer.main.get_command(command_line)
    context = command.commands[name].make_context(name, rest)
    if name not in ("sweep", "sweep-report"):
        parse_config({"dataset": {"path": "data.csv"}}, context.params.get("overrides") or [])


def test_the_example_of_what_is_shown_is_as_the_table_says() -> None:
    namespace: dict[str, Any] = {}
    example = next(block.values[0] for block in blocks("python") if "Measures(" in block.values[0])
    exec(compile(example, "docs/extending.md", "exec"), namespace)
    shown = namespace["shown"]
    assert shown.columns == ("clean_posterior", "part")
    assert shown.figures["mean_posterior"].written(0.5) == "50.0 %"


def test_the_example_method_is_cross_entropy_for_a_beta_of_one() -> None:
    namespace: dict[str, Any] = {"__name__": "bootstrapping"}
    example = next(block.values[0] for block in blocks("python") if "Method" in block.values[0])
    exec(compile(example, "docs/extending.md", "exec"), namespace)
    cls = namespace["SoftBootstrapping"]
    torch.manual_seed(0)
    labels = torch.tensor([0, 2, 1, 0])
    batch = StepBatch(
        global_id=np.array([5, 6, 7, -1]), given_label=labels, valid=torch.tensor([True, True, True, False]),
        world_size=1, global_count=3, total=lambda count: count,
    )  # fmt: skip
    outputs = {"main": Output(torch.zeros(4, 2), torch.randn(4, 3))}
    (plain,) = Method(Method.Config(), 3).loss(outputs, batch, {}, 1).values()
    (same,) = cls(cls.Config(beta=1.0), 3).loss(outputs, batch, {}, 1).values()
    (softer,) = cls(cls.Config(), 3).loss(outputs, batch, {}, 1).values()
    torch.testing.assert_close(same, plain)
    assert softer != plain


def python_pages() -> list[Any]:
    """Pages whose Python blocks a newcomer types one after another."""
    pages = [ROOT / "README.md", ROOT / "docs" / "index.md", ROOT / "docs" / "python.md"]
    return [pytest.param(page, id=page.name) for page in pages]


def run_python(page: Path) -> dict[str, Any]:
    """Run the Python blocks of a page one after another; returns what they have defined."""
    names: dict[str, Any] = {"__name__": "block"}
    for match in BLOCK.finditer(page.read_text()):
        if match[1] == "python":
            exec(compile(match[2], page.name, "exec"), names)
    return names


@pytest.mark.parametrize("page", python_pages())
def test_python_runs_as_it_stands(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a small table, with a small encoder in the place of the default one."""
    table = pq.read_table(toy.write(tmp_path / "toy", rows=150)).rename_columns(
        ["ticket_id", "body", "category", "truth"]
    )
    table.drop_columns("truth").to_pandas().to_csv(tmp_path / "tickets.csv", index=False)
    (tmp_path / "tickets.toml").write_text(
        'dataset = { path = "tickets.csv", text = "body", label = "category" }\nencoder.name = "bag_of_words"\n'
        "predict.folds = 2\ntrain.epochs = 1\nevaluate.compare = false\ncluster.ray = false\n"
    )
    monkeypatch.chdir(tmp_path)
    plain = api.as_config

    def quick(data: Any, **given: Any) -> Config:
        return plain(data, **given) if isinstance(data, Config) else plain(data, **{**QUICK, **given})

    monkeypatch.setattr(api, "as_config", quick)
    names = run_python(page)
    assert len(names["run"].suspects()) > 0


def test_python_of_the_page_on_histories_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a run that has detected: a story tells what has happened so far."""
    table = pq.read_table(toy.write(tmp_path / "toy", rows=60)).to_pandas().drop(columns="truth")
    monkeypatch.chdir(tmp_path)
    api.find_label_errors(
        table.assign(key=["T-1017", *table["key"][1:]]),
        text="text",
        label="label",
        id="key",
        name="tickets",
        **QUICK,
    )
    story = run_python(ROOT / "docs" / "history.md")["story"]
    assert {"loaded", "given", "predicted"} <= {event.kind for event in story.events}


def test_python_of_the_page_on_publishing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a network that has learnt nothing, saved as `train` saves it."""
    plugin = Plugin(name="transformer", model=write(tmp_path / "bert"), max_length=32)
    network = build_encoder(plugin, 2, seed=0).eval()
    task = TASKS.build(Plugin(name="classification"), LabelSet([Label(0, "a", "a"), Label(1, "b", "b")]))
    save_network(
        network, Folder(str(tmp_path / "runs/tickets/train")), "model", ("a", "b"), task, standalone=True
    )
    monkeypatch.chdir(tmp_path)
    run_python(ROOT / "docs" / "publishing.md")
    assert "'label': 'a'" in capsys.readouterr().out


def test_the_page_of_the_api_has_every_public_name() -> None:
    found: set[tuple[str, str]] = set()
    for module, members in re.findall(
        r"^::: (\S+)(?:\n +options:\n +members: \[(.*)\])?", (ROOT / "docs/api.md").read_text(), re.MULTILINE
    ):
        head, _, name = module.rpartition(".")
        found |= {(module, each) for each in members.split(", ")} if members else {(head, name)}
        found |= {("rayclean.errors", "RaycleanError")} if module == "rayclean.errors" else set()
    public = {(module, name) for name, module in rayclean._LAZY.items()}
    assert public - found == set()
    for module, name in found:
        assert hasattr(importlib.import_module(module), name) or importlib.import_module(f"{module}.{name}")
