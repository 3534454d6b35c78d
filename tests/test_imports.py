"""The direction of imports, and what `import rayclean` may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rayclean

PACKAGE = Path(rayclean.__file__).parent

# Who may import whom, inside rayclean. The frame (schema, errors, plugins, config, overrides, context, artifacts, cache, progress)
# is below all.
FRAME = {
    "schema",
    "annotations",
    "errors",
    "plugins",
    "config",
    "overrides",
    "scoped",
    "folder",
    "fingerprints",
    "hashing",
    "run",
    "cache",
    "progress",
}
ALLOWED = {
    "functional": {"functional", "hashing", "schema", "errors"},
    "tasks": FRAME | {"tasks", "functional"},
    "datasets": FRAME | {"datasets", "functional"},
    "models": FRAME | {"models", "functional"},
    "detectors": FRAME | {"detectors", "functional"},
    "methods": FRAME | {"methods", "functional"},
    "annotators": FRAME | {"annotators", "functional"},
    "training": FRAME | {"training", "methods", "models", "datasets", "functional"},
    "evaluation": FRAME | {"evaluation", "tasks", "functional"},
    "runtime": FRAME
    | {
        "runtime",
        "training",
        "methods",
        "models",
        "detectors",
        "annotators",
        "tasks",
        "datasets",
        "functional",
    },
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """All modules that a file imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "rayclean"}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    package = path.relative_to(PACKAGE).parts[0]
    for name in imported(path):
        if name.split(".")[0] == "ray":
            assert package == "runtime", f"{path.name} imports {name}: only runtime/ may import ray"
        if package in ALLOWED and name.startswith("rayclean."):
            target = name.split(".")[1]
            assert target in ALLOWED[package], f"{package}/{path.name} must not import rayclean.{target}"


def test_only_evaluate_and_load_name_the_truth() -> None:
    """`truth/` is written by load and opened by evaluate; the simulated annotator gets it only from experiments."""
    allowed = {"verbs/load.py", "verbs/evaluate.py", "annotators/simulated.py", "schema.py", "config.py"}
    for path in modules():
        relative = str(path.relative_to(PACKAGE))
        strings = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)]
        names_truth = any(s in ("truth", "true_label") for s in strings if isinstance(s, str))
        if names_truth and not relative.startswith(("evaluation/", "datasets/")):
            assert relative in allowed, f"{relative} names the truth"


def test_import_loads_neither_torch_nor_ray() -> None:
    code = "import sys, rayclean, rayclean.cli.main; print([m for m in ('torch', 'ray', 'pyarrow') if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_help_lists_the_verbs() -> None:
    command = [sys.executable, "-m", "rayclean", "--help"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for verb in (
        "clean",
        "load",
        "predict",
        "detect",
        "relabel",
        "train",
        "evaluate",
        "config",
        "status",
        "revert",
        "sweep",
        "sweep-report",
        "submit",
        "logs",
    ):
        assert verb in output
