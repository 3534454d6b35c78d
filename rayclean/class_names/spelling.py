"""How a value is spelled, and the key that values of one class have in common."""

import re
import unicodedata
from functools import lru_cache

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


def is_numeric(key: str) -> bool:
    """Whether a class key is a number of any kind.

    >>> [is_numeric(key) for key in ("3", "-1.5", "007", "x", "1.2.3")]
    [True, True, True, False, False]
    """
    return key.removeprefix("-").replace(".", "", 1).isdecimal()


def visible(value: str) -> str:
    r"""A value for messages, in which superfluous blanks and what is invisible or not in NFC can be seen.

    >>> print(visible("credit\u00a0card"), visible("credit  card"), visible("caf\u00e9"), visible("cafe\u0301"))
    'credit\xa0card' 'credit \x20card' 'café' 'cafe\u0301'
    """
    if len(value) > _CHARACTERS_SHOWN:
        value = value[:_CHARACTERS_SHOWN] + "..."
    written = repr(value) if unicodedata.is_normalized("NFC", value) else ascii(value)
    return written[0] + _SUPERFLUOUS.sub(r"\\x20", written[1:-1]) + written[-1]


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
