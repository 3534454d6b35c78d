"""Views of the rows of a batch: augmented tokens, or the same input under another dropout mask.

| name | effect | requirements |
|---|---|---|
| `auto` | `synonyms` where the network reads tokens and has pre-trained embeddings, `dropout` elsewhere | |
| `dropout` | nothing: only the networks' dropout differs (Gao et al., "SimCSE", EMNLP 2021) | |
| `switch_out`, `drop`, `swap` | token ids replaced, left out or swapped, see `training/augment.py` | tokens |
| `synonyms` | tokens replaced by their neighbours in the encoder's own table of token embeddings | a pre-trained encoder |
| `wordnet` | tokens replaced by synonyms that are also tokens | a pre-trained encoder; NLTK and its corpus `wordnet` |
| `"package.module:function"` | texts rewritten by a user function (back-translation), once for the whole data set | tokens |

Rewriting tokens takes microseconds, while rewriting texts needs another tokenisation. Special tokens keep
their positions. A view depends only on (seed, epoch, example_id, number of the view). It keeps the label and
id of its original and never updates per-example state.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rayclean.config import Plugin
from rayclean.errors import ConfigError
from rayclean.functional.hashing import mix
from rayclean.models.base import Encoder, Tokenizer, pad
from rayclean.models.loading import encoder_class
from rayclean.training.augment import (
    Replacing,
    Synonyms,
    WordNet,
    drop_words,
    installed_wordnet,
    swap_words,
    switch_out,
)
from rayclean.training.inputs import FeatureInputs, NetworkInputs, Rows, TokenInputs, open_tokens

ON_TOKENS = ("switch_out", "drop", "swap", "synonyms", "wordnet")
OF_EMBEDDINGS = ("synonyms", "wordnet")
NAMES = ("auto", "dropout", *ON_TOKENS)

Rewrite = Callable[[list[int], np.random.Generator], list[int]]


def check_views(names: Sequence[str], encoder: Plugin, reads_tokens: bool) -> None:
    """Check that views of these names can be made.

    Args:
        names: names of the views.
        encoder: encoder of the network that reads them.
        reads_tokens: whether the network reads tokens rather than cached features.

    Raises:
        ConfigError: a name is unknown or needs tokens or pre-trained token embeddings that the network lacks,
            `wordnet` is not installed, or `dropout` would give the text itself since there is no dropout.
    """
    if "wordnet" in names:
        installed_wordnet()
    cls, options = encoder_class(encoder)
    for name in names:
        if name not in NAMES and ":" not in name:
            raise ConfigError(
                f"method.views: unknown view {name!r}; known: {', '.join(NAMES)}, or 'package.module:function'"
            )
        if name not in ("auto", "dropout") and not reads_tokens:
            raise ConfigError(
                f"method.views: {name!r} rewrites texts, but the encoder's body is frozen and its features are cached; "
                "use views = ['dropout'] with encoder.hidden > 0, or encoder.trainable = 'all'"
            )
        if name in OF_EMBEDDINGS and not cls.pretrained_tokens:
            raise ConfigError(
                f"method.views: {name!r} needs an encoder with pre-trained token embeddings (transformer), not "
                f"{encoder.name!r}; use 'switch_out', 'drop' or 'swap'"
            )
        if not reads_tokens and not getattr(options, "hidden", 0):
            raise ConfigError(
                f"method.views: a view {name!r} would be the text itself: the encoder's body is "
                "frozen, and without a hidden "
                "layer there is no dropout; set encoder.hidden (256, for example), or encoder.trainable = 'all'"
            )


class Views:
    """The views of one network's inputs.

    Args:
        names: one name per view; a repeated name gives two different views.
        inputs: inputs of the network.
        network: the network, for its token embeddings.
        plugin: encoder of the network.
        examples: folder of example shards, for functions that rewrite texts.
        seed: seed of the job.
        keeps_originals: whether the unchanged rows precede their views.
    """

    def __init__(
        self,
        names: Sequence[str],
        inputs: NetworkInputs,
        network: Encoder,
        plugin: Plugin,
        examples: str,
        seed: int,
        keeps_originals: bool = True,
    ):
        reads_tokens = isinstance(inputs, TokenInputs)
        check_views(names, plugin, reads_tokens)
        auto = "synonyms" if reads_tokens and network.token_embeddings() is not None else "dropout"
        self.names = tuple(auto if name == "auto" else name for name in names)
        self.adds_tokens = not {*self.names} <= {"dropout", "drop", "swap"}
        """Whether a view may hold tokens that occur in no text."""
        self.inputs, self.seed, self.keeps_originals = inputs, seed, keeps_originals
        cls, options = encoder_class(plugin)
        self.tokenizer: Tokenizer = cls.tokenizer(options)
        self.rewrites: dict[str, Rewrite] = {}
        self.rewritten: dict[str, TokenInputs] = {}
        for name in {*self.names} - {"dropout"}:
            if name in ON_TOKENS:
                self.rewrites[name] = self._rewrite(name, network)
            else:
                self.rewritten[name] = open_tokens(examples, plugin, name)

    def batch(self, ids: npt.NDArray[np.int64], rows: Rows, epoch: int) -> dict[str, Tensor]:
        """Inputs [(1 + V) B, ...]: the unchanged rows, if they are kept, then each view of all rows.

        Args:
            ids: [B] example ids, -1 = padding.
            rows: [B] rows of the inputs.
            epoch: number of the epoch, on which the views depend.
        """
        if isinstance(self.inputs, FeatureInputs):
            features = self.inputs.batch(rows)["features"]
            return {"features": features.repeat(self.keeps_originals + len(self.names), 1)}
        assert isinstance(self.inputs, TokenInputs)
        originals = self.inputs.tokens_of(rows)
        tokens = list(originals) if self.keeps_originals else []
        for number, name in enumerate(self.names):
            if name == "dropout":
                tokens += originals
            elif name in self.rewrites:
                hashes = mix(ids, self.seed, f"view {number} of epoch {epoch}")
                tokens += [
                    self._view(name, row, int(seed)) for row, seed in zip(originals, hashes, strict=True)
                ]
            else:
                tokens += self.rewritten[name].tokens_of(rows)
        return pad(tokens, self.inputs.pad_id)

    def _view(self, name: str, tokens: npt.NDArray[np.int32], seed: int) -> npt.NDArray[np.int32]:
        special = np.fromiter(
            (int(token) in self.tokenizer.special_ids for token in tokens), np.bool_, len(tokens)
        )
        inside = np.flatnonzero(~special)
        if not len(inside):
            return tokens
        first, last = int(inside[0]), int(inside[-1]) + 1
        rewritten = self.rewrites[name](tokens[first:last].tolist(), np.random.default_rng(seed))
        return np.concatenate([tokens[:first], np.array(rewritten, dtype=np.int32), tokens[last:]])

    def _rewrite(self, name: str, network: Encoder) -> Rewrite:
        if name == "drop":
            return drop_words
        if name == "swap":
            return swap_words
        if name == "switch_out":
            vocabulary = [
                token for token in range(self.tokenizer.vocabulary) if token not in self.tokenizer.special_ids
            ]
            return functools.partial(switch_out, vocabulary=vocabulary)
        words, table = self.tokenizer.words(), network.token_embeddings()
        assert words is not None  # an encoder with `pretrained_tokens` has both
        assert table is not None
        return _replace(words, Synonyms(words, table) if name == "synonyms" else WordNet())


def _replace(words: Sequence[str], synonyms: Replacing) -> Rewrite:
    """Build a rewrite that replaces tokens that are whole words by other such tokens.

    Args:
        words: [V] word of each token id.
        synonyms: replacements of a word, from the initial embeddings of the network or another source.
    """
    number = {word: token for token, word in reversed(list(enumerate(words)))}

    def rewrite(tokens: list[int], rng: np.random.Generator) -> list[int]:
        found = []
        for place, token in enumerate(tokens):
            if near := [number[word] for word in synonyms.neighbours(words[token]) if word in number]:
                found.append((place, near))
        if not found:
            return tokens
        changed = list(tokens)
        for (place, near), replaced in zip(found, synonyms.chosen(len(found), rng), strict=True):
            if replaced:
                changed[place] = near[int(rng.integers(len(near)))]
        return changed

    return rewrite
