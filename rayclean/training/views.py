"""Views of the rows of a batch: augmented tokens, or the same input under another dropout mask.

| name | effect | requirements |
|---|---|---|
| `auto` | `synonyms` where the network reads tokens and has pre-trained embeddings, `dropout` elsewhere | |
| `dropout` | nothing: only the networks' dropout differs (Gao et al., "SimCSE", EMNLP 2021) | |
| `switch_out`, `drop`, `swap` | token ids replaced, left out or swapped, see `training/rewrites.py` | tokens |
| `synonyms` | tokens replaced by their neighbours in the encoder's own table of token embeddings | a pre-trained encoder |
| `wordnet` | tokens replaced by synonyms that are also tokens | a pre-trained encoder; NLTK and its corpus `wordnet` |
| `"package.module:function"` | texts rewritten by a user function (back-translation), once for the whole data set | tokens |

Rewriting tokens takes microseconds a row, while rewriting texts needs another tokenisation. Special tokens keep
their positions. A view depends only on (seed, epoch, example_id, number of the view). It keeps the label and
id of its original and never updates per-example state.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rayclean.config import Plugin
from rayclean.errors import ConfigError
from rayclean.functional.hashing import mix
from rayclean.models.base import Encoder, Inputs, Tokenizer, pad_flat
from rayclean.models.loading import encoder_class
from rayclean.training.augment import Synonyms, WordNet, installed_wordnet
from rayclean.training.inputs import (
    FeatureInputs,
    NetworkInputs,
    Rows,
    TokenInputs,
    concatenated_ranges,
    open_tokens,
)
from rayclean.training.rewrites import Replacement, TokenRows, Tokens, drop_tokens, swap_tokens, switch_out

ON_TOKENS = ("switch_out", "drop", "swap", "synonyms", "wordnet")
OF_EMBEDDINGS = ("synonyms", "wordnet")
NAMES = ("auto", "dropout", *ON_TOKENS)

Rewrite = Callable[[TokenRows], TokenRows]


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
        self.special = np.zeros(
            max(self.tokenizer.vocabulary, *self.tokenizer.special_ids, 0) + 1, dtype=np.bool_
        )
        self.special[[*self.tokenizer.special_ids]] = True
        self.rewrites: dict[str, Rewrite] = {}
        self.rewritten: dict[str, TokenInputs] = {}
        for name in {*self.names} - {"dropout"}:
            if name in ON_TOKENS:
                self.rewrites[name] = self._rewrite(name, network)
            else:
                self.rewritten[name] = open_tokens(examples, plugin, name)

    def batch(self, ids: npt.NDArray[np.int64], rows: Rows, epoch: int) -> Inputs:
        """Inputs [(1 + V) B, ...]: the unchanged rows, if they are kept, then each view of all rows.

        Args:
            ids: [B] example ids, -1 = padding.
            rows: [B] rows of the inputs.
            epoch: number of the epoch, on which the views depend.
        """
        if isinstance(self.inputs, FeatureInputs):
            features = self.inputs.batch(rows)["features"]
            return Inputs({"features": features.repeat(self.keeps_originals + len(self.names), 1)})
        assert isinstance(self.inputs, TokenInputs)
        originals = self.inputs.flat(rows)
        found = [originals] if self.keeps_originals else []
        for number, name in enumerate(self.names):
            if name == "dropout":
                found.append(originals)
            elif name in self.rewrites:
                hashes = mix(ids, self.seed, f"view {number} of epoch {epoch}")
                found.append(self._view(self.rewrites[name], *originals, hashes))
            else:
                found.append(self.rewritten[name].flat(rows))
        tokens, lengths = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return pad_flat(tokens, lengths, self.inputs.pad_id)

    def _view(
        self, rewrite: Rewrite, tokens: Tokens, lengths: Rows, seeds: npt.NDArray[np.uint64]
    ) -> tuple[Tokens, Rows]:
        """Rewrite every row from its first token that is not special to its last one; rows stand one after another."""
        starts = np.cumsum(lengths) - lengths
        places = np.arange(len(tokens))
        ordinary = ~self.special[tokens]
        # Of a row without such a token the first one would stand behind the last one.
        firsts = np.minimum.reduceat(np.where(ordinary, places, len(tokens)), starts)
        lasts = np.maximum.reduceat(np.where(ordinary, places, -1), starts) + 1
        before = np.where(firsts < lasts, firsts - starts, lengths)
        inner = np.maximum(lasts - firsts, 0)
        outside = np.ones(len(tokens), dtype=np.bool_)
        outside[concatenated_ranges(starts + before, inner)] = False
        found = rewrite(TokenRows(tokens[~outside], inner, seeds))
        whole = lengths - inner + found.lengths
        starts = np.cumsum(whole) - whole
        inside = concatenated_ranges(starts + before, found.lengths)
        view = np.empty(whole.sum(), dtype=np.int32)
        rest = np.ones(len(view), dtype=np.bool_)
        rest[inside] = False
        view[inside], view[rest] = found.tokens, tokens[outside]
        return view, whole

    def _rewrite(self, name: str, network: Encoder) -> Rewrite:
        if name == "drop":
            return drop_tokens
        if name == "swap":
            return swap_tokens
        if name == "switch_out":
            ordinary = np.flatnonzero(~self.special[: self.tokenizer.vocabulary]).astype(np.int32)
            return functools.partial(switch_out, vocabulary=ordinary)
        words, table = self.tokenizer.words(), network.token_embeddings()
        assert words is not None  # an encoder with `pretrained_tokens` has both
        assert table is not None
        return Replacement(words, Synonyms(words, table) if name == "synonyms" else WordNet())
