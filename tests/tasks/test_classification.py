from hypothesis import given
from hypothesis import strategies as st

from rayclean.schema import Label, LabelSet
from rayclean.tasks.classification import Classification

WORDS = st.lists(st.text("abcd", min_size=1, max_size=3), min_size=2, max_size=6, unique=True)


@given(WORDS, st.data())
def test_the_order_of_candidates_does_not_tell_which_one_is_given(
    words: list[str], data: st.DataObject
) -> None:
    """The pair comes in the same order whoever of the two is the given label, and whatever else is in the label set."""
    labels = LabelSet(Label(index, word, word) for index, word in enumerate(words))
    task = Classification(Classification.Config(), labels)
    one, other = data.draw(st.permutations(range(len(words))))[:2]
    assert task.candidates(one, other, "binary") == task.candidates(other, one, "binary")
    backwards = LabelSet(Label(index, word, word) for index, word in enumerate(reversed(words)))
    again = Classification(Classification.Config(), backwards)
    pair = again.candidates(len(words) - 1 - one, len(words) - 1 - other, "binary")
    assert [backwards[i].word for i in pair] == [words[i] for i in task.candidates(one, other, "binary")]
