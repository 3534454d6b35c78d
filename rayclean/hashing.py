"""Hashes of texts and files, the same in every process and on every machine.

Example ids, keys of the ledger, names of models and folds are made of these values and kept for ever: a
function here must always return what it returns today. Hashes of whole arrays of ids are in
`rayclean.functional.hashing`.
"""

import hashlib
import unicodedata
import zlib
from collections.abc import Iterable
from os import PathLike
from typing import Literal


def digest(content: str | bytes, digits: int = 32) -> str:
    """BLAKE2b of a text or of bytes, as so many hexadecimal digits.

    >>> digest("text", digits=16)
    'd7f35fa228381a1c'
    """
    return hashlib.blake2b(_bytes(content), digest_size=digits // 2).hexdigest()


def int64(content: str | bytes) -> int:
    """BLAKE2b of a text or of bytes, as a signed integer of 64 bits.

    >>> int64("text")
    2024992729630503895
    """
    return int.from_bytes(hashlib.blake2b(_bytes(content), digest_size=8).digest(), "little", signed=True)


def text_group(text: str) -> int:
    """A number for all texts that differ only in case, blanks or the form of their Unicode: copies, for a reader.

    >>> text_group("Good  morning ") == text_group("good morning"), text_group("good") == text_group("bad")
    (True, False)
    """
    return int64(" ".join(unicodedata.normalize("NFC", text).casefold().split()))


def uint32(text: str) -> int:
    """CRC-32 of a text: fast, and good enough for buckets and for names that a person has chosen.

    >>> uint32("text")
    999008199
    """
    return zlib.crc32(_bytes(text))


def sha256(chunks: Iterable[bytes]) -> str:
    """SHA-256 of bytes that come in chunks, as 64 hexadecimal digits."""
    hashed = hashlib.sha256()
    for chunk in chunks:
        hashed.update(chunk)
    return hashed.hexdigest()


def file_digest(path: str | PathLike[str], algorithm: Literal["blake2b", "sha256"] = "blake2b") -> str:
    """The content of a file as 32 (BLAKE2b) or 64 (SHA-256) hexadecimal digits, read in pieces.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        if algorithm == "sha256":
            return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _bytes(content: str | bytes) -> bytes:
    """UTF-8; half of a surrogate pair, which a broken file may hold, is no error."""
    return content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
