"""Tags of spans in the scheme BIO, and other schemes converted to it.

| scheme | first token of a span | inside | last token | span of one token |
|---|---|---|---|---|
| BIO (IOB2) | `B-X` | `I-X` | `I-X` | `B-X` |
| IOB1 | `I-X`; `B-X` right after another span of X | `I-X` | `I-X` | `I-X` |
| IOBES | `B-X` | `I-X` | `E-X` | `S-X` |
| BILOU | `B-X` | `I-X` | `L-X` | `U-X` |

A tag is `O` (outside of all spans), or one of the prefixes, a hyphen, and the entity class X.

Sources: Ramshaw & Marcus, "Text Chunking using Transformation-Based Learning", 1995 (IOB1); Tjong Kim Sang, CoNLL-2002
(BIO); Ratinov & Roth, "Design Challenges and Misconceptions in Named Entity Recognition", CoNLL 2009 (BILOU).
"""

from collections.abc import Iterable, Sequence

OUTSIDE = "O"
"""The tag of a token that belongs to no span."""

_OPEN, _CLOSE = "BSU", "ESUL"  # prefixes that begin and that end a span


def is_tag(text: str) -> bool:
    """Whether a text is a tag of one of the schemes.

    >>> [is_tag(text) for text in ("O", "B-PER", "L-work of art", "PER", "B-", "o")]
    [True, True, True, False, False, False]
    """
    return text == OUTSIDE or (len(text) > 2 and text[0] in "BIESUL" and text[1] == "-")


def to_bio(tags: Sequence[str]) -> tuple[list[str], int]:
    """Tags of any of the schemes as BIO, and how many had to be repaired.

    `I-X` (also `E-X`, `L-X`) that does not follow an open span of X begins a span: it becomes `B-X`.

    Args:
        tags: one per token, each with `is_tag`.

    >>> to_bio(["I-PER", "I-PER", "O", "U-LOC", "B-ORG", "L-ORG", "I-ORG"])
    (['B-PER', 'I-PER', 'O', 'B-LOC', 'B-ORG', 'I-ORG', 'B-ORG'], 2)
    """
    found, repaired, open_class = [], 0, ""
    for tag in tags:
        prefix, name = tag[0], tag[2:]
        if tag == OUTSIDE:
            found.append(tag)
        elif prefix in _OPEN:
            found.append(f"B-{name}")
        elif name == open_class:
            found.append(f"I-{name}")
        else:
            found.append(f"B-{name}")
            repaired += 1
        open_class = "" if tag == OUTSIDE or prefix in _CLOSE else name
    return found, repaired


def entity_classes(tags: Iterable[str]) -> list[str]:
    """The entity classes of tags, each once, in the order of their first tags.

    >>> entity_classes(["O", "B-PER", "I-PER", "B-LOC"])
    ['PER', 'LOC']
    """
    return list(dict.fromkeys(tag[2:] for tag in tags if tag != OUTSIDE))


def bio_tags(classes: Iterable[str]) -> list[str]:
    """All tags of entity classes in the order of their numbers: O, then B- and I- of each class.

    >>> bio_tags(["LOC", "PER"])
    ['O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER']
    """
    return [OUTSIDE, *(f"{prefix}-{name}" for name in classes for prefix in "BI")]
