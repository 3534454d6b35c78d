"""An example's story for the terminal: a row for every event, whose texts cannot leave their column."""

from collections.abc import Callable, Iterable
from typing import Any

from rich.table import Table

from rayclean.cli.terminal import OTHER_TEXT, as_data, cut, when
from rayclean.evaluation.formatting import format_money, format_percent
from rayclean.stories import decision_events as decisions
from rayclean.stories import events

_Lines = list[str]


def story_table(story: events.Story, characters: int | None) -> Table:
    """The table of a story.

    Args:
        story: of an example, or of a row that was rejected.
        characters: most of the example's text, and three times as many of a prompt; other texts are cut to `OTHER_TEXT`. None:
            all texts are whole.
    """
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, style="bold", min_width=_HEADING)
    table.add_column(overflow="fold", ratio=1)
    where = "" if story.file is None else f"row {story.row} of {story.file}"
    number = "" if story.example_id is None else f"example {story.example_id}"
    table.add_row("", as_data(f"{story.name}", "bold"))
    table.add_row("", as_data(" · ".join(part for part in (where, number, story.run) if part)))
    if story.example_id is not None:
        table.add_row("text", as_data(cut(story.text, characters)))
    heading = "text"
    for event in story.events:
        name, lines = _described(event, characters)
        part = [f"[{event.part}]"] if event.part else []
        table.add_row(
            name if name != heading else "", as_data("\n".join([" ".join([*part, lines[0]]), *lines[1:]]))
        )
        heading = name
    if story.unfinished and story.example_id is not None:
        table.add_row("", as_data(f"not finished: {', '.join(story.unfinished)}", "dim"))
    return table


_HEADING = 9
"""Characters of the longest heading."""


def _described(event: events.Event, characters: int | None) -> tuple[str, _Lines]:
    """Heading and lines of an event."""
    heading, describe = _DESCRIBED[type(event)]
    return heading, describe(event, characters)


def _loaded(event: events.Loaded, characters: int | None) -> _Lines:
    tokens = "" if event.tokens is None else f", {event.tokens:,} tokens"
    note = ": kept for measuring, no label of it is doubted" if event.split == "test" else ""
    return [f"{event.characters:,} characters{tokens}; split {event.split}{note}"]


def _rejected(event: events.Rejected, characters: int | None) -> _Lines:
    return [f"rejected: row {event.row} of {event.file}: {event.reason}", *_cut([event.value], characters)]


def _given(event: events.Given, characters: int | None) -> _Lines:
    return [f"given label: {_label(event.label)}"]


def _true_label(event: events.TrueLabel, characters: int | None) -> _Lines:
    return [f"true label (for measuring only): {event.label}"]


def _related(event: events.Related, characters: int | None) -> _Lines:
    learnt = "models learn from this one" if event.learnt_from else "models learn from another copy"
    copies = f"{event.copies:,} other copies of the text; {learnt}" if event.copies else "no other copies"
    others = event.group - event.copies
    return [
        f"{copies}{f'; {others:,} more of its group' if others else ''}",
        *_relatives(event.shown, characters),
    ]


def _predicted(event: events.Predicted, characters: int | None) -> _Lines:
    by = "" if event.by == "all" else f"{event.by}: "
    seen = (
        f"fold {event.fold} (not learnt from)" if event.fold is not None else event.mode or "not out of fold"
    )
    return [f"{by}{_probabilities(event.likeliest)}; {seen}"]


def _neighbours(event: events.Neighbours, characters: int | None) -> _Lines:
    return ["nearest texts:" if event.nearest else "no other text", *_relatives(event.nearest, characters)]


def _judged(event: events.Judged, characters: int | None) -> _Lines:
    rank = "no suspect"
    if event.rank is not None:
        of = f" of {event.suspects:,}" if event.suspects is not None else ""
        rank = f"suspect, {event.rank + 1:,}{_ordinal(event.rank + 1)}{of} in doubt (reason: {event.reason})"
    if event.control is not None:
        rank += f"; control question {event.control + 1}: its label is as good as known"
    lines = [
        rank,
        f"given {event.given} {event.given_probability:.3f}, suggested {event.suggested} {event.suggested_probability:.3f}",
        f"quality {event.quality:.4f} (lower = more likely wrong)",
    ]
    return lines + [
        f"  {each.name}: quality {each.quality:.4f}, {'calls it wrong' if each.vote else 'no objection'}"
        for each in event.detectors
    ]


def _asked(event: decisions.Asked, characters: int | None) -> _Lines:
    between = " or ".join(_one_line(each, characters) for each in event.candidates)
    lines = [f"{event.annotator} ({event.purpose}): {between}"]
    if event.demonstrations:
        lines.append(f"shown {len(event.demonstrations)} solved examples:")
        for each in event.demonstrations:
            cosine = "" if each.similarity is None else f" ({each.similarity:.3f})"
            lines.append(f"  {each.answer}{cosine}: {_one_line(each.text, characters)}")
    if event.problem is not None:
        lines.append(f"its prompt cannot be shown: {event.problem}")
    notes = {
        "as sent": "as sent (its hash is that of the ledger)",
        "uncut": "before it was cut to the model's length, or by a template that has changed since",
        "not recorded": "no answer is recorded that says it was sent",
    }
    for number, prompt in enumerate(event.prompts, 1):
        which = f" {number} of {len(event.prompts)}" if len(event.prompts) > 1 else ""
        lines.append(f"prompt{which}, {notes[event.prompts_are]}:")
        lines += [f"  │ {line}" for line in cut(prompt, characters and 3 * characters).split("\n")]
    return lines


