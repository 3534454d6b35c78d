"""`example_id`: an int64 that does not depend on the machine, the order, the shards or the other examples.

It is a hash of the user's key where there is one, and of the file's name and the row's number otherwise.
"""

from rayclean.hashing import int64

_PADDING = -1
"""Never an `example_id`: samplers fill up batches with it."""


def key_id(key: str | int) -> int:
    """The id of a user's key; the string "1" and the integer 1 are different keys.

    >>> key_id("1"), key_id(1)
    (-1227777692984573623, 8727818820637439042)
    """
    return _hash(f"{'i' if isinstance(key, int) else 's'}:{key}")


def row_id(role: str, name: str, row: int) -> int:
    """The id of a row without a key.

    Args:
        role: "data", "dev" or "test": which of the config's paths names the file.
        name: the file's path relative to the common root of the given paths.
        row: 0-based row in the file.
    """
    return _hash(f"r:{role}:{name}:{row}")


def _hash(text: str) -> int:
    content = text.encode("utf-8", "surrogatepass")
    value = _PADDING
    while value == _PADDING:
        value = int64(content)
        content += b"\0"
    return value
