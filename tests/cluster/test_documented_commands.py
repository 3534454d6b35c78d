"""Every command that a page, a config or a rendered file shows fits the cluster that its own file makes.

With the command's own config where the repository, or the file itself, holds it; else with configs that want much.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from rayclean.config import Config, parse_config
from rayclean.overrides import put_over, read_values
from rayclean.runtime import nodes, preflight
from rayclean.runtime.trial_slots import trial_slots
from rayclean.sweeps.plan import base_values, needs_training
from rayclean.sweeps.space import points
from rayclean.sweeps.spec import Trials
from rayclean.sweeps.sweep_file import load_sweep
from tests.runtime.test_preflight import ALL, FILES, ROOT, check, config, pretend

KUBERAY = ROOT / "cluster" / "kuberay"
COMMAND = re.compile(
    r"(rayclean|sbatch cluster/slurm\.sh) +(submit|clean|sweep|estimate) +([^\n`]*?\.toml[^\n`#]*)"
)
SIZES = {file.stem: file for file in FILES}
MACHINES = {"laptop": (4, 0), "one-gpu": (8, 1), "one-gpu-shared": (8, 1)}
"""CPUs and GPUs of the one machine that a size is for."""


@dataclass(frozen=True)
class Command:
    """A command as it is shown."""

    page: str
    program: str
    verb: str
    file: str
    size: str
    overrides: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page} {self.verb} {self.file} {self.size}".strip()

    @property
    def place(self) -> str:
        """The file that makes the cluster it runs on; a size if it is one machine."""
        if self.program != "rayclean":
            return "slurm.sh"
        if self.page.startswith("cluster/kuberay/rayjob"):
            return self.page.removeprefix("cluster/")
        return self.size or "laptop"


def parse(page: str, program: str, verb: str, arguments: str) -> Iterator[Command]:
    """The command, if its size or its config is known."""
    words = arguments.split()
    if "--verb" in words:
        verb = words[words.index("--verb") + 1]
    file, *others = [word for word in words if word.endswith(".toml") and "=" not in word]
    size = next((Path(other).stem for other in others if "configs/cluster/" in other), "")
    overrides = tuple(word for word in words if "=" in word and not word.startswith("-"))
    if size or (ROOT / file).is_file():
        yield Command(page, program, verb, file, size, overrides)


def documented() -> list[Command]:
    """Every command of pages, configs and rendered files that can be looked at."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "cluster" / "README.md"]
    pages += [*KUBERAY.glob("*.yaml"), ROOT / "cluster" / "slurm.sh", *(ROOT / "configs").rglob("*.toml")]
    found = {
        command
        for page in pages
        for match in COMMAND.finditer(page.read_text())
        for command in parse(page.relative_to(ROOT).as_posix(), *match.groups())
    }
    return sorted(found, key=str)


@cache
def spec_of(place: str) -> tuple[str, float]:
    """What a rendered file makes: the nodes that its autoscaler may add, as it declares them, and the CPUs at the start."""
    text = (ROOT / "cluster" / place).read_text()
    if place == "slurm.sh":
        count, cpus, gpus = (
            int(re.search(rf"^#SBATCH --{option}=(\d+)$", text, re.MULTILINE)[1])  # type: ignore[index]
            for option in ("nodes", "cpus-per-task", "gpus-per-node")
        )
        return f"{count}xCPU:{cpus}+GPU:{gpus}", count * cpus
    if place in ("aws.yaml", "gcp.yaml"):
        values = yaml.safe_load(text)
        (declared,) = re.findall(rf"--env={nodes.DECLARED}=(\S+)", text)
        kinds = values["available_node_types"].values()
        # On AWS, Ray knows the CPUs of a kind of machine by itself.
        cpus = sum(kind.get("min_workers", 0) * kind.get("resources", {}).get("CPU", 1) for kind in kinds)
        return declared, float(cpus)
    (document,) = (each for each in yaml.safe_load_all(text) if each["kind"] in ("RayCluster", "RayJob"))
    spec: Any = document["spec"].get("rayClusterSpec", document["spec"])
    head, workers = spec["headGroupSpec"], spec["workerGroupSpecs"]
    containers = [group["template"]["spec"]["containers"][0] for group in (head, *workers)]
    (declared,) = {e["value"] for each in containers for e in each["env"] if e["name"] == nodes.DECLARED}
    start = zip(workers, containers[1:], strict=True)
    cpus = sum(group["minReplicas"] * float(each["resources"]["limits"]["cpu"]) for group, each in start)
    return declared, float(head["rayStartParams"]["num-cpus"]) + cpus