def _answered(event: decisions.Answered, characters: int | None) -> _Lines:
    who = event.annotator or f"{event.model} (asked by {event.session or 'another run'})"
    what = "it failed" if event.error else "it did not choose"
    if event.choice is not None:
        what = _one_line(event.choice, characters)
    lines = [f"{who}: {what}"]
    if event.scores:
        scores = ", ".join(
            f"{_one_line(each.label, characters)} {each.probability:.2g}" for each in event.scores
        )
        lines.append(f"  probabilities before calibration: {scores}")
    if event.error:
        lines.append(f"  {event.error}")
    cost = "" if event.cost is None else f", {format_money(event.cost, event.currency)}"
    at = "" if event.time is None else f", {when(event.time)}"
    tokens = f"{event.prompt_tokens:,} + {event.answer_tokens:,} tokens"
    lines.append(f"  {event.model}: {tokens}{cost}, {event.seconds:.2f} s{at}")
    return [*lines, *(f"  answer: {each}" for each in _cut([event.raw], characters))]


def _decided(event: decisions.Decided, characters: int | None) -> _Lines:
    asked = "" if event.annotator is None else f" (asked last: {event.annotator})"
    lines = [f"{event.decision}{f' by {event.auditor}' if event.auditor else asked}"]
    lines.append(
        f"{event.suggested} rather than {event.given}: {format_percent(event.model_probability)} by the model alone, "
        f"{format_percent(event.probability)} in the end"
    )
    if event.choice is not None and event.confidence is not None:
        choice = _one_line(event.choice, characters)
        lines.append(f"the answer, its bias removed: {choice}, {format_percent(event.confidence)}")
    if event.by_machine != event.decision:
        lines.append(f"without the auditor: {event.by_machine}")
    return lines + ([event.error] if event.error else [])


def _asked_beyond(event: decisions.AskedBeyond, characters: int | None) -> _Lines:
    said = "LLM disagreement" if event.vote else "agreement" if event.choice is not None else "no answer"
    sure = format_percent(event.probability)
    return [
        f"nobody doubts it; asked all the same: {_label(event.choice)} ({said}); {event.suggested} is right by {sure}"
    ]


def _auditor(event: decisions.AuditorAnswered, characters: int | None) -> _Lines:
    said = event.label if event.label is not None else event.said
    return [f"{event.auditor}: {said} ({event.form}, {when(event.time)})"]


def _reverted(event: decisions.Reverted, characters: int | None) -> _Lines:
    what = "the given label is right: changes are reverted" if event.reverted else "the revert is taken back"
    return [f"{what} ({when(event.time)})"]


def _final(event: decisions.Final, characters: int | None) -> _Lines:
    confidence = "" if event.confidence is None else f", {format_percent(event.confidence)} sure"
    by = "" if event.decided_by is None else f" by {event.decided_by}"
    source = "" if event.source is None else f" ({event.source}{by}{confidence})"
    return [f"final label: {event.label}{source}"]


def _trained(event: events.Trained, characters: int | None) -> _Lines:
    quality = "" if event.quality is None else f", quality {event.quality:.4f} (lower = more likely wrong)"
    lines = [f"{event.method}, on the label {event.label}{quality}"]
    lines += [f"  {name}: {_value(value)}" for name, value in event.columns.items()]
    if event.epochs and characters is not None:
        return [*lines, f"  the same after each of {len(event.epochs)} epochs: --full"]
    return lines + [
        f"  epoch {number}: {', '.join(f'{name} {_value(value)}' for name, value in columns.items())}"
        for number, columns in event.epochs.items()
    ]


_DESCRIBED: dict[type[events.Event], tuple[str, Callable[[Any, int | None], _Lines]]] = {
    events.Loaded: ("load", _loaded),
    events.Rejected: ("load", _rejected),
    events.Given: ("load", _given),
    events.TrueLabel: ("load", _true_label),
    events.Related: ("predict", _related),
    events.Predicted: ("predict", _predicted),
    events.Neighbours: ("predict", _neighbours),
    events.Judged: ("detect", _judged),
    decisions.Asked: ("question", _asked),
    decisions.Answered: ("answer", _answered),
    decisions.Decided: ("decision", _decided),
    decisions.AskedBeyond: ("question", _asked_beyond),
    decisions.AuditorAnswered: ("audit", _auditor),
    decisions.Reverted: ("revert", _reverted),
    decisions.Final: ("label", _final),
    events.Trained: ("train", _trained),
}
"""Heading and description of every kind of event."""


def _relatives(relatives: Iterable[events.Relative], characters: int | None) -> _Lines:
    lines = []
    for each in relatives:
        cosine = "" if each.similarity is None else f"{each.similarity:.3f} "
        lines.append(f"  {cosine}{each.name} [{_label(each.given_label)}] {_one_line(each.text, characters)}")
    return lines


def _probabilities(found: Iterable[events.Probability]) -> str:
    return ", ".join(f"{each.label} {each.probability:.3f}" for each in found)


def _label(label: str | None) -> str:
    return "none" if label is None else label


def _one_line(text: str, characters: int | None) -> str:
    return cut(" ".join(text.split()), characters and OTHER_TEXT)


def _cut(texts: Iterable[str], characters: int | None) -> _Lines:
    return [cut(text, characters and OTHER_TEXT) for text in texts if text]


def _value(value: Any) -> str:
    """A column of a method; of a list the beginning."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(_value(each) for each in value[:8])}{', ...' if len(value) > 8 else ''}]"
    return str(value)


def _ordinal(number: int) -> str:
    return "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
