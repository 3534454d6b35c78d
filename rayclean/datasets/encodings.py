"""The encoding of a text file, recognised by its first bytes.

A byte-order mark decides. Without one, what is UTF-8 is UTF-8, and every other byte is zero in UTF-16. Of the older
encodings only cp1252 (Western European, a superset of latin-1) is assumed, only where it gives Western words, and never
without a word: in which of the others a file is written cannot be known surely, and a wrong guess would replace letters, so
they must be named. charset-normalizer proposes which; it takes French for Central European too often to decide.
"""

import codecs
import itertools
import re

from charset_normalizer import from_bytes

from rayclean.datasets.base import SourceFile
from rayclean.errors import DataError

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_NO_TEXT = {
    b"\x1f\x8b": ("gzip", "let its name end in .gz"),
    b"BZh": ("bzip2", "let its name end in .bz2"),
    b"\xfd7zXZ": ("xz", "let its name end in .xz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "let its name end in .zst"),
    b"PK\x03\x04": ("an Excel workbook or a zip archive", "save it as CSV, or unpack it"),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "save it as CSV"),
    b"PAR1": ("Parquet", 'let its name end in .parquet, or set dataset.format = "parquet"'),
    b"%PDF": ("a PDF document", "extract its table into a CSV"),
    b"SQLite format 3": ("an SQLite database", "export its table as CSV"),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file itself with git lfs pull"),
    b"<!doctype": (
        "a web page",
        "download the file itself; a page that asks to sign in is often saved in its place",
    ),
    b"<html": (
        "a web page",
        "download the file itself; a page that asks to sign in is often saved in its place",
    ),
}
"""First bytes of files that hold no table as text, in lower case where they are letters -> what they are, and what to do."""

_WESTERN_SIGNS = frozenset("‚„…‘’“”–—•€™«»¡¿°·§£©®\xa0´×½¼¾ºª")
_WESTERN_LETTERS = frozenset("àáâãäåæçèéêëìíîïñòóôõöøùúûüÿœßÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜŸŒ")
"""Without ð, þ, ý, š and ž, which text in Turkish and Czech encodings turns into or holds much more often than Icelandic."""
_WINDOWS = [*(f"cp{page}" for page in range(1250, 1259)), "cp932", "gb18030", "big5", "cp949"]
"""Encodings that files written on Windows have, to which a guess is limited."""
_BYTES_FOR_GUESS = 64 * 1024
_WORDS, _LETTERS = 3, 30


def marked_encoding(sample: bytes) -> str | None:
    """The encoding that a byte-order mark says; None without one. `TextLines` leaves the mark out."""
    return next((encoding for mark, encoding in _BYTE_ORDER_MARKS if sample.startswith(mark)), None)


def what_is_no_text(sample: bytes) -> tuple[str, str] | None:
    """What the first bytes of a file say it is, if it holds no table as text, and what to do.

    >>> what_is_no_text(b"PAR1...")[0], what_is_no_text(b"text,label")
    ('Parquet', None)
    """
    lower = sample[:100].lstrip().lower()
    return next((found for mark, found in _NO_TEXT.items() if lower.startswith(mark.lower())), None)


def unicode_encoding(file: SourceFile, sample: bytes) -> str | None:
    """The encoding that the first bytes of a file say, by a byte-order mark or as UTF-16 without one; None if they say none.

    Raises:
        DataError: it is no text.
    """
    if what := what_is_no_text(sample):
        raise DataError(f"{file.url}: it is no text but {what[0]}; {what[1]}")
    return marked_encoding(sample) or _utf16_without_mark(sample)


def sniff_encoding(file: SourceFile, sample: bytes, whole: bool) -> tuple[str, str]:
    """The encoding of a file whose format does not say it, like a CSV.

    Args:
        file: for messages.
        sample: its first bytes.
        whole: whether they are all of it.

    Returns:
        Its name, and a remark for people where it was guessed, otherwise "".

    Raises:
        DataError: it is neither Unicode nor Western European; the message says what it likely is.
    """
    encoding = unicode_encoding(file, sample)
    if encoding is not None:
        return encoding, ""
    lines = [line for line in sample.splitlines() if not line.isascii()]
    if not whole and len(lines) > 1:
        del lines[-1]  # it may be cut in the middle of a character
    good = sum(_is_utf8(line) for line in lines)
    if 20 * good >= len(lines) - good:  # damaged UTF-8: those of its rows that are not are rejected
        return "utf-8", ""
    text = b"\n".join(lines)[:_BYTES_FOR_GUESS]
    western = _decoded(text, "cp1252")
    if western is None or not _is_western(western):
        guess = from_bytes(text, cp_isolation=_WINDOWS).best()
        likely = "" if guess is None else f"; it may be {guess.encoding}, which reads {_excerpt(str(guess))}"
        raise DataError(
            f"{file.url}: it is not UTF-8{likely}. Set dataset.encoding to the encoding that it was written in, or convert "
            "it to UTF-8"
        )
    return "cp1252", (
        f"it is not UTF-8 and was read as cp1252 (Western European), for example {_excerpt(western)}; set "
        "dataset.encoding if that is wrong"
    )


def _utf16_without_mark(sample: bytes) -> str | None:
    """UTF-16 by its zeros: of text in Latin letters every other byte is one."""
    sample = sample[: len(sample) // 2 * 2]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if odd > 0.4 * half and odd > 4 * even:
        return "utf-16-le"
    return "utf-16-be" if even > 0.4 * half and even > 4 * odd else None


def _is_utf8(line: bytes) -> bool:
    return _decoded(line, "utf-8") is not None


def _decoded(content: bytes, encoding: str) -> str | None:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        return None


def _is_western(text: str) -> bool:
    """Whether all that is not ASCII are Western signs, or letters in words that are mostly ASCII.

    >>> _is_western("café Müller “naïve”"), _is_western("cafŽ"), _is_western("Ïðèâåò")
    (True, False, False)
    """
    words = re.findall(r"[^\W\d_ºª]+", text)
    foreign = [each for word in words for each in word if not each.isascii()]
    known = all(each in _WESTERN_LETTERS for each in foreign) and all(
        each.isascii() or each.isalpha() or each in _WESTERN_SIGNS for each in text
    )
    capital_inside = any(
        first.islower() and second.isupper() and not second.isascii()
        for word in words
        for first, second in itertools.pairwise(word)
    )
    sign_inside = re.search(r"[^\W\d_][¡¿ºª§£©®][^\W\d_]", text)
    return known and not capital_inside and sign_inside is None and 2 * len(foreign) <= sum(map(len, words))


def _excerpt(text: str) -> str:
    """The first words that are not ASCII."""
    words = re.findall(r"[^\s,;|\"]+", text)
    found = dict.fromkeys(word[:_LETTERS] for word in words if not word.isascii())
    return ", ".join(itertools.islice(found, _WORDS))
