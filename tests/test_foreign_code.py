"""No module calls what would run code of others: a repository's, a pickle's, or a command put together from texts."""

import ast
from functools import cache
from pathlib import Path

from tests.modules import MODULES, nodes_of, relative

RUNS_CODE = {
    "torch.load", "pickle.load", "pickle.loads", "joblib.load", "yaml.load", "yaml.unsafe_load",
    "os.system", "os.popen", "eval", "exec", "compile", "__import__",
}  # fmt: skip
"""Calls that run what they read, or may."""


@cache
def calls(path: Path) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in nodes_of(path) if isinstance(node, ast.Call)]


def test_nothing_calls_what_runs_code() -> None:
    found = {
        (relative(path), name)
        for path in MODULES
        for name, call in calls(path)
        if name in RUNS_CODE and ast.unparse(call) != "exec('')"  # of the empty text: it runs nothing
    }
    assert found == set()
    allowing = [
        relative(path)
        for path in MODULES
        for _, call in calls(path)
        for each in call.keywords
        if each.arg == "allow_pickle" and ast.unparse(each.value) != "False"
    ]
    assert allowing == []


def test_only_processes_of_one_run_exchange_pickles() -> None:
    """`runtime/` sends functions to Ray's workers, which are this run's own and ask for its token."""
    found = {relative(path) for path in MODULES for name, _ in calls(path) if "pickle" in name}
    assert {path.partition("/")[0] for path in found} == {"runtime"}


def test_no_shell_reads_a_command() -> None:
    for path in MODULES:
        for name, call in calls(path):
            if name.startswith("subprocess."):
                assert isinstance(call.args[0], ast.List), f"{relative(path)}: {name} takes a text"
                assert not [each for each in call.keywords if each.arg == "shell"], relative(path)


def test_repositories_of_models_run_no_code() -> None:
    trusting = ast.Constant(value=False)
    loading = [
        (path, call)
        for path in MODULES
        for name, call in calls(path)
        if name.rpartition(".")[2] == "from_pretrained"
    ]
    assert len(loading) >= 3
    for path, call in loading:
        said = {each.arg: each.value for each in call.keywords}
        if None in said:  # models/pretrained.py: one dict for all of its calls
            dicts = [node for node in nodes_of(path) if isinstance(node, ast.Dict)]
            values = [
                value
                for each in dicts
                for key, value in zip(each.keys, each.values, strict=True)
                if isinstance(key, ast.Constant) and key.value == "trust_remote_code"
            ]
            assert values, relative(path)
        else:
            values = [said["trust_remote_code"]]
        assert all(ast.dump(value) == ast.dump(trusting) for value in values), relative(path)
