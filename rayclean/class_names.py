"""The value that names a class: when two values of label columns, options or answers mean the same class.

People, spreadsheets and exports write one class in many ways. There are three degrees of sameness, and this module is the only
place that knows them:

* `spelling` is how a name is shown: in the Unicode form NFC, without invisible characters, with single blanks inside and none
  outside. Two values of one spelling are the same class.
* `class_key` is what values are compared by: the spelling, in which 1, 1.0, "1" and "1.0" are one number, and True, "True",
  "true" and "TRUE" one boolean. "007" and "1.5" are names.
* `near_keys` are shared by names that differ only by case, accents or letters that look alike. Such names may well be two
  classes ("US" and "us"), so they are made one on request only.

`ClassNames` looks values up in a label set.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from rayclean.errors import ConfigError

_NAMES_SHOWN = 50
"""Most names that a message lists."""
_CHARACTERS_SHOWN = 100
"""Longest value that a message shows whole."""
_CHARACTERS_CACHED = 200
"""Longest value that is kept in memory: a column of texts may have been taken for one of labels."""

_ZWNJ, _ZWJ = "\u200c", "\u200d"

_INVISIBLE = dict.fromkeys(
    [
        0x00AD,  # soft hyphen
        0x034F,  # combining grapheme joiner
        0x061C,  # Arabic letter mark
        0x180E,  # Mongolian vowel separator
        0x200B,  # zero-width space
        *(0x200E, 0x200F),  # marks of direction
        *range(0x202A, 0x202F),  # embeddings of direction
        *range(0x2060, 0x2070),  # word joiner, invisible operators, isolates of direction
        0xFEFF,  # byte order mark
        *range(0xFFF9, 0xFFFC),  # interlinear annotations
        *(
            code
            for code in range(0xA0)
            if unicodedata.category(chr(code)) == "Cc" and not chr(code).isspace()
        ),
    ]
)
"""Characters that leave no trace on the screen; control characters that are no blanks are among them."""
_BLANKS = dict.fromkeys([0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0], " ")
"""Fillers, which look like blanks, though Unicode counts them among letters and symbols."""
_FLAG_TAGS = re.compile("(\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f)|[\U000e0000-\U000e007f]")
"""Tag characters: they spell the flags of regions (Scotland), and are invisible anywhere else."""

_WITHOUT_JOINERS = frozenset(
    "LATIN GREEK CYRILLIC ARMENIAN GEORGIAN HEBREW THAI LAO ETHIOPIC CJK HIRAGANA KATAKANA HANGUL BOPOMOFO COMBINING "
    "FULLWIDTH HALFWIDTH MODIFIER".split()
)
"""First words of the names of characters between which a joiner changes nothing."""

_NUMBER = re.compile(r"([+-]?)(0|[1-9][0-9]{0,17})(?:\.0*)?")
_SUPERFLUOUS = re.compile("(?<= ) |^ | $")
_BOOLEANS = ("true", "false")

_ALIKE = str.maketrans(
    # Cyrillic, Greek, Armenian and other letters, then dashes and quotes
    "асеорхуіјѕԁԛԝһӏѵк" "АВСЕНІЈКМОРЅТХУѴԚԜӀ" "οναρικυχ" "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ" "օսıɑɡ" "‐‑‒–—−" "‘’‛′ʼ´`" "“”„″",
    "aceopxyijsdqwhlvk" "ABCEHIJKMOPSTXYVQWI" "ovapikux" "ABEZHIKMNOPTYX" "ouiag" "------" "'''''''" '""""',
)  # fmt: skip
"""Characters that a reader takes for others."""
_NO_LETTERS = re.compile("[\u0300-\u036f\ufe00-\ufe0f\u200c\u200d\U000e0100-\U000e01ef]")
"""Accents, and what chooses the form of the character before."""


