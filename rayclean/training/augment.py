"""Views of a text: other ways to say it, which keep its label (for LANE, SCL and LCL).

A view is a function of (seed, example_id, epoch, number of the view) and of nothing else, so that it does not depend
on shards, order or workers. The operations:

| operation | what it does | source |
|---|---|---|
| `switch_out` | replaces n words by random ones, p(n) ~ exp(-n / tau) | Wang et al., EMNLP 2018 |
| `drop` | leaves out words | Wei & Zou, "EDA", EMNLP 2019 |
| `swap` | swaps words | the same |
| `Synonyms` | replaces words by their neighbours in a table of word embeddings | |
| `WordNet` | replaces words by members of the synsets that they are in | Miller, CACM 1995 |
| `BackTranslation` | translates there and back, by a function of yours | Sennrich et al., ACL 2016 |

LANE does not state how much is replaced: 10 % of the words is the reading taken, for SwitchOut as an expectation.
The first three take words or token ids alike; `Words` applies them to a text. Its words are what white space
separates, so a text written without it is one word; only `Synonyms` and `WordNet` look inside.
"""

import functools
import importlib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from rayclean.errors import ConfigError, DataError
from rayclean.functional.hashing import mix
from rayclean.plugins import resolve

T = TypeVar("T")
Translate = Callable[[Sequence[str]], Sequence[str]]

SHARE = 0.1
"""Share of the words that an operation touches."""
MIN_COSINE = 0.6
"""A word whose embedding is nearer than this may stand for another."""
MAX_SYNONYMS = 10
_WORD = re.compile(r"[^\W\d_]+")


