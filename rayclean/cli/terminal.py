"""Data on a terminal: as data, whatever it holds."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import typer
from rich.text import Text

OTHER_TEXT = 300
"""Characters of another example's text that are shown."""


def readable(text: str) -> str:
    r"""A text in which whatever a terminal would obey or hide is written as an escape; line breaks stay.

    >>> print(readable("a\x1b[31m\tb\u202ec"))
    a\x1b[31m\tb\u202ec
    """
    return "".join(
        char if char == "\n" or char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


def cut(text: str, characters: int | None) -> str:
    """The beginning of a text, and how much is left out; all of it with None.

    >>> cut("abcdefgh", 5), cut("abc", 5)
    ('abcde … (3 characters more)', 'abc')
    """
    if characters is None or len(text) <= characters:
        return text
    return f"{text[:characters]} … ({len(text) - characters:,} characters more)"


def as_data(text: str, style: str = "") -> Text:
    """A text for a table: no markup, nothing that moves the cursor."""
    return Text(readable(text), style=style, overflow="fold")


def when(time: float) -> str:
    """A Unix time in the time zone of this machine."""
    return datetime.fromtimestamp(time).astimezone().isoformat(" ", "seconds")


def print_json(values: Mapping[str, Any]) -> None:
    """Print one JSON document on stdout, in ASCII, so that no terminal and no encoding changes it."""
    typer.echo(json.dumps(values, indent=1, allow_nan=False))
