"""Writes `docs/errors.md`: every message that rayclean can end with, read from its source.

    python docs/render_errors.py

A message is found where an error of `rayclean/errors.py` is raised, and where a check of a config's key raises the
`ValueError` that becomes one. What a message fills in stands in angle brackets.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rayclean.faults import SYSTEM_ERRORS, fault

PACKAGE = Path(__file__).parent.parent / "rayclean"
PAGE = Path(__file__).parent / "errors.md"

KINDS = {
    "ConfigError": "A config file, an override, or a plug-in's name or option is wrong.",
    "DataError": "The data set cannot be read, or does not hold what the config says.",
    "ArtifactError": "A run folder is missing, half written, or of another version or config.",
    "ResourceError": "The cluster or the machine lacks what the config asks for.",
    "AnnotationError": "An endpoint or a language model is down, ignores its constraint, or fails too often.",
    "RaycleanError": "A training or a computation cannot go on.",
    "FaultError": "The machine failed under the work: a full disk, a folder that is gone, a GPU, Ray. The exit code is 1.",
    "TypeError": "A Python call got an argument of another type than it takes.",
}
PLACES = {
    "cli": "Command line",
    "config": "Config",
    "first_look": "Config",
    "overrides.py": "Config",
    "plugins.py": "Config",
    "schema.py": "Config",
    "datasets": "Data set",
    "tasks": "Data set",
    "folder.py": "Run folder",
    "run.py": "Run folder",
    "pipeline.py": "Run folder",
    "run_lookup.py": "Run folder",
    "origins.py": "Run folder",
    "stories": "Run folder",
    "differences": "Run folder",
    "cache.py": "Run folder",
    "faults.py": "Machine",
    "models": "Models and training",
    "methods": "Models and training",
    "training": "Models and training",
    "experts": "Models and training",
    "annotators": "Annotators",
    "annotations.py": "Annotators",
    "audits": "Audits",
    "detectors": "Detection",
    "functional": "Detection",
    "evaluation": "Evaluation",
    "sweeps": "Sweeps",
    "forecast.py": "Sweeps",
    "estimates": "Verbs",
    "runtime": "Ray and servers",
    "job_package.py": "Ray and servers",
    "publishing": "Publishing",
    "exports": "Exports",
    "run_actions.py": "Exports",
    "api.py": "Python",
    "class_names": "Data set",
    "measures.py": "Evaluation",
    "verbs": "Verbs",
}
"""Package or module -> heading."""
LIBRARIES = [
    MemoryError("<text>"),
    RuntimeError("CUDA out of memory <text>"),
    RuntimeError("CUDA error <text>"),
    RuntimeError("No space left on device <text>"),
]
"""Errors of libraries that are faults of the machine."""
FAULT_TEXTS = "_known"
"""The function of `faults.py` that returns messages; those of `_of_system` are rendered with their values."""
INTRODUCTION = """# Errors

<!-- written by docs/render_errors.py -->

Every error is one message without a traceback: what was found, what was expected, and what to do next. In Python all but
`TypeError` are a `rayclean.RaycleanError`. On the command line the exit code is 2 for what you can mend in a config, in data or
in a run folder, 1 after a fault of the machine, 129 after the end of its terminal (SIGHUP), 130 after Ctrl-C and 143 after
SIGTERM. In each of these cases finished work is kept, and the same command goes on from there. `RAYCLEAN_DEBUG=1` shows where an error comes from; `rayclean --verbose COMMAND` tells
more of what is done.

| exit code | after | what to do |
|---|---|---|
| 0 | success | |
| 1 | a fault of the machine, a job or a trial of a sweep that failed, or a mistake of rayclean's | mend the machine, or report the mistake; the same command goes on |
| 2 | an error in the command line, a config, the data or a run folder | do what the message says |
| 129, 130, 143 | the end of its terminal (SIGHUP, as when a connection breaks), Ctrl-C, SIGTERM | nothing: the same command goes on |

Ctrl-C and SIGTERM end any command within ten seconds, a second one at once. No further question is sent to an annotator; answers
that are on their way are waited for, as they are paid for, three seconds at most. Nothing of a command outlives it: whatever
Ray or a language model leaves behind is ended a moment later, even if the command itself was killed.

