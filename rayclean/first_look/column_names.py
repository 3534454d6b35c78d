"""What the name of a column says about what it holds."""

import re

TEXT_WORDS = {
    "text": 4, "body": 4, "content": 3, "message": 3, "sentence": 3, "review": 3, "comment": 3, "utterance": 3, "tweet": 3,
    "document": 3, "article": 3, "description": 2.5, "question": 2.5, "query": 2, "abstract": 3, "post": 2, "prompt": 2,
    "title": 1.5, "subject": 1.5, "headline": 1.5, "summary": 1.5, "name": -1, "note": 1, "notes": 1,
}  # fmt: skip
"""Words in names of columns of texts -> how much they say."""
LABEL_WORDS = {
    "label": 4, "labels": 4, "class": 4, "category": 4, "categories": 4, "target": 3.5, "intent": 3.5, "topic": 3.5,
    "sentiment": 3.5, "classes": 3.5, "y": 2.5, "emotion": 3, "tag": 2.5, "tags": 2.5, "genre": 2.5, "stance": 3, "type": 1.5,
    "kind": 1.5, "section": 2, "department": 2, "queue": 2, "polarity": 3, "toxic": 2.5, "spam": 2.5, "rating": 2, "stars": 2,
    "relation": 2.5, "ner": 3, "answer": 1, "group": 0.5,
}  # fmt: skip
"""Words in names of columns of labels -> how much they say."""
NO_LABEL_WORDS = frozenset(
    "split fold lang language source status date time year month day id index score user author country city state version "
    "annotator worker confidence channel url gender number count length file page customer account order".split()
)
"""Words in names of columns that have few values and are no labels."""
TRUTH_WORDS = frozenset(
    "true truth gold golden clean correct corrected expert reviewed verified actual".split()
)
"""Words in names of columns of labels that somebody has checked."""
NOISY_WORDS = frozenset("noisy weak crowd given raw original distant silver".split())
"""Words in names of columns of labels that nobody has checked."""
KEY_WORDS = frozenset("id key uuid guid index idx number no nr row hash pk".split())
"""Words in names of columns of keys."""
GROUP_WORDS = frozenset(
    "customer user author document doc thread conversation session patient speaker group account dialogue dialog article "
    "product company organisation organization".split()
)
"""Words in names of columns of what rows have in common."""


def words_of(name: str) -> list[str]:
    """The words of a column's name, in lower case.

    >>> words_of("data.ticketLabel_gold 2"), words_of("ID")
    (['data', 'ticket', 'label', 'gold', '2'], ['id'])
    """
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W\d_]+|\d+", apart.lower())


def hint(name: str, weights: dict[str, float]) -> float:
    """How much a name says for a role: the highest weight of its words, less where other words stand beside it; 0 for none.

    >>> hint("category", LABEL_WORDS) > hint("sub_category", LABEL_WORDS) > hint("price", LABEL_WORDS)
    True
    """
    words = words_of(name)
    found = max((weights[word] for word in words if word in weights), default=0.0)
    return found - 0.25 * (len(words) - 1) if found > 0 else found


def says(name: str, words: frozenset[str]) -> bool:
    """Whether any of some words is in a name."""
    return not words.isdisjoint(words_of(name))
