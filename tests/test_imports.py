"""The direction of imports, the packages that are declared, who opens the truth, and what `import rayclean` loads."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from rayclean.folder import Folder
from tests.modules import MODULES, PACKAGE, constants, nodes_of, parsed, relative

FRAME = {
    "annotations", "cache", "class_names", "config", "errors", "faults", "fingerprints", "folder", "hashing", "interrupts", "measures",
    "origins", "overrides",
    "plain_values", "plugins", "progress", "run", "schema", "scoped",
}  # fmt: skip
"""Small modules without maths that any package may import."""
BESIDE = {"annotators", "datasets", "detectors", "experts", "models", "tasks"}
"""Packages beside each other: they import the frame, `functional` and the interface of a task; none imports
another.
"""
TRAINING = FRAME | BESIDE | {"functional", "methods", "training"}
VERBS = TRAINING | {"audits", "evaluation", "runtime", "verbs", "verb_fingerprints"}
PIPELINE = VERBS | {"run_lookup", "pipeline", "results", "run_actions", "run_status"}
LOOKING = PIPELINE | {"differences", "stories"}
"""What shows runs that exist, and changes nothing in them."""

ALLOWED = {
    # the frame
    "class_names": {"errors"},
    "errors": set(),
    "faults": {"errors"},
    "interrupts": set(),
    "hashing": set(),
    "scoped": set(),
    "plain_values": set(),
    "plugins": {"errors"},
    "overrides": {"errors"},
    "progress": {"scoped"},
    "measures": {"plugins"},
    "folder": {"errors"},
    "schema": {"class_names", "errors", "plugins"},
    "config": {"class_names", "errors", "hashing", "overrides", "plugins"},
    "cache": {"errors", "hashing", "progress"},
    "fingerprints": {"cache", "folder", "hashing"},
    "origins": {"errors", "folder"},
    "run": {"errors", "folder"},
    "annotations": {"folder", "schema"},
    # from the maths up to the command line
    "functional": {"errors", "hashing", "schema"},
    **{package: FRAME | {"functional", "tasks"} for package in BESIDE},
    "experts": {"errors", "folder", "functional", "schema", "tasks"},
    "methods": FRAME | {"functional"},
    "training": FRAME | {"functional", "methods", "models", "tasks"},
    "runtime": TRAINING,
    "evaluation": FRAME | {"functional", "tasks"},
    "audits": FRAME | {"annotators", "evaluation", "functional", "tasks", "verb_fingerprints"},
    "verb_fingerprints": FRAME | BESIDE | {"audits", "methods"},
    "verbs": VERBS,
    "exports": FRAME | {"datasets", "functional", "runtime", "tasks"},
    "results": FRAME | {"exports", "pipeline", "run_actions", "runtime"},
    "run_actions": PIPELINE | {"exports"},
    "api": PIPELINE,
    "pipeline": VERBS | {"results", "run_actions"},
    "run_status": PIPELINE,
    "run_lookup": PIPELINE,
    "stories": PIPELINE,
    "differences": PIPELINE | {"stories"},
    "forecast": FRAME | {"annotators", "evaluation", "methods"},
    "sweeps": PIPELINE | {"forecast"},
    "job_package": PIPELINE | {"sweeps"},
    "publishing": PIPELINE | {"exports"},
    "first_look": PIPELINE,
    "estimates": PIPELINE | {"first_look", "forecast"},
    "cli": LOOKING | {"estimates", "first_look", "job_package", "publishing", "sweeps"},
    "__init__": LOOKING | {"api", "publishing"},
    "__main__": {"cli"},
}
"""Package or module -> what it may import of rayclean beside itself."""

OPEN_TRUTH = {
    "datasets/second_pass.py",  # load writes it
    "datasets/summary.py",
    "evaluation/label_metrics.py",
    "evaluation/subsets.py",
}
"""The modules that write or read `load/truth/`."""
NAME_TRUE_LABEL = {
    "annotators/simulated.py",  # reads it from a path among its options that only an experiment sets
    "evaluation/label_metrics.py",
    "evaluation/subsets.py",
    "schema.py",
    "tasks/base.py",  # says which answer a true label is; opens nothing
    "tasks/tagging.py",
    "verbs/evaluate.py",
}
"""The modules that name the column `true_label`."""

MODULE_NAMES = {
    "huggingface-hub": "huggingface_hub",
    "scikit-learn": "sklearn",
    "tomli-w": "tomli_w",
}
"""Distribution -> module, where the names differ."""


def imported(path: Path) -> set[str]:
    """All modules that a file imports, at the top or inside functions."""
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{relative(path)}: a relative import"
            if node.module == "rayclean":
                found |= {f"rayclean.{alias.name}" for alias in node.names if alias.name != "__version__"}
            else:
                found.add(node.module)
    return found


def owner(path: Path) -> str:
    """The package or top-level module that a file belongs to."""
    return relative(path).split("/")[0].removesuffix(".py")


def test_every_package_has_a_rule() -> None:
    assert {owner(path) for path in MODULES} == set(ALLOWED)


def test_imports_point_downwards() -> None:
    wrong = []
    for path in MODULES:
        package = owner(path)
        for name in imported(path):
            top, _, rest = name.partition(".")
            if top == "ray" and package != "runtime":
                wrong.append(f"{relative(path)} imports {name}: only runtime/ may import ray")
            target = rest.split(".")[0]
            if top == "rayclean" and rest and target not in {package, *ALLOWED[package]}:
                wrong.append(f"{relative(path)} must not import rayclean.{target}")
    assert wrong == []


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    required = declared_modules(project["dependencies"])
    optional = declared_modules(
        [each for extra in project["optional-dependencies"].values() for each in extra]
    )
    used = {name.split(".")[0] for path in MODULES for name in imported(path)}
    used -= {*sys.stdlib_module_names, "rayclean"}
    assert used - required - optional == set(), "imported, and not in pyproject.toml"
    assert required - used == set(), "in pyproject.toml, and never imported"


def declared_modules(requirements: list[str]) -> set[str]:
    names = [re.match(r"[\w.-]+", each)[0] for each in requirements]  # type: ignore[index]
    return {MODULE_NAMES.get(name, name.replace("-", "_")) for name in names}


def test_only_load_writes_the_truth_and_only_evaluation_reads_it() -> None:
    assert {relative(path) for path in MODULES if opens_truth(path)} == OPEN_TRUTH
    assert {relative(path) for path in MODULES if "true_label" in texts(parsed(path))} == NAME_TRUE_LABEL


def test_of_the_verbs_only_evaluate_knows_evaluation() -> None:
    importing = {
        path.name
        for path in MODULES
        if owner(path) == "verbs" and any(name.startswith("rayclean.evaluation") for name in imported(path))
    }
    assert importing == {"evaluate.py"}


def opens_truth(path: Path) -> bool:
    """Whether a method of `Folder` gets "truth" as an argument, or any text is a path to or below `truth/`."""
    calls = [node for node in nodes_of(path) if isinstance(node, ast.Call)]
    named = any(
        "truth" in {text for argument in call.args for text in texts(argument)}
        for call in calls
        if isinstance(call.func, ast.Attribute) and hasattr(Folder, call.func.attr)
    )
    return named or any(text.startswith("truth/") or text.endswith("/truth") for text in texts(parsed(path)))


def texts(tree: ast.AST) -> set[str]:
    """All string constants."""
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {value for value in constants if isinstance(value, str)}


def test_import_loads_neither_torch_nor_ray() -> None:
    heavy = "('torch', 'ray', 'pyarrow')"
    code = f"import sys, rayclean, rayclean.cli.main; print([m for m in {heavy} if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_help_lists_the_verbs() -> None:
    command = [sys.executable, "-m", "rayclean", "--help"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for verb in ("clean", "load", "predict", "detect", "relabel", "train", "evaluate"):
        assert verb in output
    for command_name in (
        "init",
        "estimate",
        "config",
        "status",
        "revert",
        "log",
        "diff",
        "sweep",
        "sweep-report",
        "submit",
        "logs",
    ):
        assert command_name in output


ANNOTATOR_FILES = {"served", "openai", "knn", "simulated"}
"""Names of the built-in annotators, which are also the names of their modules."""


def test_no_annotator_is_known_by_name_outside_its_package() -> None:
    """Whoever uses an annotator asks what it can do; only the config has a default name."""
    assert known_by_name("annotators", ANNOTATOR_FILES, default="knn") == []


def test_no_task_is_known_by_name_outside_its_package() -> None:
    """Whoever handles labels asks the task; only the config has a default name."""
    names = {"classification", "multi_label", "tagging"}
    assert known_by_name("tasks", names, default="classification") == []


def known_by_name(package: str, names: set[str], default: str) -> list[str]:
    """The modules outside of a package that import one of its plug-ins or name it."""
    found = []
    for path in MODULES:
        if owner(path) == package:
            continue
        if imported(path) & {f"rayclean.{package}.{name}" for name in names}:
            found.append(f"{relative(path)} imports one of {package}/")
        said = constants(path) & (names - {default} if relative(path) == "config/__init__.py" else names)
        if said:
            found.append(f"{relative(path)} names {', '.join(map(str, said))}")
    return found
