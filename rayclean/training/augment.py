"""What label-preserving augmentations of texts are made of, for views (LANE, SCL and LCL).

| source | what it gives | reference |
|---|---|---|
| `switch_counts` | how many tokens SwitchOut replaces | Wang et al., EMNLP 2018 |
| `Synonyms` | neighbours of a word in a table of word embeddings | |
| `WordNet` | members of a word's synsets | Miller, CACM 1995 |
| `BackTranslation` | a text translated to another language and back by a user's function | Sennrich et al., ACL 2016 |

LANE does not state the replaced share; it is assumed to be 10 % of the words, for SwitchOut in expectation. The first three are
applied to tokens by `training/rewrites.py`.
"""

import functools
import importlib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from rayclean.errors import ConfigError, DataError
from rayclean.plugins import resolve

Translate = Callable[[Sequence[str]], Sequence[str]]

SHARE = 0.1
"""Share of the words that an operation changes."""
MIN_COSINE = 0.6
"""Least cosine similarity of two words' embeddings for one to replace the other."""
MAX_SYNONYMS = 10
"""Most replacements considered for a word."""
AT_ONCE = 256
"""Words whose neighbours are found by one product with a table of embeddings."""
_COARSE = 1e-4
"""By more than this no cosine in single precision is wrong."""
_WORD = re.compile(r"[^\W\d_]+")


@functools.lru_cache(maxsize=512)
def switch_counts(length: int, share: float = SHARE) -> npt.NDArray[np.float64]:
    """p(n) ~ exp(-n / tau) for n = 0..length, with tau such that E[n] = share x length.

    Raises:
        ValueError: share outside (0, 0.5), which no tau > 0 reaches.

    >>> switch_counts(1).round(3)
    array([0.9, 0.1])
    """
    if not 0 < share < 0.5:
        raise ValueError(f"share must be in (0, 0.5), got {share}")
    numbers = np.arange(length + 1)

    def distribution(rate: float) -> npt.NDArray[np.float64]:  # rate = 1 / tau
        weights = np.exp(-rate * numbers)
        return np.asarray(weights / weights.sum())

    def excess(rate: float) -> float:
        return float(distribution(rate) @ numbers) - share * length

    # E[n] falls from length / 2 at rate 0 to below 1 / (e^rate - 1), which is share x length at the other
    # end.
    highest = math.log1p(1 / (share * max(length, 1)))
    chosen = distribution(brentq(excess, 0.0, highest + 1e-6, xtol=1e-14)) if length else np.ones(1)
    chosen.flags.writeable = False
    return chosen


@functools.lru_cache(maxsize=512)
def switch_cumulative(length: int, share: float = SHARE) -> npt.NDArray[np.float64]:
    """Probabilities of at most n = 0..length (`switch_counts`)."""
    return np.cumsum(switch_counts(length, share))


class Replacing:
    """Replacement of tokens by others of similar meaning, which a subclass provides."""

    rate: float = SHARE
    """Share of the replaceable words that are replaced."""

    def neighbours(self, word: str) -> list[str]:
        """At most `MAX_SYNONYMS` replacements of `word`, the best first."""
        raise NotImplementedError

    def neighbours_of(self, words: Sequence[str]) -> list[list[str]]:
        """`neighbours` of many words, for those that find them faster together."""
        return [self.neighbours(word) for word in words]


class WordNet(Replacing):
    """Replacement by members of a word's synsets, those of its most frequent meaning first.

    Args:
        reader: source of the synsets of a word; None: NLTK's reader of the corpus.

    Raises:
        ConfigError: NLTK or its corpus `wordnet` is not installed; nothing is downloaded.
    """

    def __init__(self, reader: Any = None):
        self.reader = reader if reader is not None else installed_wordnet()
        self._known: dict[str, list[str]] = {}

    def neighbours(self, word: str) -> list[str]:
        """At most `MAX_SYNONYMS` other single words in lower case. Words of one or two letters have none,
        since most are function words, which WordNet misinterprets (`a` as the angstrom).
        """
        word = word.lower()
        if len(word) < 3:
            return []
        if word not in self._known:
            lemmas = (lemma.lower() for synset in self.reader.synsets(word) for lemma in synset.lemma_names())
            others = dict.fromkeys(lemma for lemma in lemmas if lemma != word and _WORD.fullmatch(lemma))
            self._known[word] = list(others)[:MAX_SYNONYMS]
        return self._known[word]