class Operation:
    """One way to rewrite texts; subclasses write `rewrite`, or `__call__` where a whole batch is cheaper at once."""

    def rewrite(self, text: str, rng: np.random.Generator) -> str:
        """A view of one text; all randomness comes from `rng`."""
        raise NotImplementedError

    def __call__(self, texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> list[str]:
        """Views [B] of texts [B], with one generator each."""
        return [self.rewrite(text, rng) for text, rng in zip(texts, rngs, strict=True)]


def views(
    operations: Sequence[Operation], ids: npt.NDArray[np.int64], texts: Sequence[str], epoch: int, seed: int
) -> list[list[str]]:
    """Views of a batch of texts.

    Args:
        operations: one per view; the same one twice gives two different views.
        ids: [B] example ids.
        texts: [B].
        epoch: other epochs give other views.
        seed: of the run.

    Returns:
        V lists of B texts.
    """
    return [
        operation(
            texts, [np.random.default_rng(h) for h in mix(ids, seed, f"view {number} of epoch {epoch}")]
        )
        for number, operation in enumerate(operations)
    ]


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

    # E[n] falls from length / 2 at rate 0 to below 1 / (e^rate - 1), which is share x length at the other end.
    highest = math.log1p(1 / (share * max(length, 1)))
    chosen = distribution(brentq(excess, 0.0, highest + 1e-6, xtol=1e-14)) if length else np.ones(1)
    chosen.flags.writeable = False
    return chosen


def switch_out(
    tokens: Sequence[T], rng: np.random.Generator, vocabulary: Sequence[T], share: float = SHARE
) -> list[T]:
    """Draw n, choose n positions uniformly, replace each by a uniform word of the vocabulary.

    Args:
        tokens: words, or token ids.
        rng: the randomness.
        vocabulary: what replaces them; not empty.
        share: expected share of replaced tokens.
    """
    switched = list(tokens)
    count = int(np.searchsorted(np.cumsum(switch_counts(len(switched), share)), rng.random(), side="right"))
    for position in rng.permutation(len(switched))[:count]:
        switched[position] = vocabulary[int(rng.integers(len(vocabulary)))]
    return switched


def drop_words(tokens: Sequence[T], rng: np.random.Generator, rate: float = SHARE) -> list[T]:
    """Leave out every token with probability `rate`; one of them always stays, if there is one."""
    stays = rng.random(len(tokens)) >= rate
    if len(tokens) and not stays.any():
        stays[rng.integers(len(tokens))] = True
    return [token for token, keep in zip(tokens, stays, strict=True) if keep]


def swap_words(tokens: Sequence[T], rng: np.random.Generator, rate: float = SHARE) -> list[T]:
    """Swap two random tokens, max(1, rate x length) times; a single token stays as it is."""
    swapped = list(tokens)
    if len(swapped) > 1:
        for _ in range(max(1, round(rate * len(swapped)))):
            i, j = rng.choice(len(swapped), 2, replace=False)
            swapped[i], swapped[j] = swapped[j], swapped[i]
    return swapped


class EdaWords(Operation):
    """Any change of a list of words: `Words(drop)`, `Words(swap)`, `Words(partial(switch_out, vocabulary=words))`."""

    def __init__(self, change: Callable[[list[str], np.random.Generator], list[str]]):
        self.change = change

    def rewrite(self, text: str, rng: np.random.Generator) -> str:
        """The changed words with one space between them."""
        return " ".join(self.change(text.split(), rng))


class Replacing(Operation):
    """Replaces words by others of the same meaning: each with probability `rate`, at least one; subclasses know which."""

    rate: float = SHARE
    """Share of the words that can be replaced."""

    def neighbours(self, word: str) -> list[str]:
        """At most ten words that may stand for `word`, the best first."""
        raise NotImplementedError

    def chosen(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
        """Which of the words that can be replaced are."""
        chosen = rng.random(count) < self.rate
        if not chosen.any():
            chosen[rng.integers(count)] = True
        return chosen

    def rewrite(self, text: str, rng: np.random.Generator) -> str:
        """All but the replaced words stays as it was, white space and marks included."""
        found = [(match, near) for match in _WORD.finditer(text) if (near := self.neighbours(match.group()))]
        if not found:
            return text
        parts, end = [], 0
        for (match, near), replace in zip(found, self.chosen(len(found), rng), strict=True):
            if replace:
                word = near[int(rng.integers(len(near)))]
                parts += [text[end : match.start()], word.capitalize() if match.group().istitle() else word]
                end = match.end()
        return "".join([*parts, text[end:]])


class WordNet(Replacing):
    """Members of a word's synsets, those of its most frequent meaning first.

    Args:
        reader: gives synsets of a word, which give their lemmas, as NLTK's reader of the corpus does; None: that one.

    Raises:
        ConfigError: NLTK or its corpus `wordnet` is not installed; nothing is downloaded.
    """

    def __init__(self, reader: Any = None):
        self.reader = reader if reader is not None else installed_wordnet()
        self._known: dict[str, list[str]] = {}

    def neighbours(self, word: str) -> list[str]:
        """Single words in lower case, without the word itself; none of a word of one or two letters, most of which are
        function words (WordNet knows `a` as the angstrom).
        """
        own = word.lower()
        if len(own) < 3:
            return []
        if own not in self._known:
            lemmas = (lemma.lower() for synset in self.reader.synsets(own) for lemma in synset.lemma_names())
            others = dict.fromkeys(lemma for lemma in lemmas if lemma != own and _WORD.fullmatch(lemma))
            self._known[own] = list(others)[:MAX_SYNONYMS]
        return self._known[own]


def installed_wordnet() -> Any:
    """NLTK's reader of WordNet.

    Raises:
        ConfigError: the package or its corpus is not there.
    """
    try:
        reader = importlib.import_module("nltk.corpus").wordnet
        reader.ensure_loaded()
    except (ImportError, LookupError) as error:
        missing = "the package nltk" if isinstance(error, ImportError) else "NLTK's corpus 'wordnet'"
        raise ConfigError(
            f"method.views: 'wordnet' needs {missing}, which is not installed: `pip install nltk`, then "
            "`python -m nltk.downloader wordnet` on every node; or use 'synonyms', neighbours in the encoder's embeddings"
        ) from error
    return reader


class Synonyms(Replacing):
    """Neighbours in a table of word embeddings.

    Args:
        vocabulary: [V] words; entries that are not letters alone (`##ing`, digits, marks) are left out.
        embeddings: [V, D] their embeddings, such as the input embeddings of an encoder.
        min_cosine: how near a word must be to stand for another.
        rate: share of the words that have such neighbours.
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
        self._known: dict[str, list[str]] = {}

    def neighbours(self, word: str) -> list[str]:
        """At most ten words that may stand for `word` (lower-cased if need be), nearest first."""
        row = self.rows.get(word, self.rows.get(word.lower()))
        if row is None:
            return []
        own = self.words[row]
        if own not in self._known:  # a product with the table per word met, not V x V in advance
            cosine = self.table @ self.table[row]
            near = np.flatnonzero(cosine > self.min_cosine)
            near = near[np.lexsort((near, -cosine[near]))]
            others = [self.words[i] for i in near if self.words[i].lower() != own.lower()]
            self._known[own] = others[:MAX_SYNONYMS]
        return self._known[own]


class BackTranslation(Operation):
    """Asks a function of yours, named `"package.module:function"`, for texts translated there and back.

    The function takes a list of texts and returns as many, in order; to be reproducible it must not draw at random.
    """

    def __init__(self, name: str):
        self.name = name
        self.translate = cast(Translate, resolve("translator", {}, name))

    def __call__(self, texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> list[str]:
        """The whole batch at once.

        Raises:
            DataError: the function returned another number of texts, or something that is no text.
        """
        translated = list(self.translate(list(texts)))
        if len(translated) != len(texts) or not all(isinstance(text, str) for text in translated):
            raise DataError(
                f"translator {self.name!r} returned {len(translated)} values for {len(texts)} texts; it must return "
                "one str per text, in order"
            )
        return translated
