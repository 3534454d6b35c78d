"""Words without a vocabulary: a text becomes hashes of its words, so there is nothing to fit, to store or to ship.

Two words may share a row of the embedding table; with a table several times the number of frequent words that
costs little (Weinberger et al., "Feature hashing for large scale multitask learning", 2009).
"""

import functools
import itertools
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rayclean.hashing import uint32
from rayclean.models.base import Tokenizer

PAD, EMPTY, RESERVED = 0, 1, 2
"""Ids that are no word: padding, and a text without any word."""

_WORD = re.compile(r"\w+|[^\w\s]")


@functools.lru_cache(maxsize=1 << 17)
def _hash(word: str) -> int:
    return uint32(word)


class WordTokenizer(Tokenizer):
    """Lower-cased words and punctuation marks, hashed into `buckets` rows.

    Args:
        buckets: size of the embedding table, reserved rows included.
        max_length: words read of each text.
        bigrams: append the hash of every pair of neighbouring words; a text of L words then has 2 L - 1 ids.
    """

    pad_id = PAD
    special_ids = frozenset({PAD, EMPTY})

    def __init__(self, buckets: int, max_length: int, bigrams: bool = False):
        self.buckets, self.max_length, self.bigrams = buckets, max_length, bigrams
        self.vocabulary = buckets

    def __call__(self, texts: Sequence[str]) -> tuple[list[npt.NDArray[np.int32]], npt.NDArray[np.bool_]]:
        """Ids per text, and whether it was cut."""
        tokens, cut = [], np.zeros(len(texts), dtype=np.bool_)
        for row, text in enumerate(texts):
            words = self._words(text)
            cut[row] = len(words) > self.max_length
            words = words[: self.max_length]
            hashes = [_hash(word) for word in words]
            if self.bigrams:
                hashes += [_hash(f"{first} {second}") for first, second in itertools.pairwise(words)]
            ids = np.asarray(hashes, dtype=np.int64) % (self.buckets - RESERVED) + RESERVED
            tokens.append(ids.astype(np.int32) if len(ids) else np.array([EMPTY], dtype=np.int32))
        return tokens, cut

    def _words(self, text: str) -> list[str]:
        """At most one word more than needed: the rest of a long text is never looked at."""
        words = []
        for match in _WORD.finditer(text):
            words.append(match.group().lower())
            if len(words) > self.max_length:
                break
        return words
