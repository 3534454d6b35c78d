"""`rayclean.log`: all events of an example in order of time."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from rayclean.errors import ConfigError
from rayclean.evaluation.label_metrics import true_labels
from rayclean.run import VERBS, Run
from rayclean.run_lookup import RunOrConfig, existing_run
from rayclean.stories.asking import asking_events
from rayclean.stories.deciding import deciding_events
from rayclean.stories.events import Event, Given, Loaded, Rejected, Story, TrueLabel
from rayclean.stories.finding import Match, find_examples
from rayclean.stories.learning import learning_events, training_events
from rayclean.stories.subject import Subject

NEIGHBOURS_SHOWN = 5
"""Nearest neighbours of an example that are looked for by default."""
_NAMED = 5


def log(
    run_or_config: RunOrConfig,
    *,
    key: str | None = None,
    row: tuple[str, int] | None = None,
    example_id: int | None = None,
    text: str | None = None,
    neighbours: int = NEIGHBOURS_SHOWN,
) -> Story:
    """What happened to one example: everything that a run knows of it, in order of time.

    Args:
        run_or_config: a run, its config, its folder or its config file.
        key: the example's key of the user (`dataset.id`).
        row: file and 0-based row that it came from; also of a row that was rejected.
        example_id: its id in the tables.
        text: a part of its text, which no other example holds.
        neighbours: number of nearest neighbours to look for in the features of `predict`, which are read for it; 0: none.

    Returns:
        The story; `to_json` is what `rayclean log --json` prints.

    Raises:
        ConfigError: not exactly one of the four is given, or it names no example or several.
        ArtifactError: there is no run, or it has loaded nothing.
    """
    run = existing_run(run_or_config)
    matches = find_examples(run, key=key, row=row, example_id=example_id, text=text, limit=_NAMED)
    if matches.total > 1:
        named = "; ".join(f"{each.name} {each.text[:60]!r} (id {each.example_id})" for each in matches.found)
        raise ConfigError(
            f"{matches.total:,} examples are meant: {named}{'; ...' if matches.total > _NAMED else ''}: give the "
            "example_id of one of them, or a longer part of its text"
        )
    return story_of_match(run, matches.found[0], neighbours=neighbours)


def story_of_match(run: Run, match: Match, *, neighbours: int = NEIGHBOURS_SHOWN) -> Story:
    """The story of an example or of a rejected row that was found."""
    if match.example_id is not None:
        return story_of(run, match.example_id, neighbours=neighbours)
    assert match.origin is not None
    assert match.rejected is not None
    file, row = match.origin.file, match.origin.row
    event = Rejected(file=file, row=row, reason=match.rejected, value=match.text)
    return Story(run.url(), None, None, file, row, match.text, (), (event,))


def story_of(run: Run, example_id: int, *, neighbours: int = NEIGHBOURS_SHOWN) -> Story:
    """The story of an example.

    Args:
        run: with a finished load.
        example_id: of the example.
        neighbours: number of nearest neighbours to look for; 0: none.

    Raises:
        ArtifactError: the run does not hold the example.
    """
    subject = Subject.read(run, example_id)
    origin = subject.origin
    return Story(
        run=run.url(),
        example_id=example_id,
        key=None if origin is None else origin.key,
        file=None if origin is None else origin.file,
        row=None if origin is None else origin.row,
        text=subject.text,
        unfinished=tuple(verb for verb in VERBS if run.manifest(verb) is None),
        events=(
            *_loading_events(subject),
            *learning_events(subject, neighbours),
            *asking_events(subject),
            *deciding_events(subject),
            *training_events(subject),
        ),
    )


def _loading_events(subject: Subject) -> Iterator[Event]:
    example, load = subject.example, subject.run.require("load")
    tokens = example.get("tokens")
    yield Loaded(
        split=example["split"],
        characters=len(subject.text),
        tokens=None if tokens is None else len(tokens),
    )
    yield from _repeated_keys(subject)
    yield Given(label=subject.written(example["given_label"]))
    ids = pa.chunked_array([pa.array([subject.example_id], pa.int64())])
    truth = subject.written(true_labels(load, subject.shard, ids).to_pylist()[0])
    if truth is not None:
        yield TrueLabel(label=truth)


def _repeated_keys(subject: Subject) -> Iterator[Event]:
    """Other rows with the example's key, which were rejected."""
    if subject.origin is None or subject.origin.key is None:
        return
    key = subject.origin.key
    for _, table in subject.run.require("load").rows_with("rejected", "value", [repr(key), key]):
        for row in table.filter(pc.starts_with(table["reason"], "duplicate key")).to_pylist():
            yield Rejected(file=row["source"], row=row["row"], reason=row["reason"], value=row["value"])
