"""Which columns of a table hold text, label, id, truth and group, by their names and what they hold."""

from collections.abc import Sequence
from dataclasses import dataclass

from rayclean.first_look.column_names import GROUP_WORDS, KEY_WORDS, TEXT_WORDS, hint, says, words_of
from rayclean.first_look.label_guess import CLEAR, LabelGuess, guess_label
from rayclean.first_look.profiles import ColumnProfile
from rayclean.first_look.reading import FirstRows

_GROUPS = 20
"""Fewest groups from which folds and splits can be made."""
_NEARLY_UNIQUE = 0.9
"""Share of different values from which a column was probably meant to be a key."""


@dataclass(frozen=True)
class ColumnGuess:
    """A column that was chosen, and why."""

    column: str
    why: str
    others: tuple[str, ...] = ()
    """Columns that may be meant instead or beside it, the likeliest first."""
    is_clear: bool = True
    """Whether none of the others is nearly as likely."""


@dataclass(frozen=True)
class ColumnRoles:
    """What each column is taken for."""

    text: ColumnGuess | None
    """Column of the text, or of the tokens where labels are tags; None: none looks like one."""
    label: LabelGuess
    id: ColumnGuess | None = None
    group: ColumnGuess | None = None
    repeated_id: str | None = None
    """A column that is named like a key and holds a value twice."""

    @property
    def is_clear(self) -> bool:
        """Whether text and label are each the only likely ones."""
        return (
            self.text is not None and self.text.is_clear and bool(self.label.columns) and self.label.is_clear
        )


def profile_columns(first: FirstRows) -> dict[str, ColumnProfile]:
    """Look at all columns, reading the rows once."""
    profiles = {name: ColumnProfile(name) for name in first.columns}
    each = list(profiles.values())
    for values in first.read(first.columns):
        for profile, value in zip(each, values, strict=True):
            profile.add(value)
    return profiles


def guess_roles(
    profiles: Sequence[ColumnProfile],
    text: str | None = None,
    label: str | None = None,
    key: str | None = None,
) -> ColumnRoles:
    """Guess what each column is.

    Args:
        profiles: of all columns.
        text: the column of the text, where that is known; likewise the others.
        label: the column of the label.
        key: the column of the user's key.
    """
    known = [name for name in (text, key) if name is not None]
    found = guess_label([each for each in profiles if label in (None, each.name)], () if label else known)
    if label is not None and not found.columns:
        found = LabelGuess((label,), "class", "as said", is_clear=True)
    taken = {*found.columns, *([found.truth] if found.truth else []), *([key] if key else [])}
    rest = [each for each in profiles if each.name not in taken and each.filled]
    chosen = ColumnGuess(text, "as said") if text else _text(rest, found)
    rest = [each for each in rest if chosen is None or each.name not in (chosen.column, *chosen.others)]
    named = [each for each in rest if says(each.name, KEY_WORDS) and not each.fractions and not each.lists]
    keys = sorted((each for each in named if each.is_unique), key=_length)
    own = ColumnGuess(key, "as said") if key else None
    if keys and own is None:
        own = ColumnGuess(
            keys[0].name,
            "its name says so, and every row has a value of its own",
            tuple(x.name for x in keys[1:]),
        )
    repeated = [each for each in named if not each.is_unique and each.different > _NEARLY_UNIQUE * each.rows]
    group = _group([each for each in rest if own is None or each.name != own.column])
    return ColumnRoles(chosen, found, own, group, repeated[0].name if repeated and own is None else None)


def _length(profile: ColumnProfile) -> tuple[int, str]:
    """Keys with short names come first: `id` before `author_id`."""
    return len(words_of(profile.name)), profile.name


def _text(profiles: Sequence[ColumnProfile], label: LabelGuess) -> ColumnGuess | None:
    """The column of the text: named like one, and long, and different in every row."""
    if label.form == "tags":
        lists = [each for each in profiles if each.lists > each.filled / 2 or each.is_text]
        lists.sort(key=lambda each: (-("token" in each.name.lower()), -each.lists, -each.words))
        if not lists:
            return None
        return ColumnGuess(
            lists[0].name, "the words that the tags belong to", tuple(each.name for each in lists[1:])
        )
    scored = sorted(
        ((_text_score(each), each) for each in profiles if each.is_text and each.mean_words >= 1.3),
        key=lambda item: -item[0],
    )
    if not scored:
        return None
    (score, best), *others = scored
    why = "its name says so" if hint(best.name, TEXT_WORDS) >= 2 else "the longest texts"
    likely = tuple(each.name for rank, each in others if rank > 1)
    is_clear = not others or score - others[0][0] >= CLEAR
    return ColumnGuess(
        best.name,
        f"{why}; {best.mean_words:,.0f} words on average, {best.different / max(best.filled, 1):.0%} of them different",
        likely,
        is_clear,
    )


def _text_score(profile: ColumnProfile) -> float:
    different = profile.different / max(profile.filled, 1)
    return (
        hint(profile.name, TEXT_WORDS)
        + min(profile.mean_words, 40) / 15
        + different
        - (profile.filled < 0.8 * profile.rows)
    )


def _group(profiles: Sequence[ColumnProfile]) -> ColumnGuess | None:
    """A column of what several rows belong to."""
    found = [
        each
        for each in profiles
        if says(each.name, GROUP_WORDS)
        and each.filled == each.rows
        and not each.lists
        and not each.fractions
        and each.mean_words < 5
        and _GROUPS <= each.different <= each.rows / 1.5
    ]
    if not found:
        return None
    best, *others = sorted(found, key=lambda each: (-("id" in words_of(each.name)), -each.different))
    why = f"{best.different:,} of them have {best.rows / best.different:.1f} rows on average"
    return ColumnGuess(best.name, why, tuple(each.name for each in others))