def places(command: Command) -> list[str]:
    """Where it runs; one that is submitted may run on any of our clusters that stay."""
    submitted = command.program == "rayclean" and command.place not in MACHINES and "/" not in command.place
    return ["kuberay/raycluster.yaml", "aws.yaml", "gcp.yaml"] if submitted else [command.place]


def file_of(command: Command, folder: Path) -> Path | None:
    """The command's config or sweep: of the repository, or of the map that a RayJob mounts; None: the user's own."""
    if not command.file.startswith("/etc/rayclean/"):
        return ROOT / command.file if (ROOT / command.file).is_file() else None
    (mounted,) = (
        each["data"]
        for each in yaml.safe_load_all((ROOT / command.page).read_text())
        if each["kind"] == "ConfigMap"
    )
    for name, text in mounted.items():
        (folder / name).write_text(text)
    return folder / Path(command.file).name


def overrides_of(command: Command) -> list[str]:
    return [*([str(SIZES[command.size])] if command.size else []), *command.overrides]


def check_sweep(command: Command, file: Path | None) -> None:
    """Preflight of a sweep whose trials share their predictions, as `sweep` does it before anything runs."""
    configs, trials, trains = asking(command), Trials(), True
    if file is not None:
        sweep = load_sweep(file, overrides_of(command))
        configs = [parse_config(put_over(base_values(sweep), point)) for point in points(sweep)]
        trials, trains = sweep.trials, needs_training(sweep)
    models = preflight.preflight_sweep(configs, trains=trains)
    trial_slots(
        configs[0].cluster, trains=trains, concurrent=trials.concurrent, cpus=trials.cpus, trials=len(configs),
        beside=models, small=preflight.trains_small(configs),
    )  # fmt: skip


def asking(command: Command) -> list[Config]:
    """Configs of a user that want much: with a model of its own, and one that is asked while networks train."""
    methods = (
        ("cross_entropy",) if command.size == "one-gpu" else ("cross_entropy", "noiseal")
    )  # as one-gpu.toml says
    return [config(*overrides_of(command), method=method) for method in methods]


@pytest.mark.parametrize(
    ("command", "place"),
    [pytest.param(c, place, id=f"{c} on {place}") for c in documented() for place in places(c)],
)
def test_documented_commands_fit_the_cluster_of_their_own_file(
    command: Command, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(nodes.DECLARED, raising=False)
    if place in MACHINES:
        cpus, gpus = MACHINES[place]
        told = re.search(r"add cluster\.cpus=(\d+)", (ROOT / command.page).read_text())
        pretend(monkeypatch, max(cpus, int(told[1]) if told else 0), gpus)
    else:
        declared, cpus = spec_of(place)
        pretend(monkeypatch, cpus)
        monkeypatch.setenv(nodes.DECLARED, declared)
    file = file_of(command, tmp_path)
    if command.verb == "sweep":
        check_sweep(command, file)
        return
    own = [] if file is None else [parse_config(read_values(file), overrides_of(command))]
    for each in own or asking(command):
        check(each, ALL)


def test_all_documented_commands_are_found() -> None:
    found = documented()
    assert {command.size for command in found} == {"", *SIZES}
    assert {command.verb for command in found} == {"clean", "submit", "sweep", "estimate"}
    assert {place for command in found for place in places(command)} == {
        "aws.yaml", "gcp.yaml", "slurm.sh", *(f"kuberay/{name}.yaml" for name in ("raycluster", "rayjob-clean", "rayjob-sweep")),
        *MACHINES,
    }  # fmt: skip
    shown = {command.file for command in found}
    for file in (*(ROOT / "configs" / "sweeps").glob("*.toml"), *(ROOT / "configs" / "trec6").glob("*.toml")):
        assert file.relative_to(ROOT).as_posix() in shown
    assert any("/etc/rayclean/sweep.toml" in each for each in shown)


@pytest.mark.parametrize("place", ["kuberay/rayjob-sweep.yaml", "aws.yaml", "gcp.yaml", "slurm.sh"])
def test_each_file_says_what_it_makes(place: str) -> None:
    declared, cpus = spec_of(place)
    assert declared == ("3xCPU:16+GPU:1" if place == "slurm.sh" else "8xCPU:8,8xCPU:8+GPU:1")
    assert cpus == {"slurm.sh": 48, "aws.yaml": 1}.get(place, 8)
