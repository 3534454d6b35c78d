"""Running networks over many texts on one device: tokenise, sort by length, batch by padded tokens, forward.

A thread tokenises and pads ahead of the forward pass, so that the device does not wait for text. To let it
start before everything is tokenised, texts are taken in windows of similar numbers of characters; inside a
window they are sorted by tokens. That leaves about as little padding as sorting all at once. On a GPU a window
fills several batches, which may be large there.

Networks that answer for words read texts that are split into words, and what they say of the words stands one
after another.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rayclean.models.base import Encoder, Tokenizer, pad, pad_words
from rayclean.models.precision import Precision, gains_by_bfloat16, inference_autocast
from rayclean.models.read_ahead import ahead
from rayclean.tasks.base import LOWEST_LOGIT

WINDOW_TOKENS = 1 << 17
"""Texts are tokenised in windows of about so many tokens at most: small enough to start soon, large enough to
sort."""
WINDOW_BATCHES = 8
"""On a GPU a window fills about so many batches, of which the last one is not full."""
TOKENS_PER_CHARACTER, TOKENS_PER_WORD = 0.25, 1.5
"""Expected tokens of texts, and of texts that are split into words."""

Texts = Sequence[str] | Sequence[Sequence[str]]
"""Texts, or texts split into words."""


@dataclass(frozen=True)
class Outputs:
    """Features and logits of N texts."""

    features: npt.NDArray[np.float32]
    """[N, D] of the first network: one space for all, whichever network predicts. Of networks that answer for
    words the mean over the words that were read."""
    logits: npt.NDArray[np.float32]
    """[N, K] of each text's own network; or [M, K], of all words one after another. To a word that was not
    read the first answer is given for certain."""
    cut: npt.NDArray[np.bool_]
    """[N] whether the text was longer than the network reads."""
    offsets: npt.NDArray[np.int64] | None = None
    """[N + 1] where the words of each text begin in `logits`, and M; None where there is one row per text."""


def default_tokens_per_batch(device: torch.device) -> int:
    """Padded tokens in a batch: enough to fill a GPU, few enough that a CPU's activations stay in its caches.

    On two cores MiniLM reads 2.1 times as many rows per second in batches of 2,048 tokens as in batches of
    16,384.
    """
    return 16384 if device.type == "cuda" else 2048


def lower_bodies(networks: Sequence[Encoder], precision: Precision, device: torch.device) -> None:
    """Hold the bodies of networks for inference in bfloat16, where that is the precision on a GPU. Under autocast a third of
    a small body's kernels only cast weights and inputs. On CPUs autocast stays.
    """
    gains = precision == "auto" and device.type == "cuda" and gains_by_bfloat16(device)
    if device.type == "cuda" and (precision == "bfloat16" or gains):
        for network in networks:
            network.lower()


def infer(
    networks: Sequence[Encoder],
    tokenizer: Tokenizer,
    texts: Texts,
    which: npt.NDArray[np.integer[Any]] | None = None,
    *,
    precision: Precision = "auto",
    tokens_per_batch: int | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
    turn: AbstractContextManager[Any] | None = None,
    kept: Callable[[npt.NDArray[np.int64]], tuple[Any, ...]] | None = None,
) -> Outputs:
    """Features and logits of texts.

    Args:
        networks: in evaluation mode, on one device, of one encoder; lowered or not (`lower_bodies`).
        tokenizer: theirs.
        texts: N of them, split into words where the networks answer for words.
        which: [N] index into `networks` of the network whose logits a text gets; the first one's for all if
            absent.
        precision: of the bodies; features and logits are float32 either way.
        tokens_per_batch: padded tokens in a batch (one text at least); None: `default_tokens_per_batch`.
        on_rows: hears of the number of texts that were given to the device, batch by batch.
        turn: held while the device is used, by one of several threads at a time; the first window is tokenised before.
        kept: what the tokenizer has said of the texts in some rows (`Tokenizer.__call__`, or `tokenize_words`); None: it
            is asked.
    """
    device = next(networks[0].parameters()).device
    tokens_per_batch = tokens_per_batch or default_tokens_per_batch(device)
    which = np.zeros(len(texts), dtype=np.int64) if which is None else which
    per_token = networks[0].per_token
    words = np.array([len(text) if per_token else 1 for text in texts], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(words)])
    features = np.empty((len(texts), networks[0].feature_dim), dtype=np.float32)
    logits = np.full((offsets[-1], networks[0].num_classes), LOWEST_LOGIT, dtype=np.float32)
    logits[:, 0] = 0.0
    cut = np.zeros(len(texts), dtype=np.bool_)
    filled = WINDOW_BATCHES * tokens_per_batch if device.type == "cuda" else None

    def tokenised(window: npt.NDArray[np.int64]) -> tuple[Any, ...]:
        chosen: Any = [texts[row] for row in window]
        return tokenizer.tokenize_words(chosen) if per_token else tokenizer(chosen)

    tokens_of = kept or tokenised

    def prepared() -> Iterator[list[tuple[int, Tensor, dict[str, Tensor]]]]:
        for window in _windows(texts, tokenizer.max_length, filled, per_token):
            *lists, cut[window] = tokens_of(window)
            tokens, first_tokens = lists if per_token else (*lists, None)
            yield [
                (
                    index,
                    torch.from_numpy(window[part]),
                    _pinned(_padded(tokens, first_tokens, part, tokenizer.pad_id), device),
                )
                for index, part in _batches(window, tokens, which, len(networks), tokens_per_batch)
            ]

    reduced = nullcontext if networks[0].lowered else inference_autocast(precision, device)
    with ExitStack() as stack:
        windows = stack.enter_context(closing(ahead(prepared)))
        first = list(itertools.islice(windows, 1))
        # Entered once for all batches: autocast keeps the weights it has cast until it is left.
        for context in (turn or nullcontext(), torch.inference_mode(), reduced()):
            stack.enter_context(context)
        for batches in itertools.chain(first, windows):
            done = []
            for index, rows, batch in batches:
                network = networks[index]
                on_device = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
                encoded = network.encode(on_device).float()
                with torch.autocast(device.type, enabled=False):
                    done.append((index, rows.numpy(), batch, encoded, network.logits(encoded)))
                if index == 0:
                    on_rows(len(rows))
            # Fetched after the whole window, so that a GPU never waits for the copies.
            for index, where, batch, encoded, scores in done:
                its_rows = which[where] == index
                found, embedded = scores.cpu().numpy(), encoded.cpu().numpy() if index == 0 else None
                if per_token:
                    read = batch["first_tokens"].numpy() >= 0
                    rows_read, places = np.nonzero(read & its_rows[:, None])
                    logits[offsets[where[rows_read]] + places] = found[rows_read, places]
                    if embedded is not None:  # 0 for words that were not read
                        features[where] = embedded.sum(1) / np.maximum(read.sum(1), 1)[:, None]
                else:
                    logits[where[its_rows]] = found[its_rows]
                    if embedded is not None:
                        features[where] = embedded
    return Outputs(features, logits, cut, offsets if per_token else None)


def _padded(
    tokens: list[npt.NDArray[np.int32]],
    first_tokens: list[npt.NDArray[np.int32]] | None,
    part: npt.NDArray[np.int64],
    pad_id: int,
) -> dict[str, Tensor]:
    """The network's inputs for some texts of a window."""
    batch = pad([tokens[position] for position in part], pad_id)
    if first_tokens is not None:
        batch |= pad_words([first_tokens[position] for position in part])
    return batch


