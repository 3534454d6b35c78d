"""The expert "words": a linear model of the words and pairs of neighbouring words of a text, out of fold.

    counts = WordCounts()
    for ids, texts in shards:
        counts.add(ids, texts)
    probabilities = counts.probabilities(ids, labels, folds, num_classes, seed)

A text becomes counts of hashed words (Weinberger et al., "Feature hashing for large scale multitask learning",
2009), so that no vocabulary is kept and only these counts, not the texts, are in memory. Counts become TF-IDF
values, (1 + log count) * (log((1 + N) / (1 + examples with the word)) + 1), scaled to length 1. Their inverse
document frequencies come from all texts (each once, if it has copies), but from no label. On these, one logistic
regression per class is fitted by averaged stochastic gradient descent (Xu, "Towards optimal one pass large scale
learning with averaged stochastic gradient descent", 2011) for each fold, without the examples of that fold; the
classes' probabilities are scaled to sum to 1.

N examples, K classes, V columns.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sparse

from rayclean.functional.types import Bools, Ids, Ints, Labels, Probabilities

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import HashingVectorizer

COLUMNS = 1 << 20
"""Values of the hash of a word or pair of words."""
LEAST_EXAMPLES = 2
"""A word that fewer examples have is left out: it can tell nothing about another example."""
MOST_WEIGHTS = 1 << 24
"""V times K is at most this: with many classes, only the words that most examples have are used. Fitting holds a
few copies of so many numbers."""
INVERSE_REGULARISATION = 10.0
"""The C of logistic regression: the penalty of the weights is their squared length / (2 C N)."""
PASSES = 3
"""Passes over the examples. More change log-loss by a hundredth, and follow wrong labels more closely."""
LEAST_PROBABILITY = 1e-6
"""Least probability of a class."""

_NO_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese, which put no space between words."""
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0dff"
"""Accents, points and vowel signs that belong to the letter before them, but are no `\\w`."""
TOKEN_PATTERN = rf"[{_NO_SPACES}]|[^\W{_NO_SPACES}](?:[{_MARKS}]|[^\W{_NO_SPACES}])*|[^\w\s]"
"""A word, a punctuation mark, or one character of a script without spaces, where pairs of characters then do what
words do elsewhere."""


def count_words(texts: Sequence[str]) -> sparse.csr_matrix:
    """How often each lower-cased token (`TOKEN_PATTERN`) and each pair of neighbouring ones occurs, by its hash.

    Returns:
        Float32 [len(texts), COLUMNS]; a text without a token has a row of zeros.
    """
    if not len(texts):  # which the vectorizer refuses
        return sparse.csr_matrix((0, COLUMNS), dtype=np.float32)
    return _vectorizer().transform(texts)


@cache
def _vectorizer() -> "HashingVectorizer":
    # Takes a second, and every command imports this module.
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        token_pattern=TOKEN_PATTERN,
        ngram_range=(1, 2),
        n_features=COLUMNS,
        alternate_sign=False,
        norm=None,
        dtype=np.float32,
    )


