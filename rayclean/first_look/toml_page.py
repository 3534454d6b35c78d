"""A proposed config as a TOML file: every choice with its reason, alternatives as comments."""

import textwrap
from collections.abc import Iterator
from typing import Any

from rayclean.class_names import visible
from rayclean.config.arguments import ENCODER_WITHOUT_CONFIG
from rayclean.first_look.oddities import oddities
from rayclean.first_look.proposed_config import ProposedConfig
from rayclean.functional.suspect_budget import suspects_allowed
from rayclean.overrides import leaves, toml_value
from rayclean.tasks import TASKS

CLASSES_SHOWN = 20
"""Most classes that are listed with their counts."""
_WIDTH = 100


def toml_page(proposal: ProposedConfig, name: str) -> str:
    """The file's text.

    Args:
        proposal: what it says.
        name: name of the file, for the commands that it names.
    """
    lines = [
        *_comment(
            f"A config for {' '.join(proposal.paths)}, written by `rayclean init`. Whatever it says was guessed from "
            f"{proposal.rows}: change what is wrong, then check it with `rayclean config {name}`."
        ),
        *_comment(
            "`rayclean options dataset` explains every key, `rayclean options` lists the other sections."
        ),
        "",
    ]
    others = {key: value for key, value in proposal.values.items() if key != "dataset"}
    plain = [f"{key} = {toml_value(value)}" for key, value in others.items() if not isinstance(value, dict)]
    lines += [*plain, ""] if plain else []
    for section, values in others.items():
        if isinstance(values, dict):
            lines += [f"[{section}]", *_plain_keys(values), ""]
    lines += ["[dataset]", *_dataset(proposal), "", *_further(proposal)]
    return "\n".join(lines) + "\n"


def _plain_keys(values: dict[str, Any]) -> list[str]:
    return [f"{'.'.join(map(_key, path))} = {toml_value(value)}" for path, value in leaves(values, ())]


def _key(part: str) -> str:
    return part if part.replace("_", "").replace("-", "").isalnum() and part.isascii() else toml_value(part)


def _dataset(proposal: ProposedConfig) -> list[str]:
    values, said = proposal.values["dataset"], oddities(proposal)
    found: list[str] = []
    reasons = _reasons(proposal)
    for key, value in values.items():
        if found:
            found.append("")
        for sentence in (*reasons.get(key, ()), *said.get(key, ())):
            found += _comment(sentence)
        found += (
            [f"{key} = {toml_value(value)}"] if not isinstance(value, dict) else _plain_keys({key: value})
        )
        found += [f"# {line}" for line in _alternatives(proposal, key)]
    for key, line in _left_out(proposal):
        found += ["", *(each for sentence in said.get(key, ()) for each in _comment(sentence)), f"# {line}"]
    return found


def _reasons(proposal: ProposedConfig) -> dict[str, list[str]]:
    """Why each key has its value."""
    roles, first = proposal.roles, proposal.first
    found = {"path": list(first.forms)}
    assert roles.text is not None
    found["text"] = found["tokens"] = [roles.text.why]
    found["label"] = [roles.label.why, _counts(proposal)]
    if roles.label.truth:
        found["truth"] = [
            "its name says that somebody has checked it; used to measure what cleaning did, never to decide"
        ]
    for key, choice in (("id", roles.id), ("group", roles.group)):
        if choice is not None:
            found[key] = [choice.why]
    if roles.group is not None:
        found["group"].append(
            "rows of one of them share a fold and a split, so that no model is measured on what it has seen"
        )
    found["labels"] = ["the class of each column, in the same order"]
    return {key: [] if key in proposal.said else reasons for key, reasons in found.items()} | {
        "label": found["label"]
    }


def _counts(proposal: ProposedConfig) -> str:
    """The classes with their counts."""
    classes = proposal.look.classes
    shown = ", ".join(f"{visible(name)} {count:,}" for name, count in list(classes.items())[:CLASSES_SHOWN])
    rest = list(classes.values())[CLASSES_SHOWN:]
    more = (
        f", and {len(rest):,} more with {sum(rest) / max(proposal.look.labelled, 1):.1%} of all"
        if rest
        else ""
    )
    return f"{len(classes):,} classes: {shown}{more}"


