"""Rewrites of the token ids of many rows at once, for views: array operations, without a look at each row.

| operation | effect | source |
|---|---|---|
| `switch_out` | replaces n tokens by random ones, p(n) ~ exp(-n / tau) | Wang et al., EMNLP 2018 |
| `drop_tokens` | leaves out tokens | Wei & Zou, "EDA", EMNLP 2019 |
| `swap_tokens` | swaps tokens | Wei & Zou, "EDA", EMNLP 2019 |
| `Replacement` | replaces tokens that are words by words of similar meaning (`training/augment.py`) | |

What is drawn for a token is a function of its row's seed and its place in the row, so it does not depend on the rows beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rayclean.functional.hashing import counted_uniform
from rayclean.training.augment import MAX_SYNONYMS, SHARE, Replacing, switch_cumulative
from rayclean.training.inputs import Rows

Tokens = npt.NDArray[np.int32]

_OF_ROWS = 1 << 63
"""First of the counters of draws for whole rows; those of tokens are below."""


@dataclass(frozen=True)
class TokenRows:
    """Tokens of B rows, one after another, and the seeds of what is drawn for them."""

    tokens: Tokens
    """[N] token ids of all rows."""
    lengths: Rows
    """[B] tokens of each row."""
    seeds: npt.NDArray[np.uint64]
    """[B]"""

    @cached_property
    def starts(self) -> Rows:
        """[B] place of the first token of each row among all."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def row(self) -> Rows:
        """[N] row of each token."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @cached_property
    def place(self) -> Rows:
        """[N] place of each token in its row."""
        return np.arange(len(self.tokens)) - self.starts[self.row]

    def draw(self, purpose: int, tokens: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.float64]:
        """A number in [0, 1) for each token, or for those of a mask; `purpose` 0 and 1 give unrelated ones."""
        chosen = slice(None) if tokens is None else tokens
        return counted_uniform(
            self.seeds[self.row[chosen]], 2 * self.place[chosen].astype(np.uint64) + np.uint64(purpose)
        )

    def draw_per_row(self, purpose: int) -> npt.NDArray[np.float64]:
        """A number in [0, 1) for each row; each `purpose` gives unrelated ones."""
        return counted_uniform(self.seeds, np.uint64(_OF_ROWS + purpose))

    def per_row(self, mask: npt.NDArray[np.bool_]) -> Rows:
        """Number of tokens of a mask [N] in each row."""
        before = np.concatenate([[0], np.cumsum(mask)])
        return np.asarray(before[self.starts + self.lengths] - before[self.starts])

    def at_least_one(self, chosen: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> None:
        """In rows where no token is chosen, choose one at random of those of a mask, if there are any."""
        if (lacking := (self.per_row(chosen) == 0) & (counts := self.per_row(among)).astype(np.bool_)).any():
            firsts = np.cumsum(counts) - counts
            which = firsts + (self.draw_per_row(0) * counts).astype(np.int64)
            chosen[np.flatnonzero(among)[which[lacking]]] = True

    def replaced(self, tokens: Tokens) -> "TokenRows":
        """Rows of the same lengths with other tokens."""
        return TokenRows(tokens, self.lengths, self.seeds)


def drop_tokens(rows: TokenRows, rate: float = SHARE) -> TokenRows:
    """Leave out every token with probability `rate`, but keep at least one of a row."""
    kept = rows.draw(0) >= rate
    rows.at_least_one(kept, np.ones_like(kept))
    return TokenRows(rows.tokens[kept], rows.per_row(kept), rows.seeds)


def swap_tokens(rows: TokenRows, rate: float = SHARE) -> TokenRows:
    """Swap two random tokens of a row of L, max(1, rate x L) times; a single token is unchanged."""
    swapped, lengths = rows.tokens.copy(), rows.lengths
    times = np.where(lengths > 1, np.maximum(1, np.rint(rate * lengths)), 0)
    for turn in range(int(times.max(initial=0))):
        of = np.flatnonzero(times > turn)
        first = (rows.draw_per_row(2 * turn)[of] * lengths[of]).astype(np.int64)
        second = (rows.draw_per_row(2 * turn + 1)[of] * (lengths[of] - 1)).astype(np.int64)
        second += second >= first  # any other one
        first, second = rows.starts[of] + first, rows.starts[of] + second
        swapped[first], swapped[second] = swapped[second], swapped[first]
    return rows.replaced(swapped)


def switch_out(rows: TokenRows, vocabulary: Tokens, share: float = SHARE) -> TokenRows:
    """Replace n random tokens of a row by random ones of the vocabulary, both uniform, with n drawn as in `switch_counts`.

    Args:
        rows: tokens.
        vocabulary: [V] the possible replacements; not empty.
        share: expected share of replaced tokens.
    """
    most = rows.draw_per_row(0)
    numbers = [
        switch_cumulative(length, share).searchsorted(each, side="right")
        for length, each in zip(rows.lengths.tolist(), most.tolist(), strict=True)
    ]
    counts = np.minimum(np.array(numbers, dtype=np.int64), rows.lengths)
    # Those of the n smallest draws of a row: all sets of n tokens are equally likely.
    order = np.argsort((rows.row << 40) + (rows.draw(0) * (1 << 40)).astype(np.int64), kind="stable")
    switched = np.zeros(len(rows.tokens), dtype=np.bool_)
    switched[order[rows.place < counts[rows.row]]] = True
    tokens = rows.tokens.copy()
    tokens[switched] = vocabulary[(rows.draw(1, switched) * len(vocabulary)).astype(np.int64)]
    return rows.replaced(tokens)


class Replacement:
    """A rewrite that replaces tokens that are whole words by other such tokens.

    Args:
        words: [V] word of each token id.
        synonyms: replacements of a word, from the initial embeddings of the network or another source.
    """

    def __init__(self, words: Sequence[str], synonyms: Replacing):
        self.words, self.synonyms = words, synonyms
        self.number = {word: token for token, word in reversed(list(enumerate(words)))}
        self.known = np.zeros(len(words), dtype=np.bool_)
        self.near = np.zeros((len(words), MAX_SYNONYMS), dtype=np.int32)
        """Replacements of each token, the best first."""
        self.choices = np.zeros(len(words), dtype=np.int64)
        """Number of replacements of each token."""

    def learn(self, tokens: Tokens) -> None:
        """Look up the replacements of tokens [N] that were not met before, all at once."""
        new = np.unique(tokens[~self.known[tokens]]).tolist()
        if not new:
            return
        self.known[new] = True
        found = self.synonyms.neighbours_of([self.words[token] for token in new])
        for token, words in zip(new, found, strict=True):
            near = [self.number[word] for word in words if word in self.number]
            self.near[token, : len(near)], self.choices[token] = near, len(near)

    def __call__(self, rows: TokenRows) -> TokenRows:
        """Replace each replaceable token with the probability `Replacing.rate`, and at least one of a row."""
        self.learn(rows.tokens)
        replaceable = self.choices[rows.tokens] > 0
        chosen = replaceable & (rows.draw(0) < self.synonyms.rate)
        rows.at_least_one(chosen, replaceable)
        tokens, old = rows.tokens.copy(), rows.tokens[chosen]
        tokens[chosen] = self.near[old, (rows.draw(1, chosen) * self.choices[old]).astype(np.int64)]
        return rows.replaced(tokens)
