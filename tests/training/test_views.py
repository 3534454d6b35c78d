"""Views: deterministic per example, special tokens stay, and what cannot be made is refused early."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayclean.config import Plugin
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.models.base import Encoder
from rayclean.models.loading import build_encoder
from rayclean.training.inputs import open_tokens
from rayclean.training.views import Views, check_views
from tests.models.tiny import write
from tests.training.test_rewrites import rows_of_tokens
from tests.training.toys import TOY, write_examples


def shout(texts: Any) -> list[str]:
    """A translator there and back, for the tests."""
    return [f"{text} indeed" for text in texts]


@pytest.fixture
def examples(tmp_path: Path) -> str:
    return write_examples(tmp_path / "examples", 20)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Plugin:
    return Plugin(name="transformer", model=write(tmp_path_factory.mktemp("bert")), max_length=32)


def made(names: tuple[str, ...], examples: str, plugin: Plugin) -> tuple[Views, Any, Encoder]:
    network, inputs = build_encoder(plugin, 3), open_tokens(examples, plugin)
    return Views(names, inputs, network, plugin, examples, seed=1), inputs, network


def rewriting(views: Views, name: str) -> Callable[[list[int]], list[int]]:
    """A rewrite of lists of tokens, without luck."""
    rewrite = views.rewrites[name]
    return lambda tokens: rewrite(rows_of_tokens([tokens])).tokens.tolist()


def rows_of(batch: dict[str, Any]) -> list[list[int]]:
    return [
        ids[mask.bool()].tolist()
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


def test_views_alone_are_those_that_stand_behind_the_originals(examples: str, bert: Plugin) -> None:
    views, inputs, network = made(("drop", "swap"), examples, bert)
    alone = Views(views.names, inputs, network, bert, examples, seed=1, keeps_originals=False)
    rows = np.arange(8)
    assert (
        rows_of(alone.batch(rows + 100, rows, epoch=1)) == rows_of(views.batch(rows + 100, rows, epoch=1))[8:]
    )


@pytest.mark.parametrize("name", ["switch_out", "drop", "swap", "dropout"])
def test_originals_first_then_every_view(name: str, examples: str, bert: Plugin) -> None:
    views, inputs, _ = made((name, name), examples, bert)
    rows = np.arange(8)
    found = rows_of(views.batch(rows + 100, rows, epoch=1))
    originals = [tokens.tolist() for tokens in inputs.tokens_of(rows)]
    assert len(found) == 24
    assert found[:8] == originals
    for number, view in enumerate(found[8:]):
        assert (view[0], view[-1]) == (2, 3)  # [CLS] and [SEP] stay
        assert not set(view[1:-1]) & views.tokenizer.special_ids - set(originals[number % 8])
    assert (found[8:16] == originals) == (name == "dropout")
    assert (found[8:16] == found[16:]) == (name == "dropout")  # the same name twice: two different views


def test_a_view_depends_on_its_example_and_epoch_alone(examples: str, bert: Plugin) -> None:
    views, _, _ = made(("switch_out", "drop"), examples, bert)
    ids, rows = np.arange(10) + 50, np.arange(10)
    together = rows_of(views.batch(ids, rows, epoch=2))
    for row in range(10):
        alone = rows_of(views.batch(ids[[row]], rows[[row]], epoch=2))
        assert alone == [together[row], together[10 + row], together[20 + row]]
    assert rows_of(views.batch(ids, rows, epoch=3)) != together


def test_rows_without_words_stay_as_they_are_beside_others(examples: str, bert: Plugin) -> None:
    """A row of special tokens alone, rows that get shorter, and their neighbours."""
    views, inputs, _ = made(("drop", "swap", "switch_out"), examples, bert)
    texts = [tokens.tolist() for tokens in inputs.tokens_of(np.arange(3))]
    rows = [[2, 3], texts[0], [2], texts[1], texts[2], [2, 3]]
    for name, rewrite in views.rewrites.items():
        tokens, lengths = np.concatenate(rows).astype(np.int32), np.array([len(row) for row in rows])
        found, lengths = views._view(rewrite, tokens, lengths, np.arange(6, dtype=np.uint64))
        view = [part.tolist() for part in np.split(found, np.cumsum(lengths)[:-1])]
        assert [view[0], view[2], view[5]] == [[2, 3], [2], [2, 3]]
        for number in (1, 3, 4):
            assert (view[number][0], view[number][-1]) == (2, 3)
            assert 3 <= len(view[number]) <= len(rows[number])
            assert name != "swap" or sorted(view[number]) == sorted(rows[number])


def test_synonyms_are_neighbours_in_the_encoder_s_own_table(examples: str, bert: Plugin) -> None:
    import torch

    views, inputs, network = made((), examples, bert)
    words = views.tokenizer.words()
    assert words is not None
    table = network.body.get_input_embeddings().weight  # type: ignore[operator,union-attr]
    with torch.no_grad():
        table.copy_(torch.randn(table.shape, generator=torch.Generator().manual_seed(0)))
        letters = [i for i, word in enumerate(words) if word.isalpha()][:2]
        table[letters[1]] = table[letters[0]] + 0.01  # two words that mean the same
    views = Views(("synonyms",), inputs, network, bert, examples, seed=1)
    rewrite = rewriting(views, "synonyms")
    assert rewrite([letters[0]]) == [letters[1]]
    assert rewrite([letters[1]]) == [letters[0]]
    other = next(i for i, word in enumerate(words) if word.isalpha() and i not in letters)
    assert rewrite([other]) == [other]  # no neighbour: nothing is replaced


def test_wordnet_replaces_tokens_by_tokens(
    examples: str, bert: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rose` may become `soil`, which the tokenizer knows, and never `blossoming`, which it would cut."""

    class Synset:
        def lemma_names(self) -> list[str]:
            return ["rose", "blossoming", "Soil", "garden_rose"]

    class Reader:
        def synsets(self, word: str) -> list[Synset]:
            return [Synset()] if word == "rose" else []

    monkeypatch.setattr("rayclean.training.augment.installed_wordnet", Reader)
    monkeypatch.setattr("rayclean.training.views.installed_wordnet", Reader)
    views, _, _ = made(("wordnet",), examples, bert)
    words = views.tokenizer.words()
    assert words is not None
    rose, soil, seed = (words.index(word) for word in ("rose", "soil", "seed"))
    rewrite = rewriting(views, "wordnet")
    assert rewrite([seed, rose, seed]) == [seed, soil, seed]
    assert rewrite([seed]) == [seed]


