"""The package's modules and what they parse to: tests of the house read them over and over, and parse each once."""

import ast
from functools import cache
from pathlib import Path

import rayclean

PACKAGE = Path(rayclean.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def relative(path: Path) -> str:
    """The path below the package."""
    return path.relative_to(PACKAGE).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    """The module's tree, for reading only."""
    return ast.parse(path.read_text())


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of the module's tree, for reading only."""
    return tuple(ast.walk(parsed(path)))


@cache
def constants(path: Path) -> frozenset[object]:
    """All constants that the module names."""
    return frozenset(node.value for node in nodes_of(path) if isinstance(node, ast.Constant))
