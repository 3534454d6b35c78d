"""The expert "words": out of fold, independent of order and shards, never 0, and right where words tell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from rayclean.experts import words
from rayclean.experts.words import LEAST_PROBABILITY, WordCounts, count_words, words_probabilities
from rayclean.functional.hashing import folds

SEED = 3


def corpus(
    size: int, classes: int = 3, seed: int = 0
) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
    """Ids in no order, texts of common words and of words of the class, labels, and five folds."""
    rng = np.random.default_rng(seed)
    ids = rng.choice(10**9, size, replace=False)
    labels = rng.integers(0, classes, size)
    texts = [
        " ".join(
            [*(f"w{w}" for w in rng.integers(0, 40, 6)), *(f"c{label}x{w}" for w in rng.integers(0, 8, 2))]
        )
        for label in labels
    ]
    return ids, texts, labels, folds(ids, SEED, 5)


def predict(ids, texts, labels, fold, classes=3):  # type: ignore[no-untyped-def]
    return words_probabilities(ids, texts, labels, fold, classes, SEED)


def test_words_that_go_with_a_class_predict_it() -> None:
    ids, texts, labels, fold = corpus(400)
    wrong = np.arange(400) % 10 == 0
    given_labels = np.where(wrong, (labels + 1) % 3, labels)
    found = predict(ids, texts, given_labels, fold)
    assert (found.argmax(axis=1) == labels).mean() > 0.95
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_random_labels_cannot_be_predicted() -> None:
    ids, texts, _, fold = corpus(400)
    labels = np.random.default_rng(1).integers(0, 3, 400)
    found = predict(ids, texts, labels, fold)
    assert abs((found.argmax(axis=1) == labels).mean() - 1 / 3) < 0.1


@given(flipped=st.sets(st.integers(0, 59), min_size=1), seed=st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_labels_of_a_fold_do_not_reach_its_rows(flipped: set[int], seed: int) -> None:
    ids, texts, labels, _ = corpus(60, seed=seed)
    rows = np.array(sorted(flipped))
    fold = np.isin(np.arange(60), rows).astype(np.int16)  # those that flip are one fold
    before = predict(ids, texts, labels, fold)
    changed = labels.copy()
    changed[rows] = (labels[rows] + 1) % 3
    assert_array_equal(predict(ids, texts, changed, fold)[rows], before[rows])


@given(order=st.permutations(range(50)), cuts=st.sets(st.integers(1, 49), max_size=4))
@settings(max_examples=15, deadline=None)
def test_order_and_shards_change_nothing(order: list[int], cuts: set[int]) -> None:
    ids, texts, labels, fold = corpus(50)
    expected = predict(ids, texts, labels, fold)
    counts = WordCounts()
    for part in np.split(np.array(order), sorted(cuts)):
        counts.add(ids[part], [texts[row] for row in part])
    again = np.array(order[::-1])
    assert_array_equal(counts.probabilities(ids[again], labels[again], fold[again], 3, SEED), expected[again])


def test_threads_change_nothing() -> None:
    ids, texts, labels, fold = corpus(100)
    counts = WordCounts()
    counts.add(ids, texts)
    found = [counts.probabilities(ids, labels, fold, 3, SEED, threads) for threads in (1, 3)]
    assert_array_equal(*found)


def test_a_class_that_is_missing_from_a_training_part_gets_the_floor() -> None:
    ids, texts, labels, fold = corpus(200)
    fold = np.where(labels == 2, 0, 1 + fold % 2).astype(np.int16)  # class 2 is in fold 0 alone
    found = predict(ids, texts, labels, fold)
    np.testing.assert_allclose(found[fold == 0, 2], LEAST_PROBABILITY, rtol=1e-6)
    assert found[fold > 0, 2].mean() > 2 * LEAST_PROBABILITY
    assert found.min() >= np.float32(LEAST_PROBABILITY)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_a_class_that_no_example_has_and_two_classes() -> None:
    ids, texts, labels, fold = corpus(200, classes=2)
    two, three = predict(ids, texts, labels, fold, 2), predict(ids, texts, labels, fold, 3)
    np.testing.assert_allclose(three[:, :2], two, atol=1e-5)
    np.testing.assert_allclose(three[:, 2], LEAST_PROBABILITY, rtol=1e-6)


def test_what_cannot_be_learnt() -> None:
    ids = np.arange(4)
    one_class = predict(ids, ["a b"] * 4, np.ones(4, dtype=np.int64), np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(
        one_class, [[LEAST_PROBABILITY, 1 - 2 * LEAST_PROBABILITY, LEAST_PROBABILITY]] * 4, rtol=1e-6
    )
    one_fold = predict(ids, ["a b"] * 4, np.arange(4) % 3, np.zeros(4, dtype=np.int16))
    np.testing.assert_allclose(one_fold, 1 / 3, rtol=1e-6)
    no_words = predict(ids, ["", " ", "\n", ""], np.array([0, 1, 1, 1]), np.arange(4))
    np.testing.assert_allclose(
        no_words[0], [LEAST_PROBABILITY, 1 - 2 * LEAST_PROBABILITY, LEAST_PROBABILITY], rtol=1e-5
    )
    np.testing.assert_allclose(no_words[1], [1 / 3, 2 / 3, 0], atol=3 * LEAST_PROBABILITY)
    assert predict(ids[:0], [], ids[:0], ids[:0]).shape == (0, 3)


def test_examples_without_a_label_teach_nothing_but_are_predicted() -> None:
    ids, texts, labels, fold = corpus(300)
    known = np.arange(300) % 3 > 0
    found = predict(ids, texts, np.where(known, labels, -1), fold)
    assert (found.argmax(axis=1) == labels)[~known].mean() > 0.9


def test_ids_and_labels_are_checked() -> None:
    ids, texts, labels, fold = corpus(20)
    counts = WordCounts()
    counts.add(ids, texts)
    with pytest.raises(ValueError, match="expected the ids of the 20 texts"):
        counts.probabilities(ids + 1, labels, fold, 3, SEED)
    with pytest.raises(ValueError, match=r"expected \[-1, 2\)"):
        counts.probabilities(ids, np.full(20, 2), fold, 2, SEED)
    with pytest.raises(ValueError, match="got 19 ids for 20 texts"):
        counts.add(ids[1:], texts)
    counts.add(ids[:1], texts[:1])
    with pytest.raises(ValueError, match="each once"):
        counts.probabilities(np.r_[ids, ids[:1]], np.r_[labels, 0], np.r_[fold, 0], 3, SEED)


def tokens(text: str) -> list[str]:
    return words._vectorizer().build_tokenizer()(text)


def test_tokens_of_languages_with_and_without_spaces() -> None:
    assert tokens("Don't panic, 42!") == ["Don", "'", "t", "panic", ",", "42", "!"]
    assert tokens("hausa ƙasa") == ["hausa", "ƙasa"]
    assert tokens("हिन्दी में") == ["हिन्दी", "में"]
    assert tokens("我喜欢abc") == ["我", "喜", "欢", "abc"]
    assert tokens("ชอบ") == list("ชอบ")
    assert tokens("cafe\u0301 😀") == ["cafe\u0301", "😀"]


def test_counts_of_words_and_pairs() -> None:
    once, twice, nothing = count_words(["Go home", "go home go home", ""]).toarray()
    assert sorted(once[once > 0]) == [1, 1, 1]  # go, home, go home
    assert sorted(twice[twice > 0]) == [1, 2, 2, 2]  # home go; go, home, go home
    assert not nothing.any()


def test_tfidf_by_hand() -> None:
    # N = 3, and in all three texts: a; in two: b; in one, and so left out: c and every pair but "a b".
    rows = words._weigh(count_words(["a a b", "a b", "c a"]), np.ones(3, bool), most_columns=10).toarray()
    a, b = np.log(4 / 4) + 1, np.log(4 / 3) + 1
    expected = np.array([(1 + np.log(2)) * a, b, b])  # a, b, "a b"
    np.testing.assert_allclose(sorted(rows[0]), sorted(expected / np.linalg.norm(expected)), rtol=1e-6)
    np.testing.assert_allclose(sorted(rows[2]), [0, 0, 1], rtol=1e-6)


def test_with_many_classes_the_more_frequent_words_are_kept() -> None:
    counts = count_words(["a b c", "a b c", "a b", "a"])
    assert words._weigh(counts, np.ones(4, bool), most_columns=10).shape == (4, 5)  # a, b, c, "a b", "b c"
    kept = words._weigh(counts, np.ones(4, bool), most_columns=1).toarray()
    assert_array_equal(kept, np.ones((4, 1), dtype=np.float32))
