"""The size of files, the length of lines, and that a public name is defined once."""

import ast
from collections import defaultdict
from pathlib import Path

from tests.modules import MODULES, PACKAGE, nodes_of, parsed, relative

LINES, CHARACTERS = 300, 130
METHOD_LINES = {"aum": 180, "dividemix": 180, "noiseal": 250, "lane": 250}
"""A method is read at one sitting: fewer lines than these, ablations apart."""

IN_EVERY_VERB = {"needs", "run", "validate", "VERSION"}
"""Names that each module of `verbs/` defines: the interface of a verb."""
BY_CUSTOM = {"logger", "T", "R"}
"""Names that a module defines for itself by Python's customs: its logger and its type variables."""


def test_files_are_short_and_so_are_their_lines() -> None:
    long_files, long_lines = {}, {}
    for path in MODULES:
        lines = path.read_text().splitlines()
        if len(lines) > LINES:
            long_files[relative(path)] = len(lines)
        if long := [number for number, line in enumerate(lines, 1) if len(line) > CHARACTERS]:
            long_lines[relative(path)] = long
    assert long_files == {}, f"longer than {LINES} lines; split them along a seam"
    assert long_lines == {}, f"longer than {CHARACTERS} characters"


def test_a_method_is_read_at_one_sitting() -> None:
    lines = {
        name: len((PACKAGE / "methods" / f"{name}.py").read_text().splitlines()) for name in METHOD_LINES
    }
    assert {name: count for name, count in lines.items() if count >= METHOD_LINES[name]} == {}


def test_a_public_name_is_defined_once() -> None:
    places = defaultdict(set)
    for path in MODULES:
        for name in public_names(path):
            places[name].add(relative(path))
    for name in IN_EVERY_VERB:
        places[name] = {path for path in places[name] if not path.startswith("verbs/")}
    assert {name: sorted(paths) for name, paths in places.items() if len(paths) > 1} == {}


def test_text_with_something_filled_in_is_never_markup() -> None:
    """Square brackets in a path would be swallowed, or end the command: `progress.print_plain` prints them."""
    found = []
    for path in MODULES:
        for node in nodes_of(path):
            if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith("console.print"):
                continue
            if not isinstance(node.args[0], ast.Call | ast.Name):  # a table
                found.append(f"{relative(path)}:{node.lineno}")
    assert found == []


def public_names(path: Path) -> set[str]:
    """Functions, classes and values that a module defines at its top and does not mark as private."""
    names = set()
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts = [part for target in targets for part in ast.walk(target)]
            names |= {x.id for x in parts if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)}
    return {name for name in names if not name.startswith("_")} - BY_CUSTOM