class WordCounts:
    """The words of all examples, gathered shard by shard in any order."""

    def __init__(self) -> None:
        self._ids: list[Ids] = []
        self._counts: list[sparse.csr_matrix] = []

    def add(self, ids: Ids, texts: Sequence[str]) -> None:
        """Count the words of some more examples.

        Args:
            ids: [n] ids of examples, none of which was added before.
            texts: their texts.
        """
        self.add_counted(ids, count_words(texts))

    def add_counted(self, ids: Ids, counts: sparse.csr_matrix) -> None:
        """Add examples whose words another process has counted (`count_words`)."""
        if len(ids) != counts.shape[0]:
            raise ValueError(f"got {len(ids)} ids for {counts.shape[0]} texts")
        self._ids.append(np.asarray(ids, dtype=np.int64))
        self._counts.append(counts)

    def probabilities(
        self,
        ids: Ids,
        labels: Labels,
        folds: Ints,
        num_classes: int,
        seed: int,
        threads: int = 1,
        *,
        stands: Bools | None = None,
        order: Ids | None = None,
    ) -> Probabilities:
        """Class probabilities of every example by the model that was fitted without its fold.

        Args:
            ids: [N] the ids that were added, in any order.
            labels: [N] given labels in [0, K); -1: the example has none and is only predicted.
            folds: [N] fold of each example.
            num_classes: K.
            seed: seed of the order in which stochastic gradient descent visits the examples.
            threads: threads that fit classes at the same time; the result is the same for any number.
            stands: [N] whether an example stands for all copies of its text; the words of the others do not count. None: all do.
            order: [N] numbers in whose order the examples are visited; equal ones by id. None: all by id.

        Returns:
            [N, K] in the order of `ids`. A class that no training example of a fold has gets the least
            probability there, `LEAST_PROBABILITY`; without any labelled training example, all classes get the same.

        Raises:
            ValueError: other ids than were added, an id twice, or a label out of range.
        """
        ids = np.asarray(ids, dtype=np.int64)
        labels = np.asarray(labels)
        if len(labels) and not (labels.min() >= -1 and labels.max() < num_classes):
            raise ValueError(
                f"labels are from {labels.min()} to {labels.max()}, expected [-1, {num_classes})"
            )
        places = np.lexsort((ids, np.zeros(len(ids)) if order is None else order))
        counted = np.ones(len(ids), dtype=np.bool_) if stands is None else np.asarray(stands)[places]
        words = self._tfidf(ids[places], num_classes, counted)
        labels, folds = labels[places], np.asarray(folds)[places]
        found = np.empty((len(ids), num_classes), dtype=np.float32)
        for fold in np.unique(folds):
            held_out = folds == fold
            found[held_out] = _predict(words, labels, held_out, num_classes, seed, threads)
        result = np.empty_like(found)
        result[places] = found
        return result

    def _tfidf(self, ids: Ids, num_classes: int, counted: Bools) -> sparse.csr_matrix:
        """TF-IDF [N, V], float32, of some ids, by the frequency of words among those that are counted [N]."""
        added = np.concatenate([np.empty(0, np.int64), *self._ids])
        by_id, wanted = np.argsort(added, kind="stable"), np.argsort(ids, kind="stable")
        if not np.array_equal(added[by_id], ids[wanted]) or (np.diff(added[by_id]) == 0).any():
            raise ValueError(f"expected the ids of the {len(added)} texts that were added, each once")
        if not len(added):
            return sparse.csr_matrix((0, 0), dtype=np.float32)
        rows = np.empty(len(ids), dtype=np.int64)
        rows[wanted] = by_id
        counts = sparse.vstack(self._counts, format="csr")[rows]
        return _weigh(counts, counted, max(MOST_WEIGHTS // num_classes, 1))


def words_probabilities(
    ids: Ids, texts: Sequence[str], labels: Labels, folds: Ints, num_classes: int, seed: int
) -> Probabilities:
    """`WordCounts.probabilities` of texts that are all in memory.

    >>> ids, texts = np.arange(6), ["good film", "a bad one"] * 3
    >>> labels, folds = np.array([0, 1, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 2, 2])
    >>> words_probabilities(ids, texts, labels, folds, num_classes=2, seed=0).argmax(axis=1)
    array([0, 1, 0, 1, 0, 1])
    """
    counts = WordCounts()
    counts.add(ids, texts)
    return counts.probabilities(ids, labels, folds, num_classes, seed)


def _weigh(counts: sparse.csr_matrix, counted: Bools, most_columns: int) -> sparse.csr_matrix:
    """TF-IDF of the columns that at least `LEAST_EXAMPLES` counted examples have, and at most so many of these, the more
    frequent ones; rows have length 1, or 0 where nothing is left.
    """
    # A matrix is copied by an index, and most data have no copies.
    those = counts if counted.all() else counts[np.flatnonzero(counted)]
    frequency = np.bincount(those.indices, minlength=counts.shape[1])
    kept = np.flatnonzero(frequency >= LEAST_EXAMPLES)
    if len(kept) > most_columns:
        kept = np.sort(kept[np.argsort(-frequency[kept], kind="stable")[:most_columns]])
    found = counts[:, kept]
    inverse = np.log((1 + those.shape[0]) / (1 + frequency[kept])) + 1
    found.data = (1 + np.log(found.data)) * inverse[found.indices].astype(np.float32)
    length = np.sqrt(found.multiply(found).sum(axis=1).A1)
    found.data /= np.repeat(length, np.diff(found.indptr))
    return found


def _predict(
    words: sparse.csr_matrix, labels: Labels, held_out: Bools, num_classes: int, seed: int, threads: int
) -> Probabilities:
    """Probabilities of the examples that are held out, [n, K], by a model of the others that have a label."""
    from sklearn.linear_model import SGDClassifier

    rows = np.flatnonzero(~held_out & (labels >= 0))
    queries = words[np.flatnonzero(held_out)]
    found = np.zeros((queries.shape[0], num_classes), dtype=np.float64)
    classes = np.unique(labels[rows])
    if len(classes) >= 2 and words.shape[1]:
        model = SGDClassifier(
            loss="log_loss",
            alpha=1 / (INVERSE_REGULARISATION * len(rows)),
            average=True,
            max_iter=PASSES,
            tol=None,
            random_state=seed & 0xFFFFFFFF,
            n_jobs=threads,
        )
        model.fit(words[rows], labels[rows])
        found[:, model.classes_] = model.predict_proba(queries)
    elif len(classes):  # one class, or no word that two examples share
        found[:] = np.bincount(labels[rows], minlength=num_classes) / len(rows)
    else:
        found[:] = 1 / num_classes
    return (found * (1 - num_classes * LEAST_PROBABILITY) + LEAST_PROBABILITY).astype(np.float32)
