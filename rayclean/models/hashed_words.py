"""Words without a vocabulary: a text becomes hashes of its words, so there is nothing to fit, to store or to
ship.

Two words may share a row of the embedding table; with a table several times the number of frequent words that
costs little (Weinberger et al., "Feature hashing for large scale multitask learning", 2009).
"""

import functools
import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rayclean.fingerprints import fingerprint
from rayclean.hashing import uint32
from rayclean.models.base import Encoder, Tokenizer

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
            tokens.append(self._ids(hashes))
        return tokens, cut

    def tokenize_words(
        self, texts: Sequence[Sequence[str]]
    ) -> tuple[list[npt.NDArray[np.int32]], list[npt.NDArray[np.int32]], npt.NDArray[np.bool_]]:
        """One id per word of the text, whatever is in it, so that each word is its own first token."""
        tokens, first_tokens, cut = [], [], np.zeros(len(texts), dtype=np.bool_)
        for row, words in enumerate(texts):
            cut[row] = len(words) > self.max_length
            hashes = [_hash(word.lower()) for word in words[: self.max_length]]
            tokens.append(self._ids(hashes))
            places = np.arange(len(words), dtype=np.int32)
            places[self.max_length :] = -1
            first_tokens.append(places)
        return tokens, first_tokens, cut

    def identity(self) -> str:
        """Hash of the class and its options."""
        return fingerprint(type(self).__module__, type(self).__qualname__, vars(self))

    def _ids(self, hashes: list[int]) -> npt.NDArray[np.int32]:
        ids = np.asarray(hashes, dtype=np.int64) % (self.buckets - RESERVED) + RESERVED
        return ids.astype(np.int32) if len(ids) else np.array([EMPTY], dtype=np.int32)

    def _words(self, text: str) -> list[str]:
        """At most one word more than needed: the rest of a long text is never looked at."""
        words = []
        for match in _WORD.finditer(text):
            words.append(match.group().lower())
            if len(words) > self.max_length:
                break
        return words


class WordEncoder(Encoder):
    """Base of the encoders that learn a table of embeddings of hashed words, `self.embedding`, from scratch.

    An optimiser reads and writes the whole table in every step, although the rows of words that no text uses
    never get a gradient. `keep_tokens` announces which token ids a training will meet, and it works on the
    table of these: with a thousand short texts it is a tenth of the table, and a step takes a tenth of the
    time. Rows that are left out keep their initial values.
    """

    embedding: nn.Embedding | nn.EmbeddingBag

    def __init__(self, config: Any, num_classes: int, per_token: bool = False):
        super().__init__(config, num_classes, per_token)
        self.kept: Tensor | None = None
        """[U] sorted token ids whose rows are in `embedding`; None: all."""

    def keep_tokens(self, used: npt.NDArray[np.int64]) -> None:
        """Leave in `embedding` the rows of padding and of these token ids; `weights` has them all
        nevertheless.
        """
        table = self.embedding.weight.detach()
        self.kept = torch.from_numpy(np.union1d([PAD], used)).to(table.device)
        self.whole_table = table
        self.row_of_token = torch.full((len(table),), -1, device=table.device)
        self.row_of_token[self.kept] = torch.arange(len(self.kept), device=table.device)
        self.embedding.weight = nn.Parameter(table[self.kept])

    def rows(self, token_ids: Tensor) -> Tensor:
        """Rows of `embedding` that hold the embeddings of token ids [B, L]."""
        return token_ids if self.kept is None else self.row_of_token[token_ids]

    def weights(self) -> dict[str, Tensor]:
        """All weights, with the whole table."""
        weights = super().weights()
        if self.kept is not None:
            weights["embedding.weight"] = self.whole_table.index_copy(
                0, self.kept, self.embedding.weight.detach()
            )
        return weights
