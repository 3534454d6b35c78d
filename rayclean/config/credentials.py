"""Passwords and tokens have no place in a config: it is kept in the run folder and shown in the report, sent to a cluster
and to W&B. They come from the environment, where the file systems look for them by themselves.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rayclean.plugins import Credential

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NETLOC_END = re.compile(r"[/?#\s]")
_NO_CREDENTIALS = ("hf", "github")
"""Protocols whose addresses hold `name:part@revision` in the place of a user and a password."""
_ANY_USER = ("http", "https")
"""Protocols where a user alone is a token."""
_PARAMETER = re.compile(
    r"[?&;](?:[\w.-]*[-_])?(?:access_?key|account_?key|api_?key|auth|credentials?|key|pass|passwd|password|pwd|sas|secret|"
    r"sig|signature|token)=[^&#\s]",
    re.IGNORECASE,
)
ADVICE = (
    "Leave it out: s3://, gs:// and abfs:// take keys from the environment (AWS_ACCESS_KEY_ID, "
    "GOOGLE_APPLICATION_CREDENTIALS, ...), every other protocol from FSSPEC_<PROTOCOL>, as in "
    """FSSPEC_FTP='{"username": "...", "password": "..."}', and an annotator from the variable that annotator.api_key_env names"""
)
"""The end of a message: where credentials belong."""


def refuse_credentials(values: Any) -> Any:
    """The values of a config, unchanged.

    Raises:
        Credential: an address among them holds a password, a token or a key.
    """
    for path, text in _texts(values, ""):
        if holds_credential(text):
            raise Credential(
                f"{path}: this address holds a password, a token or a key, which would be kept in the run folder and shown in "
                f"the report. {ADVICE}"
            )
    return values


def holds_credential(text: str) -> bool:
    """Whether a text holds an address with a password, a token or a key in it.

    >>> holds_credential("ftp://anna:pa55@host/a.csv"), holds_credential("https://host/a.csv?token=x")
    (True, True)
    >>> holds_credential("sftp://anna@host/a.csv"), holds_credential("hf://glue:sst2@main"), holds_credential("a:b@c")
    (False, False, False)
    """
    for match in _SCHEME.finditer(text):
        scheme = match[1].lower()
        user, at, _ = _NETLOC_END.split(text[match.end() :], maxsplit=1)[0].rpartition("@")
        if at and scheme not in _NO_CREDENTIALS and (scheme in _ANY_USER or user.partition(":")[2]):
            return True
        if _PARAMETER.search(text, match.end()):
            return True
    return False


def _texts(values: Any, path: str) -> Iterator[tuple[str, str]]:
    """Dotted path and text of every text in nested values."""
    if isinstance(values, str):
        yield path, values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _texts(value, f"{path}.{key}".lstrip("."))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value, path)