def spelling(text: str) -> str:
    r"""How a name is shown: NFC, without invisible characters, with single blanks inside and none outside.

    All blanks of Unicode count, line breaks included. Joiners stay where they have an effect: in emoji, and in scripts whose
    letters they join or divide.

    >>> spelling(" credit\u00a0 card\u200b"), spelling("cafe\u0301") == "café"
    ('credit card', True)
    >>> [len(spelling(text)) for text in ("a\u200db", "👩\u200d🚀")]
    [2, 3]
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    return _cached_clean(text) if len(text) <= _CHARACTERS_CACHED else _clean(text)


def _clean(text: str) -> str:
    text = _FLAG_TAGS.sub(r"\1", unicodedata.normalize("NFC", text).translate(_INVISIBLE).translate(_BLANKS))
    if _ZWNJ in text or _ZWJ in text:
        text = _without_idle_joiners(text)
    return " ".join(unicodedata.normalize("NFC", text).split())


_cached_clean = lru_cache(65536)(_clean)


def class_key(value: str) -> str:
    """What a value is compared by; "" for a value that shows nothing.

    >>> [class_key(value) for value in ("1.0", "+1", "-1.00", "007", "1.5", "TRUE", "True story")]
    ['1', '1', '-1', '007', '1.5', 'true', 'True story']
    """
    text = spelling(value)
    if number := _NUMBER.fullmatch(text):
        sign, digits = number.groups()
        return f"-{digits}" if sign == "-" and digits != "0" else digits
    return text.lower() if text.lower() in _BOOLEANS else text


def is_number(key: str) -> bool:
    """Whether a class key is a whole number.

    >>> [is_number(key) for key in ("3", "-1", "007", "1.5", "x")]
    [True, True, False, False, False]
    """
    return _NUMBER.fullmatch(key) is not None


def near_keys(name: str) -> tuple[str, str]:
    """Two keys; names that share one of them differ only by case, accents, zeros before a number, or look-alike characters.

    >>> near_keys("Café")[0] == near_keys("CAFE")[0]
    True
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
    ('case', 'accents', 'zeros before the number')
    >>> difference("cop", "\u0441op")
    'characters that look alike (U+0441 CYRILLIC SMALL LETTER ES)'
    """
    if name.casefold() == other.casefold():
        return "case"
    if name.lstrip("0") == other.lstrip("0"):
        return "zeros before the number"
    if near_keys(name)[0] == near_keys(other)[0]:
        return "accents"
    foreign = sorted((set(name) ^ set(other)) - {chr(code) for code in range(128)})
    named = [f"U+{ord(char):04X} {unicodedata.name(char, 'without a name')}" for char in foreign[:2]]
    return f"characters that look alike ({', '.join(named)})" if named else "characters that look alike"


class ClassNames:
    """The names of a label set, looked up by what they mean.

    Args:
        names: [K], no two of one `class_key`.
        merge: whether values that are near a name (`near_keys`) are that class.
    """

    def __init__(self, names: Sequence[str], merge: bool = False):
        self.names = list(names)
        self.merge = merge
        self._by_key: dict[str, int] = {}
        self._near: dict[tuple[int, str], set[int]] = {}
        self._hints: dict[str, str] = {}
        for index, name in enumerate(self.names):
            self._by_key.setdefault(class_key(name), index)
            for key in enumerate(near_keys(name)):
                self._near.setdefault(key, set()).add(index)

    def index(self, value: str) -> int | None:
        """Index of the class that a value of the data names; None if it names none.

        >>> names = ClassNames(["Ham", "1"])
        >>> names.index(" Ham"), names.index("1.0"), names.index("ham")
        (0, 1, None)
        """
        found = self._by_key.get(class_key(value))
        return self.find(value) if found is None and self.merge else found

    def find(self, value: str) -> int | None:
        """Index of the class that a person means: `index`, else the only name that is near.

        >>> ClassNames(["Ham", "spam"]).find("ham"), ClassNames(["Ham", "HAM"]).find("ham")
        (0, None)
        """
        found = self._by_key.get(class_key(value))
        if found is not None:
            return found
        near = {index for key in enumerate(near_keys(value)) for index in self._near.get(key, ())}
        return near.pop() if len(near) == 1 else None

    def require(self, name: str, where: str) -> int:
        """Index of the class that a person means (`find`).

        Args:
            name: the class, as the person writes it.
            where: the option or argument that names it, for the message.

        Raises:
            ConfigError: there is no such class, or several are near.
        """
        index = self.find(name)
        if index is None:
            raise ConfigError(f"{where}: unknown label {visible(name)}; {self.hint(name)}")
        return index

    def hint(self, value: str) -> str:
        """The end of a message about a value that names no class: the nearest names, and the first of all.

        >>> ClassNames(["tech", "sports"]).hint("sprots")
        'did you mean sports? known: sports, tech'
        """
        if value not in self._hints:  # thousands of rows may hold one wrong value
            nearest = self.nearest(value)
            hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
            self._hints[value] = f"{hint}known: {', '.join(sorted(self.names)[:_NAMES_SHOWN])}"
        return self._hints[value]

    def nearest(self, value: str) -> list[str]:
        """Up to three names that a wrong value may stand for, the most similar first.

        >>> ClassNames(["sports", "tech"]).nearest("SPROTS")
        ['sports']
        """
        near = {index for key in enumerate(near_keys(value)) for index in self._near.get(key, ())}
        if near:
            return [self.names[index] for index in sorted(near)[:3]]
        by_key = {near_keys(name)[0]: name for name in reversed(self.names)}
        close = difflib.get_close_matches(near_keys(value)[0], by_key, n=3, cutoff=0.5)
        return [by_key[key] for key in close]


def visible(value: str) -> str:
    r"""A value for messages, in which superfluous blanks and what is invisible or not in NFC can be seen.

    >>> print(visible("credit\u00a0card"), visible("credit  card"), visible("caf\u00e9"), visible("cafe\u0301"))
    'credit\xa0card' 'credit \x20card' 'café' 'cafe\u0301'
    """
    if len(value) > _CHARACTERS_SHOWN:
        value = value[:_CHARACTERS_SHOWN] + "..."
    written = repr(value) if unicodedata.is_normalized("NFC", value) else ascii(value)
    return written[0] + _SUPERFLUOUS.sub(r"\\x20", written[1:-1]) + written[-1]


def _without_case(text: str) -> str:
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    text = _NO_LETTERS.sub("", text)
    return (text.lstrip("0") or "0") if text.isdigit() else text


def _without_idle_joiners(text: str) -> str:
    """Drop the joiners that neither compose an emoji nor stand between letters of a script that knows them."""
    kept: list[str] = []
    for position, char in enumerate(text):
        if char in (_ZWNJ, _ZWJ):
            before = kept[-1] if kept else " "
            after = next((each for each in text[position + 1 :] if each not in (_ZWNJ, _ZWJ)), " ")
            if before in (_ZWNJ, _ZWJ) or _stands_alone(before) or _stands_alone(after):
                continue
        kept.append(char)
    return "".join(kept)


def _stands_alone(char: str) -> bool:
    """Whether a joiner beside a character changes nothing."""
    first_word = unicodedata.name(char, "").partition(" ")[0].partition("-")[0]
    return unicodedata.category(char)[0] in "PNZC" or first_word in _WITHOUT_JOINERS
