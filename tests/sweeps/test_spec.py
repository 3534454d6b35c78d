"""What a sweep file may say, and what it is told where it says something else."""

import json
from pathlib import Path
from typing import Any

import pytest

from rayclean import pipeline
from rayclean.config import parse_config
from rayclean.errors import ConfigError
from rayclean.evaluation.run_figures import TRUTH_FIGURES
from rayclean.fingerprints import fingerprint
from rayclean.overrides import put_over
from rayclean.run import Run
from rayclean.sweeps.plan import base_values, make_plan
from rayclean.sweeps.space import points
from rayclean.sweeps.spec import OBJECTIVES, Sweep
from rayclean.sweeps.sweep_file import load_sweep, sweep_files
from rayclean.verb_fingerprints import config_identity
from tests.sweeps.bases import base

CONFIGS = Path(__file__).parent.parent.parent / "configs" / "sweeps"
GRID = {"detect.budget": {"grid": [0.1, 0.2]}}
DRAWN = {"detect.budget": {"uniform": [0.1, 0.2]}}
CHOSEN = {"detect.budget": {"choice": [0.1, 0.2]}}


def write(folder: Path, **values: Any) -> Path:
    path = folder / "sweep.json"
    path.write_text(json.dumps({"name": "s", "base": "base.json", "space": GRID, **values}))
    return path


def load_sweeps(*command: str) -> list[Sweep]:
    """The sweeps of a command: a file and what follows it."""
    return [load_sweep(*each) for each in sweep_files(command[0], list(command[1:]))]


def toml(folder: Path, text: str) -> Sweep:
    path = folder / "sweep.toml"
    path.write_text('name = "s"\nbase = "base.json"\n' + text)
    return load_sweep(path)


def test_several_sweeps_run_one_after_another(tmp_path: Path) -> None:
    """What a shell makes of `*.json`; other overrides go to each."""
    files = []
    for name in ("a", "b"):
        base(tmp_path)
        files.append(write(tmp_path, name=name).rename(tmp_path / f"{name}-sweep.json"))
    first, second = map(str, files)
    found = load_sweeps(first, second, "relabel.accept=0.7", "seeds=[5]")
    assert [(of.name, of.set, of.seeds) for of in found] == [
        ("a", {"relabel.accept": 0.7}, (5,)),
        ("b", {"relabel.accept": 0.7}, (5,)),
    ]
    cluster = tmp_path / "cluster.json"
    cluster.write_text(json.dumps({"cluster": {"workers": 2}}))
    (only,) = load_sweeps(first, str(cluster))
    assert (only.name, only.set) == ("a", {"cluster.workers": 2})
    with pytest.raises(ConfigError, match=r"b-sweep\.json is a sweep file.*one sweep at a time"):
        load_sweeps(first, second, str(cluster))
    with pytest.raises(ConfigError, match="one sweep at a time"):
        load_sweep(first, [second])


