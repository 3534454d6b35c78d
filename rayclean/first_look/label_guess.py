"""Which column holds the label, by the names of the columns and what they hold."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rayclean.first_look.column_names import (
    KEY_WORDS,
    LABEL_WORDS,
    NO_LABEL_WORDS,
    NOISY_WORDS,
    TRUTH_WORDS,
    hint,
    says,
)
from rayclean.first_look.profiles import ColumnProfile
from rayclean.schema import FormName

MOST_CLASS_VALUES = 1000
"""A column with more different values is no column of classes for a first look."""
SEPARATORS = ("|", ";", ",")
"""What may stand between the classes of a set, in the order in which they are tried."""
CLEAR = 1.5
"""By how much the best of several candidates must be ahead to be meant without doubt."""
_SHARED = 0.8
"""Least share of one column's values that another one holds, where both are labels of the same rows."""


@dataclass(frozen=True)
class LabelGuess:
    """Which column or columns hold the label."""

    columns: tuple[str, ...]
    """One; or several of 0 and 1, one per class; () where nothing looks like a label."""
    form: FormName
    why: str
    separator: str | None = None
    """What divides the classes of a set that is written as one text."""
    others: tuple[str, ...] = ()
    """Columns that may be meant instead, the likeliest first."""
    is_clear: bool = False
    """Whether none of the others is nearly as likely."""
    truth: str | None = None
    """A column of labels that somebody has checked, beside this one."""


def guess_label(profiles: Sequence[ColumnProfile], without: Sequence[str] = ()) -> LabelGuess:
    """Guess the column of labels.

    Args:
        profiles: of all columns.
        without: columns that are something else.
    """
    rest = [each for each in profiles if each.name not in without and each.filled]
    tagged = [each for each in rest if each.tags > 0.9 * each.filled and each.tags > 1]
    if tagged:
        tagged.sort(key=lambda each: -hint(each.name, LABEL_WORDS))
        why = "every value is a tag per token"
        return LabelGuess((tagged[0].name,), "tags", why, None, _names(tagged[1:]), len(tagged) == 1)
    scored = sorted(((_score(each), each) for each in rest if _may_be_label(each)), key=lambda item: -item[0])
    bits = [each for each in rest if each.is_bits and hint(each.name, LABEL_WORDS) <= 0]
    if len(bits) > 1 and (not scored or max(score for score, _ in scored) < 2):
        why = f"{len(bits)} columns hold 0 and 1 in every row, one per class"
        return LabelGuess(_names(bits), "classes", why, is_clear=False)
    if not scored:
        return LabelGuess((), "class", "no column has few values that come again and again")
    checked = _checked(scored)
    if checked is not None:
        scored = [item for item in scored if item[1] is not checked]
    (score, best), *others = scored
    near = [each for _, each in others]
    is_clear = not others or score - others[0][0] >= CLEAR
    separator = find_separator(best)
    form: FormName = "classes" if separator or _is_list_of_classes(best) else "class"
    return LabelGuess(
        (best.name,), form, _why(best, separator), separator, _names(near), is_clear,
        None if checked is None else checked.name,
    )  # fmt: skip


def find_separator(profile: ColumnProfile) -> str | None:
    """What divides the classes of sets that are written as texts; None where every text is one class.

    Sets are made of few parts that come in many combinations: `joy|anger`, `joy`, `anger|fear`. A name that holds the
    character itself (`Food, drink`) is made of parts that come nowhere else.
    """
    if not profile.values:
        return None
    for separator in SEPARATORS:
        joined = {value: count for value, count in profile.values.items() if separator in value}
        if sum(joined.values()) < 0.05 * profile.filled or len(joined) < 3:
            continue
        parts = Counter[str]()
        for value in profile.values:
            parts.update({part.strip() for part in value.split(separator) if part.strip()})
        of_joined = [{part.strip() for part in value.split(separator) if part.strip()} for value in joined]
        again = sum(all(parts[part] > 1 for part in found) for found in of_joined)
        if again >= _SHARED * len(joined) and len(parts) < len(profile.values):
            return separator
    return None


def _may_be_label(profile: ColumnProfile) -> bool:
    """Whether few values come again and again."""
    if profile.objects > profile.filled / 2:
        return False
    if profile.lists > profile.filled / 2:
        return _is_list_of_classes(profile)
    if profile.values is None or not 2 <= profile.different <= MOST_CLASS_VALUES:
        return False
    if profile.fractions and profile.different > 20:
        return False
    named = hint(profile.name, LABEL_WORDS) >= 2
    again = profile.filled / profile.different
    return profile.mean_words < 8 and (again >= 2 or (named and again > 1.2))


def _is_list_of_classes(profile: ColumnProfile) -> bool:
    items = profile.items
    return (
        profile.lists > profile.filled / 2
        and 2 <= len(items) <= MOST_CLASS_VALUES
        and items.total() > 2 * len(items)
    )


def _score(profile: ColumnProfile) -> float:
    score = hint(profile.name, LABEL_WORDS)
    score -= 3 * says(profile.name, NO_LABEL_WORDS | KEY_WORDS)
    score += 0.5 * (profile.is_text and profile.mean_words < 4)
    score -= 1.0 * (profile.different > 200 and not profile.lists)
    score -= 1.0 * (profile.filled < 0.5 * profile.rows)
    return score - 0.5 * says(profile.name, TRUTH_WORDS)


def _checked(scored: Sequence[tuple[float, ColumnProfile]]) -> ColumnProfile | None:
    """The column of true labels beside a column of given ones, by their names, if both hold the same values."""
    likely = [each for score, each in scored if score > 0]
    pairs = [
        (one, other) for one in likely for other in likely if one is not other and _same_values(one, other)
    ]
    for one, other in pairs:
        if says(other.name, TRUTH_WORDS) and not says(one.name, TRUTH_WORDS):
            return other
    for one, other in pairs:
        if says(one.name, NOISY_WORDS) and not says(other.name, NOISY_WORDS):
            return other
    return None


def _same_values(one: ColumnProfile, other: ColumnProfile) -> bool:
    first, second = ({*(each.values or each.items)} for each in (one, other))
    return bool(first and second) and len(first & second) >= _SHARED * min(len(first), len(second))


def _why(profile: ColumnProfile, separator: str | None) -> str:
    named = (
        "its name says so"
        if hint(profile.name, LABEL_WORDS) >= 1.5
        else "of the columns with few values the likeliest"
    )
    if profile.lists > profile.filled / 2:
        return f"{named}; lists of {len(profile.items):,} different items"
    if separator:
        return f"{named}; {separator!r} stands between several classes"
    return f"{named}; {profile.different:,} different values in {profile.filled:,} rows"


def _names(profiles: Sequence[ColumnProfile]) -> tuple[str, ...]:
    return tuple(each.name for each in profiles)
