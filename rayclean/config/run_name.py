"""The name of a run whose config names none: that of its file, so that two configs do not share a run folder."""

import re
import unicodedata
from pathlib import Path

from rayclean.hashing import digest

WITHOUT_FILE = "run"
"""Name of a run whose config comes from no file, or from one whose name holds neither letters nor digits."""


def name_of_file(path: str | Path) -> str:
    """The name of a config file or of a data file as the name of a run: without its folder and its ending.

    Accents are dropped, and what a name cannot hold becomes a hyphen. Letters that have no Latin form are replaced by a
    hash of all of them, so that two such files have two names.

    >>> name_of_file("jobs/tickets.toml"), name_of_file("Émail (v2).toml"), name_of_file("数据.toml")
    ('tickets', 'Email-v2', '2073ec9e')
    """
    stem = Path(path).stem
    plain = _ascii(stem)
    parts = [re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("._-")]
    if any(letter.isalnum() and not _ascii(letter) for letter in stem):
        parts.append(digest(stem, digits=8))
    return "-".join(filter(None, parts)) or WITHOUT_FILE


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
