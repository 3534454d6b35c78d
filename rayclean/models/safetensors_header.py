"""Metadata of a safetensors file whose bytes are in memory; the library itself reads it from local files
alone.
"""

import json


def metadata_of(content: bytes) -> dict[str, str]:
    """Metadata of a safetensors file: eight bytes with the header's length, then the header, which is JSON.

    >>> from safetensors.numpy import save
    >>> metadata_of(save({}, metadata={"epoch": "3"}))
    {'epoch': '3'}
    """
    length = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return metadata
