"""`example_id`: an int64 that belongs to an example whatever machine, order, sharding or other examples.

With a user's key it is a hash of the key alone, otherwise of the file's name and the row in it.
"""

from rayclean.hashing import int64

PADDING = -1
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
    value = PADDING
    while value == PADDING:
        value = int64(content)
        content += b"\0"
    return value
