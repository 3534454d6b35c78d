"""What looks odd in the first rows, in sentences with what to do about it."""

from collections.abc import Iterator, Sequence

from rayclean.class_names import visible
from rayclean.datasets.rejected_rows import NULL_LABEL
from rayclean.first_look.proposed_config import ProposedConfig
from rayclean.models.loading import encoder_class

_SHOWN = 5
"""Most names that a sentence lists."""


def oddities(proposal: ProposedConfig) -> dict[str, list[str]]:
    """Sentences about what people should look at, by the key of the config that they concern."""
    found: dict[str, list[str]] = {}
    for key, sentence in _sentences(proposal):
        found.setdefault(key, []).append(sentence)
    return found


def _sentences(proposal: ProposedConfig) -> Iterator[tuple[str, str]]:
    look, roles, dataset = proposal.look, proposal.roles, proposal.config.dataset
    for remark in proposal.first.forms.values():
        if remark:
            yield "path", remark
    if not proposal.first.header and "header" not in proposal.said:
        yield (
            "header",
            "the first line is no header: its values come again below it, or are numbers. Columns go by their place",
        )
    if proposal.first.left_out:
        yield "path", f"{proposal.first.left_out:,} further columns were not looked at"
    for reason, count in look.rejected.items():
        if reason != NULL_LABEL:  # that is said of `dataset.unlabelled`
            yield "path", f"{count:,} of {look.rows:,} rows cannot be used: {reason}"
    if roles.text is not None and not roles.text.is_clear:
        yield (
            "text",
            f"{_or(roles.text.others)} may be meant instead, or beside it: several columns are joined",
        )
    if not roles.label.is_clear and roles.label.others:
        yield "label", f"{_or(roles.label.others)} may be meant instead"
    if roles.repeated_id is not None:
        yield (
            "id",
            f"{roles.repeated_id!r} is named like a key, and is missing or comes again in some rows: no key",
        )
    if look.repeated_keys:
        yield (
            "id",
            f"{look.repeated_keys:,} rows have a key that came before and would be left out: choose another, or none",
        )
    if look.copies:
        sentence = (
            f"{look.copies:,} rows hold a text that came before; copies count once in what models learn"
        )
        if look.conflicting:
            sentence += (
                f". {look.conflicting:,} texts come with different labels, of which not all can be right"
            )
        yield "text", sentence
    for first, other, differ in look.near[:_SHOWN]:
        counts = f"{look.classes[first]:,} and {look.classes[other]:,}"
        yield (
            "merge_labels",
            f"classes {visible(first)} and {visible(other)} ({counts}) differ by {differ} only",
        )
    for rarer, other in look.misspelled[:_SHOWN]:
        counts = f"{look.classes[rarer]:,} and {look.classes[other]:,}"
        yield (
            "label",
            f"classes {visible(rarer)} and {visible(other)} ({counts}) may be one with a slip of the pen",
        )
    folds = proposal.config.predict.folds
    rare = look.rarer_than(folds)
    if rare and look.is_whole:
        yield (
            "folds",
            (
                f"{len(rare):,} classes have fewer than {folds} labels ({_listed(rare)}); a model that must predict one "
                "of them has seen next to none"
            ),
        )
    if look.unlabelled and dataset.unlabelled:
        none = _listed(
            [str(each) or f"blank ({look.rejected[NULL_LABEL]:,} rows)" for each in look.unlabelled]
        )
        yield "unlabelled", f"{none}: no label, so these rows are left out"
    if look.perhaps_unlabelled:
        yield (
            "unlabelled",
            f"{_listed(look.perhaps_unlabelled)}: a class, or no label? Only you can know; here they are classes",
        )
    yield from _numbers(proposal)
    yield from _lengths(proposal)


def _numbers(proposal: ProposedConfig) -> Iterator[tuple[str, str]]:
    first = proposal.look.counts_from
    if first is not None and not proposal.first.class_names(str(proposal.config.dataset.label)):
        count = len(proposal.look.classes)
        yield (
            "labels",
            (
                f"the classes are numbers from {first} to {first + count - 1}; names in this "
                f"order read better in reports and prompts, with first_label = {first} to say from what the numbers count"
            ),
        )


def _lengths(proposal: ProposedConfig) -> Iterator[tuple[str, str]]:
    _, options = encoder_class(proposal.config.encoder)
    half, most, longest = proposal.look.words
    read = options.max_length
    if most > read:
        yield (
            "encoder",
            (
                f"texts have up to {longest:,} words, half of them at most {half:,}, and the encoder reads the first {read} "
                "tokens of each (encoder.max_length); more takes longer"
            ),
        )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(map(visible, names[:_SHOWN])) + (f" and {more:,} more" if more > 0 else "")


def _or(names: Sequence[str]) -> str:
    return " or ".join(map(repr, names[:_SHOWN]))