What a message fills in stands in angle brackets. The message of every `FaultError` that the machine causes while a
verb runs ends in "finished work is kept, and the same command goes on from here".
A verb is one of the six commands `load`, `predict`, `detect`, `relabel`, `train` and `evaluate`, each of which has the
folder of its name in a run.
"""


@dataclass(frozen=True, order=True)
class Message:
    """A message and where it belongs."""

    place: str
    kind: str
    text: str


def messages() -> list[Message]:
    """Every message of the package, sorted."""
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        owner = path.relative_to(PACKAGE).parts[0]
        for kind, text in _raised(ast.parse(path.read_text())):
            if owner not in PLACES:
                raise SystemExit(
                    f"docs/render_errors.py: say in PLACES under which heading the errors of {owner} stand"
                )
            found.add(Message(PLACES[owner], kind, text))
    for node in ast.walk(ast.parse((PACKAGE / "faults.py").read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == FAULT_TEXTS:
            returned = (each.value for each in ast.walk(node) if isinstance(each, ast.Return))
            texts = (text for value in returned if isinstance(value, ast.JoinedStr) for text in _texts(value))
            found.update(Message("Machine", "FaultError", text) for text in texts)
    for error in (*(OSError(number, "", "PATH") for number in SYSTEM_ERRORS), *LIBRARIES):
        text = fault(error, "FOLDER")
        assert text is not None
        found.add(
            Message("Machine", "FaultError", text.replace("'PATH'", "<path>").replace("'FOLDER'", "<folder>"))
        )
    return sorted(found)


def render(found: list[Message]) -> str:
    """The page."""
    lines = [INTRODUCTION, "| kind | meaning |", "|---|---|"]
    lines += [f"| `{kind}` | {meaning} |" for kind, meaning in KINDS.items()]
    place = ""
    for message in found:
        if message.place != place:
            place = message.place
            lines += ["", f"## {place}", ""]
        shown = message.text.replace("\\", "\\\\").replace("<", "\\<").replace("*", "\\*").replace("`", "'")
        lines.append(f"- **{message.kind}** {' '.join(shown.split())}")
    return "\n".join(lines) + "\n"


def pattern(message: Message) -> re.Pattern[str]:
    """Matches the filled-in message."""
    parts = [re.escape(part) for part in re.split(r"<[^<>]*>", message.text)]
    return re.compile(".*".join(parts), re.DOTALL)


def _raised(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Kind and text of every message that a module raises."""
    validators = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        and any("validator" in ast.unparse(each) for each in function.decorator_list)
        for node in ast.walk(function)
    }
    for function in ast.walk(tree):  # the checks of types and bounds, in rayclean's words
        if isinstance(function, ast.FunctionDef) and function.name == "explain":
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "lines.append":
                    yield from (("ConfigError", text) for text in _texts(node.args[0]))
    for node in ast.walk(tree):
        made = (
            node.exc if isinstance(node, ast.Raise) else node.value if isinstance(node, ast.Return) else None
        )
        if not (isinstance(made, ast.Call) and isinstance(made.func, ast.Name)):
            continue
        kind = made.func.id
        if kind == "ValueError" and id(node) in validators:
            kind = "ConfigError"
        if kind in KINDS and made.args:
            for text in _texts(made.args[0]):
                if len(re.sub(r"<[^<>]*>", "", text).strip(" ;:.")) >= 8:  # otherwise it is all filled in
                    yield kind, text


def _texts(node: ast.expr) -> list[str]:
    """What an expression may become: one text per alternative, with what is filled in in angle brackets."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.JoinedStr):
        texts = [""]
        for part in node.values:
            inner = part.value if isinstance(part, ast.FormattedValue) else part
            said = _texts(inner) if isinstance(inner, ast.Constant | ast.IfExp) else [f"<{_name(inner)}>"]
            texts = [text + each for text in texts for each in said]
        return texts
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [left + right for left in _texts(node.left) for right in _texts(node.right)]
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body), *_texts(node.orelse)]
    return [f"<{_name(node)}>"]


def _name(node: ast.expr) -> str:
    """A word for what an expression fills in: its last name, in words."""
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called == "len":
            return "number"
        if called == "did_you_mean":
            return "the nearest names, and all that are known"
        if called == "type":
            return "type"
        if called.endswith(".join"):
            return "list"
        if called in ("str", "repr", "sorted", "list", "max", "min", "next", "set", "escape") and node.args:
            return _name(node.args[0])
        if called.endswith((".url", ".path")):
            return "path"
        return called.rpartition(".")[2].strip("_").replace("_", " ")
    if isinstance(node, ast.Attribute):
        return "type" if node.attr == "__name__" else node.attr.strip("_").replace("_", " ")
    if isinstance(node, ast.Name):
        return "reason" if node.id == "error" else node.id.strip("_").replace("_", " ").lower()
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    if isinstance(node, ast.BinOp):
        return "number"
    return "..."


if __name__ == "__main__":
    PAGE.write_text(render(messages()))