def test_texts_rewritten_by_a_function_are_read_from_a_cache(examples: str) -> None:
    plugin = Plugin(name=TOY)
    views, inputs, _ = made(("tests.training.test_views:shout",), examples, plugin)
    found = rows_of(views.batch(np.arange(3), np.arange(3), epoch=1))
    for row in range(3):
        assert found[3 + row][:-1] == inputs.tokens_of(np.array([row]))[0].tolist()
    again = rows_of(views.batch(np.arange(3), np.arange(3), epoch=9))
    assert again == found
    assert len(Folder(examples).shards()) == 3


def test_auto_takes_what_there_is(examples: str, bert: Plugin) -> None:
    assert made(("auto",), examples, bert)[0].names == ("synonyms",)
    assert made(("auto",), examples, Plugin(name=TOY))[0].names == ("dropout",)


def test_what_cannot_be_made_is_refused(examples: str, bert: Plugin) -> None:
    head = bert.model_copy(update={"trainable": "head"})
    wide = head.model_copy(update={"hidden": 8})
    with pytest.raises(ConfigError, match="unknown view 'synonym'"):
        check_views(["synonym"], bert, reads_tokens=True)
    with pytest.raises(ConfigError, match="or encoder"):
        check_views(["drop"], wide, reads_tokens=False)
    check_views(["auto", "dropout"], wide, reads_tokens=False)
    with pytest.raises(ConfigError, match=r"'auto' would be the text itself.*set encoder.hidden"):
        check_views(["auto"], head, reads_tokens=False)
    check_views(["synonyms"], bert, reads_tokens=True)
    with pytest.raises(ConfigError, match=r"needs an encoder with pre-trained.*not 'bilstm'"):
        check_views(["synonyms"], Plugin(name="bilstm"), reads_tokens=True)