def installed_wordnet() -> Any:
    """NLTK's reader of WordNet.

    Raises:
        ConfigError: the package or its corpus is not installed.
    """
    try:
        reader = importlib.import_module("nltk.corpus").wordnet
        reader.ensure_loaded()
    except (ImportError, LookupError) as error:
        missing = "the package nltk" if isinstance(error, ImportError) else "NLTK's corpus 'wordnet'"
        raise ConfigError(
            f"method.views: 'wordnet' needs {missing}, which is not installed: `pip install nltk`, then "
            "`python -m nltk.downloader wordnet` on every node; or use 'synonyms', neighbours in "
            "the encoder's embeddings"
        ) from error
    return reader


class Synonyms(Replacing):
    """Replacement by neighbours in a table of word embeddings.

    Args:
        vocabulary: [V] words; entries with characters other than letters (`##ing`, digits, punctuation) are
            left out.
        embeddings: [V, D] their embeddings, such as the input embeddings of an encoder.
        min_cosine: least cosine similarity of a replacement.
        rate: share of the replaceable words to replace.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        embeddings: npt.NDArray[np.floating],
        min_cosine: float = MIN_COSINE,
        rate: float = SHARE,
    ):
        if len(vocabulary) != len(embeddings):
            raise DataError(
                f"expected one embedding per word, got {len(embeddings)} for {len(vocabulary)} words"
            )
        kept = [row for row, word in enumerate(vocabulary) if _WORD.fullmatch(word)]
        self.words = [vocabulary[row] for row in kept]
        table = np.asarray(embeddings, dtype=np.float32)[kept]
        self.table = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
        self.rows = {word: row for row, word in enumerate(self.words)}
        self.min_cosine, self.rate = min_cosine, rate

    def neighbours(self, word: str) -> list[str]:
        """At most `MAX_SYNONYMS` replacements of `word` (or of its lower-case form), nearest first."""
        return self.neighbours_of([word])[0]

    def neighbours_of(self, words: Sequence[str]) -> list[list[str]]:
        """`neighbours` of many words, by one product with the table for every `AT_ONCE` of them."""
        rows = [self.rows.get(word, self.rows.get(word.lower())) for word in words]
        distinct = np.unique([row for row in rows if row is not None]).astype(np.int64)
        found: dict[int | None, list[str]] = {None: []}
        for start in range(0, len(distinct), AT_ONCE):
            block = distinct[start : start + AT_ONCE]
            # What is near is measured once more, to digits that do not depend on the words beside it.
            asked, near = np.nonzero(self.table[block] @ self.table.T > self.min_cosine - _COARSE)
            cosine = np.einsum("nd,nd->n", self.table[block[asked]], self.table[near], dtype=np.float64)
            order = np.lexsort((near, -cosine, asked))
            order = order[cosine[order] > self.min_cosine]
            ends = np.searchsorted(asked[order], np.arange(len(block) + 1))
            for row, first, last in zip(block.tolist(), ends, ends[1:], strict=False):
                found[row] = self._others(row, near[order[first:last]])
        return [found[row] for row in rows]

    def _others(self, row: int, near: npt.NDArray[np.int64]) -> list[str]:
        """Words of some rows that are not the word of `row` itself in another case."""
        word = self.words[row].lower()
        return [self.words[i] for i in near if self.words[i].lower() != word][:MAX_SYNONYMS]


class BackTranslation:
    """Augmentation by a user's function `"package.module:function"` that translates texts to another language
    and back.

    The function takes a list of texts and returns as many, in order; to be reproducible it must be
    deterministic.
    """

    def __init__(self, name: str):
        self.name = name
        self.translate = cast(Translate, resolve("translator", {}, name))

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Translate the texts [N] and translate them back; returns [N].

        Raises:
            DataError: the function returned another number of texts, or something other than texts.
        """
        translated = list(self.translate(list(texts)))
        if len(translated) != len(texts) or not all(isinstance(text, str) for text in translated):
            raise DataError(
                f"translator {self.name!r} returned {len(translated)} values for {len(texts)} texts; it must return "
                "one str per text, in order"
            )
        return translated