def _pinned(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The batch in memory from which a GPU copies while the host goes on."""
    return {name: value.pin_memory() for name, value in batch.items()} if device.type == "cuda" else batch


def _windows(
    texts: Texts, max_length: int, filled: int | None, per_token: bool = False
) -> Iterator[npt.NDArray[np.int64]]:
    """Rows by number of characters (by number of words, where texts are split), in runs of about `filled` tokens as
    they are expected; None: of at most WINDOW_TOKENS tokens.
    """
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    # The longest first: memory runs out at once or never.
    order = np.argsort(-lengths, kind="stable")
    if filled is None:
        size = max(1, WINDOW_TOKENS // max_length)
        starts = np.arange(0, len(order), size)
    else:
        each = TOKENS_PER_WORD if per_token else TOKENS_PER_CHARACTER
        expected = np.minimum(each * lengths[order] + 2, max_length)
        window = (np.cumsum(expected) - expected) // filled
        starts = np.flatnonzero(np.diff(window, prepend=-1))
    for start, end in itertools.pairwise([*starts, len(order)]):
        yield order[start:end]


def _batches(
    window: npt.NDArray[np.int64],
    tokens: list[npt.NDArray[np.int32]],
    which: npt.NDArray[Any],
    networks: int,
    tokens_per_batch: int,
) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield (network, positions in the window of the texts of a batch).

    The first network reads all rows, since features are always its own, the others the rows that they
    predict.
    """
    order = np.argsort([-len(ids) for ids in tokens], kind="stable")
    for index in range(networks):
        mine = order if index == 0 else order[which[window[order]] == index]
        start = 0
        while start < len(mine):
            longest = max(1, len(tokens[mine[start]]))
            part = mine[start : start + max(1, tokens_per_batch // longest)]
            start += len(part)
            yield index, part