def _alternatives(proposal: ProposedConfig, key: str) -> Iterator[str]:
    roles = proposal.roles
    if key == "text" and roles.text is not None and roles.text.others and key not in proposal.said:
        others = [name for name in roles.text.others if name in proposal.profiles][:1]
        yield f"text = {toml_value([*others, roles.text.column])}"
    if key == "label" and roles.label.others and key not in proposal.said:
        yield from (f"label = {toml_value(name)}" for name in roles.label.others[:2])
    if key in ("id", "group"):
        choice = roles.id if key == "id" else roles.group
        yield from (f"{key} = {toml_value(name)}" for name in (choice.others[:2] if choice else ()))
    if key == "unlabelled":
        perhaps = [*proposal.look.unlabelled, *proposal.look.perhaps_unlabelled]
        if proposal.look.perhaps_unlabelled:
            yield f"unlabelled = {toml_value(perhaps)}"


def _left_out(proposal: ProposedConfig) -> Iterator[tuple[str, str]]:
    """Keys that the config does not set, with a value that they might have."""
    values, look = proposal.values["dataset"], proposal.look
    if "id" not in values:
        taken = {str(value) for value in values.values()}
        unique = [name for name, each in proposal.profiles.items() if each.is_unique and each.mean_words < 2]
        example = toml_value(next((name for name in unique if name not in taken), "COLUMN"))
        yield "id", f"id = {example}   # your own key; without it, file and row identify an example"
    if "unlabelled" not in values and look.perhaps_unlabelled:
        yield "unlabelled", f"unlabelled = {toml_value(list(look.perhaps_unlabelled))}"
    if look.near and "merge_labels" not in values:
        yield "merge_labels", "merge_labels = true"
    first = look.counts_from
    if first is not None and "labels" not in values:
        names = [f"name of {number}" for number in range(first, first + min(len(look.classes), 3))]
        dots = [] if len(look.classes) <= 3 else ["..."]
        yield "labels", f"labels = {toml_value([*names, *dots])}\n# first_label = {first}"
    if "test" not in values:
        yield (
            "test",
            'test = { share = 0.1 }   # held back, to measure what training gains; or { path = "test.csv" }',
        )


def _further(proposal: ProposedConfig) -> list[str]:
    """The sections that people change first."""
    said = oddities(proposal)
    budget = proposal.config.detect.budget
    task = TASKS.resolve(proposal.config.task.name)
    units, is_counted = task.units_are_called, proposal.look.is_whole and task.units_are_examples
    share = f"{budget:.0%} of the {units}" if isinstance(budget, float) else f"{budget:,} {units}"
    here = f", {suspects_allowed(budget, proposal.look.rows):,} of these rows" if is_counted else ""
    lines: list[str] = []
    if "predict" not in proposal.values and said.get("folds"):
        lines += [
            "[predict]",
            *(line for each in said["folds"] for line in _comment(each)),
            "# folds = 3",
            "",
        ]
    if "encoder" not in proposal.values:
        about = (
            "MiniLM reads the texts and only a head is trained: minutes on a CPU (`rayclean estimate` says how many). Any "
            'Hugging Face id or folder does as well; trainable = "all" fine-tunes the whole network, which takes a GPU.'
        )
        lines += [
            "[encoder]",
            *(line for each in said.get("encoder", ()) for line in _comment(each)),
            *_comment(about),
            *(
                f"{key} = {toml_value(value)}"
                for key, value in ENCODER_WITHOUT_CONFIG.items()
                if key != "name"
            ),
            "# max_length = 256",
            "",
        ]
    if "detect" not in proposal.values:
        lines += [
            "[detect]",
            *_comment(f"At most so many labels are doubted: {share}{here}."),
            f"# budget = {budget}",
            "",
        ]
    if "annotator" not in proposal.values:
        about = "Without a language model, labels change only where the classifier alone is sure. To serve one here:"
        lines += [
            "[annotator]",
            *_comment(about),
            '# name = "served"',
            '# model = "Qwen/Qwen2.5-7B-Instruct"',
        ]
        lines.append('# form = "choice"')
    return lines


def _comment(sentence: str) -> list[str]:
    """A sentence as lines of comment; what TOML allows in no comment is written as an escape."""
    plain = "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in sentence)
    return [
        f"# {line}" for line in textwrap.wrap(plain, _WIDTH, break_long_words=False, break_on_hyphens=False)
    ]
