import numpy as np
import pytest

from rayclean.errors import ConfigError, DataError
from rayclean.training import augment
from rayclean.training.augment import (
    BackTranslation,
    Synonyms,
    WordNet,
    switch_counts,
)

# good - great - fine are within 37 degrees of each other, bad is opposite, film and movie stand apart
WORDS = ["good", "great", "fine", "bad", "film", "movie", "##ing", "42", "Good"]
TABLE = np.array(
    [
        [1, 0, 0],
        [0.95, 0.3, 0],
        [0.8, 0.6, 0],
        [-1, 0, 0],
        [0, 0, 1],
        [0, 0.1, 2],
        [1, 0, 0],
        [1, 0, 0],
        [1, 0, 0],
    ]
)


def upper_case(texts):
    return [text.upper() for text in texts]


def one_too_few(texts):
    return texts[1:]


@pytest.mark.parametrize("length", [1, 2, 3, 10, 37, 128, 2000])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.49])
def test_switch_counts_have_the_wanted_mean(length, share):
    p = switch_counts(length, share)
    assert p.sum() == pytest.approx(1)
    assert p @ np.arange(length + 1) == pytest.approx(share * length, rel=1e-6)
    ratios = p[1:] / np.maximum(p[:-1], 1e-300)
    large = p[1:] > 1e-200
    np.testing.assert_allclose(ratios[large], ratios[0], rtol=1e-6)  # exp(-1 / tau), the same everywhere
    assert ratios[0] < 1


def test_switch_counts_golden():
    # L = 2: (r + 2 r^2) / (1 + r + r^2) = .2 with r = exp(-1 / tau): 1.8 r^2 + .8 r - .2 = 0, r = (-.8 + sqrt 2.08) / 3.6
    r = (-0.8 + 2.08**0.5) / 3.6
    np.testing.assert_allclose(switch_counts(2), np.array([1, r, r * r]) / (1 + r + r * r), atol=1e-9)
    assert switch_counts(0).tolist() == [1]
    for share in (0.0, 0.5, 1.0):
        with pytest.raises(ValueError, match="share must be in"):
            switch_counts(5, share)


def test_neighbours_are_near_and_words():
    synonyms = Synonyms(WORDS, TABLE)
    # cos(good, great) = .95 / sqrt(.9925) = .954, cos(good, fine) = .8; "Good" itself, ##ing and 42 are none
    assert synonyms.neighbours("good") == ["great", "fine"]
    assert synonyms.neighbours("GOOD") == ["great", "fine"]
    assert synonyms.neighbours("bad") == []
    assert synonyms.neighbours("film") == ["movie"]
    for unknown in ("##ing", "42", "nowhere"):
        assert synonyms.neighbours(unknown) == []
    assert Synonyms(WORDS, TABLE, min_cosine=0.9).neighbours("good") == ["great"]


def test_at_most_ten_synonyms():
    rng = np.random.default_rng(0)
    table = np.array([1.0, 0]) + 0.1 * rng.standard_normal((30, 2))
    words = ["word" + "abcdefghijklmnopqrstuvwxyzABCD"[i] * 2 for i in range(30)]
    found = Synonyms([*words], table).neighbours(words[0])
    assert len(found) == augment.MAX_SYNONYMS
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    cosine = {word: float(unit[i] @ unit[0]) for i, word in enumerate(words)}
    assert [cosine[w] for w in found] == sorted((cosine[w] for w in found), reverse=True)


def test_a_table_must_fit_its_vocabulary():
    with pytest.raises(DataError, match="got 3 for 9 words"):
        Synonyms(WORDS, TABLE[:3])


def test_back_translation_by_name():
    operation = BackTranslation(f"{__name__}:upper_case")
    assert operation(["ab", "c"]) == ["AB", "C"]
    with pytest.raises(DataError, match="one_too_few' returned 1 values for 2 texts"):
        BackTranslation(f"{__name__}:one_too_few")(["ab", "c"])
    for name in ("nowhere:translate", f"{__name__}:missing", "plain"):
        with pytest.raises(ConfigError, match="translator"):
            BackTranslation(name)


class Synset:
    def __init__(self, *names: str):
        self.names = names

    def lemma_names(self) -> list[str]:
        return list(self.names)


class Reader:
    """A corpus of three synsets, as NLTK's reader gives them."""

    found = {
        "film": [Synset("movie", "film", "motion_picture"), Synset("Cinema", "celluloid", "movie")],
        "at": [Synset("astatine")],
    }

    def synsets(self, word: str) -> list[Synset]:
        return self.found.get(word, [])


def test_wordnet_takes_single_words_of_the_synsets_in_their_order() -> None:
    wordnet = WordNet(Reader())
    assert wordnet.neighbours("Film") == ["movie", "cinema", "celluloid"]
    assert wordnet.neighbours("unknown") == wordnet.neighbours("at") == []


@pytest.mark.parametrize(("there", "missing"), [(False, "the package nltk"), (True, "corpus 'wordnet'")])
def test_wordnet_that_is_not_installed_says_how_to(
    there: bool, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Corpus:
        @property
        def wordnet(self) -> "Corpus":
            return self

        def ensure_loaded(self) -> None:
            raise LookupError("Resource wordnet not found.")

    def load(name: str) -> Corpus:
        if not there:
            raise ImportError(name)
        return Corpus()

    monkeypatch.setattr(augment.importlib, "import_module", load)
    with pytest.raises(ConfigError, match=f"needs .*{missing}.*pip install nltk.*use 'synonyms'"):
        WordNet()


def test_neighbours_do_not_depend_on_the_words_beside(monkeypatch):
    rng = np.random.default_rng(0)
    words = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(400)]
    synonyms = Synonyms(words, rng.standard_normal((400, 3)))
    alone = [synonyms.neighbours(word) for word in words]
    assert max(map(len, alone)) == augment.MAX_SYNONYMS
    for at_once in (7, 1000):
        monkeypatch.setattr(augment, "AT_ONCE", at_once)
        assert synonyms.neighbours_of(words) == alone
    assert synonyms.neighbours_of(["nowhere", words[3], words[3].upper()]) == [[], alone[3], alone[3]]
