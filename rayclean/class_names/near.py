"""Names that a reader takes for each other: they differ by case, accents, punctuation or characters that look alike."""

import difflib
import re
import unicodedata
from collections.abc import Iterable

from rayclean.class_names.spelling import class_key, is_numeric

_ALIKE = str.maketrans(
    # Cyrillic, Greek, Armenian and other letters, then dashes and quotes
    "асеорхуіјѕԁԛԝһӏѵк" "АВСЕНІЈКМОРЅТХУѴԚԜӀ" "οναρικυχ" "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ" "օսıɑɡ" "‐‑‒–—−" "‘’‛′ʼ´`" "“”„″",
    "aceopxyijsdqwhlvk" "ABCEHIJKMOPSTXYVQWI" "ovapikux" "ABEZHIKMNOPTYX" "ouiag" "------" "'''''''" '""""',
)  # fmt: skip
"""Characters that a reader takes for others."""
_JOINTS = re.compile(r"(?<=[^\W_])[-_ ]+(?=[^\W_])")
"""What stands between the words of a name: `credit-card`, `credit_card`."""
_THOUSANDS = re.compile(r"(?<=\d)[,' ](?=\d{3}(?!\d))")
_QUOTED, _TRAILING = re.compile(r"""([\"']) *(.+?) *\1"""), re.compile(r"(?<=[^\W_]) ?[.,;:]+$")
_WORD, _DIGIT = re.compile(r"[^\W_]+"), re.compile(r"\d")
_SIMILAR = 0.8
"""Similarity of words (`difflib`) from which one is taken for a slip of the other."""
_ACCENTS = re.compile("[\u0300-\u036f]")
_INVISIBLE_FORMS = re.compile("[\ufe00-\ufe0f\u200c\u200d\U000e0100-\U000e01ef]")
"""Joiners, and what chooses the form of the character before."""


def near_keys(name: str) -> tuple[str, str]:
    """Two keys; names that share one of them differ only by case, accents, zeros around a number, what joins words or ends a
    name (hyphens, underscores, full stops, quotes around it), or look-alike characters.

    >>> near_keys("Café")[0] == near_keys("CAFE")[0], near_keys("credit_card")[0] == near_keys("Credit-card.")[0]
    (True, True)
    >>> near_keys("A-")[0] == near_keys("A")[0]
    False
    >>> cyrillic = "\u0441\u043e\u0440"
    >>> near_keys(cyrillic)[1] == near_keys("cop")[1], near_keys(cyrillic)[0] == near_keys("cop")[0]
    (True, False)
    """
    text = class_key(name)
    return _without_case(text), _without_case(unicodedata.normalize("NFKD", text).translate(_ALIKE))


def near_groups(names: Iterable[str]) -> list[list[str]]:
    """Names in groups that are linked by `near_keys`, each name in one; groups and names in the order of the names.

    >>> near_groups(["ham", "spam", "Ham", "eggs", "HAM"])
    [['ham', 'Ham', 'HAM'], ['spam'], ['eggs']]
    """
    groups: list[list[str]] = []
    group_of: dict[tuple[int, str], list[str]] = {}
    for name in names:
        keys = list(enumerate(near_keys(name)))
        linked = [group_of[key] for key in keys if key in group_of]
        group = linked[0] if linked else []
        if not linked:
            groups.append(group)
        for other in linked[1:]:
            if other is not group:  # the name is the link between two groups
                groups = [each for each in groups if each is not other]
                group.extend(other)
                group_of.update({key: group for key, each in group_of.items() if each is other})
        group.append(name)
        group_of.update(dict.fromkeys(keys, group))
    return groups


def difference(name: str, other: str) -> str:
    """By what two names differ that are near each other, for messages.

    >>> difference("Ham", "ham"), difference("resume", "résumé"), difference("01", "1")
    ('case', 'accents', 'zeros around the number')
    >>> difference("credit_card", "Credit card")
    'hyphens, underscores, blanks or punctuation'
    >>> difference("cop", "\u0441op")
    'characters that look alike (U+0441 CYRILLIC SMALL LETTER ES)'
    """
    if name.casefold() == other.casefold():
        return "case"
    if is_numeric(name) and is_numeric(other):
        return "zeros around the number"
    if _INVISIBLE_FORMS.sub("", name).casefold() == _INVISIBLE_FORMS.sub("", other).casefold():
        return "invisible characters"
    if _accents_apart(name) == _accents_apart(other):
        return "accents"
    if near_keys(name)[0] == near_keys(other)[0]:
        return "hyphens, underscores, blanks or punctuation"
    foreign = sorted((set(name) ^ set(other)) - {chr(code) for code in range(128)})
    named = [f"U+{ord(char):04X} {unicodedata.name(char, 'without a name')}" for char in foreign[:2]]
    return f"characters that look alike ({', '.join(named)})" if named else "characters that look alike"


def is_misspelling(name: str, other: str) -> bool:
    """Whether two names are probably one with a slip of the pen: their words are equal or similar, one by one.

    Words that differ in a digit, in their only letter or by what stands before them are no slips.

    >>> pairs = [("sport", "sports"), ("credit-card", "Credit card"), ("wether report", "weather report")]
    >>> [is_misspelling(*pair) for pair in pairs]
    [True, True, True]
    >>> pairs = [("class 1", "class 11"), ("type A", "type B"), ("unrelated", "related"), ("male", "female")]
    >>> [is_misspelling(*pair) for pair in pairs]
    [False, False, False, False]
    """
    words, others = (_WORD.findall(near_keys(each)[0]) for each in (name, other))
    if "".join(words) == "".join(others):
        return bool(words)
    return len(words) == len(others) and all(map(_is_slip, words, others))


def _is_slip(word: str, other: str) -> bool:
    if word == other:
        return True
    if _DIGIT.findall(word) != _DIGIT.findall(other) or word.endswith(other) or other.endswith(word):
        return False
    return min(len(word), len(other)) > 2 and difflib.SequenceMatcher(None, word, other).ratio() >= _SIMILAR


def _accents_apart(text: str) -> str:
    """The text without case and accents."""
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", class_key(text)).casefold())
    return _INVISIBLE_FORMS.sub("", _ACCENTS.sub("", text))


def _without_case(text: str) -> str:
    """The text without all that names may differ in which a reader takes for each other, look-alike characters aside."""
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    text = _INVISIBLE_FORMS.sub("", _ACCENTS.sub("", text))
    if quoted := _QUOTED.fullmatch(text):
        text = quoted[2]
    text = _JOINTS.sub(" ", _TRAILING.sub("", _THOUSANDS.sub("", text)))
    if not is_numeric(text):
        return text
    sign, digits = text[: text.startswith("-")], text.removeprefix("-").lstrip("0")
    return sign + (digits.rstrip("0").rstrip(".") if "." in digits else digits or "0")