@pytest.mark.parametrize(
    ("values", "fragments"),
    [
        ({"objectives": "accuracy"}, ["'accuracy' cannot decide", "test set", "did you mean dev_accuracy"]),
        ({"objectives": [{"metric": "noise_final", "mode": "min"}]}, ["of the truth", "never chosen by"]),
        ({"objectives": [{"metric": "tokens", "mod": "max"}]}, ["'objectives.0.mod'", "did you mean mode"]),
        ({"objectives": [{"metric": "tokens", "mode": "least"}]}, ["objectives.0.mode", "'max' or 'min'"]),
        ({"space": {"a.b": {"grid": [1], "uniform": [0, 1]}}}, ["a.b", "exactly one of", "grid", "uniform"]),
        ({"space": {"a.b": {"when": {}}}}, ["a.b", "exactly one of", "got none"]),
        ({"space": {"a.b": {}, **GRID}}, ["a.b", "exactly one of"]),
        ({"space": {"a.b": [0.1, 0.2]}}, ["a.b", "grid = [...]", "got [0.1, 0.2]"]),
        ({"space": {"a.b": {"grid": []}}}, ["space.a.b.grid", "at least 1"]),
        ({"space": {"a.b": {"grid": [1], "whn": {}}}}, ["whn", "did you mean when"]),
        ({"space": {"a.b": {"uniform": [2, 1]}}}, ["a.b", "low < high", "[2.0, 1.0]"]),
        ({"space": {"a.b": {"integer": [1, 1]}}}, ["integer", "low < high"]),
        ({"space": {"a.b": {"integer": [1, 2.5]}}}, ["integer", "2.5"]),
        ({"space": {"a.b": {"log_uniform": [0, 1]}}}, ["log_uniform needs positive bounds"]),
        ({"space": {}}, ["space", "at least 1"]),
        ({"space": {"seed": {"grid": [1, 2]}}}, ["from `seeds`", "not in [set] or [space]"]),
        ({"set": {"seed": 3}}, ["from `seeds`"]),
        ({"space": {"cluster.workers": {"grid": [1, 2]}}}, ["changes no result", "[set]"]),
        ({"space": {"evaluate.compare": {"grid": [True, False]}}}, ["changes no result", "[set]"]),
        ({"set": {"detect.budget": 0.3}}, ["detect.budget", "both in [set] and in [space]"]),
        ({"set": {"detect.budget": 0.3}, "space": {"detect": {"grid": [{}]}}}, ["replaces", "detect.budget"]),
        ({"space": {"a.b": {"grid": [1]}, "a": {"grid": [{}]}}}, ["a replaces ['a.b']"]),
        ({"space": {"a.b": {"grid": [1], "when": {"a.c": 1}}}}, ["a.b", "`when` names ['a.c']", "swept"]),
        ({"space": {"a.b": {"grid": [1], "when": {"a.b": 1}}}}, ["`when` names ['a.b']", "other"]),
        (
            {"space": {**GRID, "a.b": {"grid": [1], "when": {"detect.budget": 0.3}}}},
            ["a.b", "detect.budget = [0.3]", "[0.1, 0.2]"],
        ),
        (
            {"space": {**CHOSEN, "a.b": {"grid": [1], "when": {"detect.budget": [0.1, 7]}}}},
            ["detect.budget = [7]", "[0.1, 0.2]"],
        ),
        ({"set": {"detect": {"budget": 0.3}}}, ['"detect.budget" = 0.3', "in quotes"]),
        ({"set": {"annotator": {"server": {"cpus": 2}}}}, ['"annotator.server.cpus" = 2', "in quotes"]),
        ({"space": {"method": {"lambda_": {"grid": [1]}}}}, ['"method.lambda_" = {', "in quotes"]),
        ({"seeds": [0, 1, 0]}, ["each seed once", "[0, 1, 0]"]),
        ({"seeds": []}, ["seeds", "at least 1"]),
        ({"samples": 2}, ["samples", "use `seeds`"]),
        ({"search": "optuna"}, ["needs `objectives`"]),
        ({"search": "optuna", "objectives": "tokens"}, ["`choice` instead of `grid`"]),
        ({"scheduler": {"name": "asha"}}, ["dev_accuracy or dev_loss as first objective"]),
        ({"scheduler": {"plateau": 2}, "objectives": ["tokens", "dev_loss"]}, ["first objective"]),
        (
            {"space": CHOSEN, "search": "optuna", "objectives": "dev_loss", "scheduler": {"name": "median"}},
            ["one seed, or no scheduler"],
        ),
        (
            {"space": {"dataset.noise.rate": {"uniform": [0.1, 0.4]}}, "objectives": "dev_loss"},
            ["dataset.noise.rate", "easier or harder", "use `grid`"],
        ),
        (
            {
                "space": {"dataset.noise.rate": {"grid": [0.1, 0.4]}},
                "objectives": "dev_loss",
                "scheduler": {"name": "asha"},
            },
            ["dataset.noise.rate", "the hard ones would be stopped"],
        ),
        ({"scheduler": {"name": "hyperband"}}, ["scheduler.name", "'asha'"]),
        ({"sede": [1]}, ["unknown key 'sede'", "did you mean seeds"]),
        ({"trials": {"concurent": 1}}, ["'trials.concurent'", "did you mean concurrent"]),
        ({"tracking": {"wandb": "yes"}}, ["tracking.wandb", "'offline'"]),
        ({"name": "../evil"}, ["name"]),
    ],
)
def test_wrong_files_are_refused_with_help(
    tmp_path: Path, values: dict[str, Any], fragments: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        load_sweep(write(tmp_path, **values))
    assert "sweep.json" in str(error.value) or "[set]" in str(error.value)
    for fragment in fragments:
        assert fragment in str(error.value)


def test_an_unknown_objective_is_one_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_sweep(write(tmp_path, objectives="accuracy"))
    assert len(str(error.value).splitlines()) == 1


def test_nothing_that_decides_is_measured_on_the_truth() -> None:
    assert not set(OBJECTIVES) & set(TRUTH_FIGURES)


def test_objectives_by_name_know_which_way_is_better(tmp_path: Path) -> None:
    (one,) = load_sweep(write(tmp_path, objectives="dev_accuracy")).objectives
    assert (one.metric, one.mode) == ("dev_accuracy", "max")
    two, three = load_sweep(
        write(tmp_path, objectives=["tokens", {"metric": "changed", "mode": "max"}])
    ).objectives
    assert (two.mode, three.mode) == ("min", "max")
    (four,) = load_sweep(write(tmp_path, objectives={"metric": "dev_loss"})).objectives
    assert four.mode == "min"


@pytest.mark.parametrize(
    "values",
    [
        {"space": DRAWN, "samples": 5},
        {"space": CHOSEN, "search": "optuna", "objectives": "tokens", "samples": 5},
        {"scheduler": {"name": "asha"}, "objectives": ["dev_loss", "tokens"]},
        {"space": {"detect": {"grid": [{}]}, "detect.budget": {"grid": [0.1]}}},
        {"set": {"annotator": {"name": "knn"}, "dataset.words": {"a": "b"}}},
    ],
)
def test_what_looks_alike_and_can_be(tmp_path: Path, values: dict[str, Any]) -> None:
    load_sweep(write(tmp_path, **values))


@pytest.mark.parametrize(
    ("line", "quoted"),
    [
        ("[space]\nmethod.lambda_ = { grid = [0.1] }", '"method.lambda_" = { ... }'),
        ("[space.dataset.noise.rate]\ngrid = [0.1]", '"dataset.noise.rate" = { ... }'),
        ("[set]\ntrain.labels = 'given'", "\"train.labels\" = 'given'"),
        ("[set.dataset.noise]\nrate = 0.4", '"dataset.noise.rate" = 0.4'),
    ],
)
def test_paths_need_quotes(tmp_path: Path, line: str, quoted: str) -> None:
    """Without them TOML reads a table in a table, which would replace all of the base's section."""
    with pytest.raises(ConfigError) as error:
        toml(tmp_path, line + "\n")
    assert quoted in str(error.value)


def test_values_in_set_leave_the_rest_of_their_sections(tmp_path: Path) -> None:
    given = {
        "train": {"epochs": 3, "batch_size": 8},
        "dataset": {"path": "x", "noise": None, "words": {"a": "b"}},
    }
    (tmp_path / "base.json").write_text(json.dumps(given))
    found = toml(
        tmp_path,
        '[set]\n"train.labels" = "given"\n"dataset.noise.rate" = 0.4\n"dataset.words" = { c = "d" }\n'
        'method = { name = "lane", mu = 0.0 }\n[space]\n"detect.budget" = { grid = [0.1] }\n',
    )
    values = base_values(found)
    assert values["train"] == {"epochs": 3, "batch_size": 8, "labels": "given"}
    assert values["dataset"] == {"path": "x", "noise": {"rate": 0.4}, "words": {"c": "d"}}
    assert values["method"] == {"name": "lane", "mu": 0.0}
    over = load_sweep(tmp_path / "sweep.toml", ["train.labels=final"])
    assert base_values(over)["train"] == {"epochs": 3, "batch_size": 8, "labels": "final"}
    assert over.overrides == {"train.labels": "final"}
    with pytest.raises(ConfigError, match=r'"train\.epochs" = 9'):
        load_sweep(tmp_path / "sweep.toml", ["train={epochs = 9}"])


def test_base_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base(tmp_path)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    found = load_sweep(write(tmp_path / "sub", base="../base.json"))
    assert base_values(found)["name"] == "toy"
    assert load_sweep(write(tmp_path, base="/else/where.json")).base == "/else/where.json"


def test_overrides_go_to_the_sweep_or_to_the_base(tmp_path: Path) -> None:
    base(tmp_path)
    path = write(tmp_path, set={"dataset.path": "x", "train.labels": "given"})
    overrides = [
        "seeds=[0]", "trials.concurrent=2", "output=elsewhere", "dataset.path=other", "cluster.cpus=2",
        "annotator={name='knn', neighbours=3}",
    ]  # fmt: skip
    found = load_sweep(path, overrides)
    assert found.seeds == (0,)
    assert found.trials.concurrent == 2
    assert found.output == "elsewhere"
    assert found.set == {
        "dataset.path": "other",
        "train.labels": "given",
        "cluster.cpus": 2,
        "annotator": {"name": "knn", "neighbours": 3},
    }
    values = base_values(found)
    assert values["dataset"]["path"] == "other"
    assert values["dataset"]["id"] == "key"
    assert values["cluster"] == {"cpus": 2}
    assert values["output"] == str(tmp_path / "runs")


@pytest.mark.parametrize(
    ("override", "fragment"),
    [
        ("detect.budget=0.3", "both in [set] and in [space]"),
        ("seed=0", "from `seeds`"),
        ("sedes=[0]", "did you mean seeds"),
        ("seeds", "section.key=value"),
        ("trials.concurrent=0", "trials.concurrent"),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, fragment: str) -> None:
    base(tmp_path)
    with pytest.raises(ConfigError) as error:
        make_plan(load_sweep(write(tmp_path), [override]))
    assert fragment in str(error.value)


def test_unreadable_files(tmp_path: Path) -> None:
    path = tmp_path / "bare.toml"
    path.write_text('name = "s"\n[space]\n"detect.budget" = { grid = [0.1] }\n')
    with pytest.raises(ConfigError, match="'base' is required"):
        load_sweep(path)
    with pytest.raises(ConfigError, match="cannot read"):
        load_sweep(tmp_path / "none.toml")


SHIPPED = {"annotator_budget": 15, "demonstrations": 7, "lambda": 10, "lane": 6, "noise": 21, "thresholds": 5}
"""Points of each, under three seeds: 5 x 3; 1 + 3 x 2; 5 x 2; 6; (1 + 3 x 2) x 3; 2 + 2 + 1."""


@pytest.mark.parametrize("name", SHIPPED)
def test_every_point_of_a_shipped_sweep_is_a_config_that_gives_other_results(
    name: str, tmp_path: Path
) -> None:
    found = load_sweep(CONFIGS / f"{name}.toml")
    values, of = base_values(found), points(found)
    configs = [parse_config(put_over(values, point), where=str(point)) for point in of]
    for config in configs:
        pipeline.validate_verbs(config, ("train",), Run(str(tmp_path)))
    assert len({fingerprint(config_identity(config)) for config in configs}) == len(of) == SHIPPED[name]
    assert found.seeds == (0, 1, 2)


def test_every_shipped_sweep_is_looked_at() -> None:
    assert {path.stem for path in CONFIGS.iterdir()} == SHIPPED.keys()
