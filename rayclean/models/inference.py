"""Running networks over many texts on one device: tokenise, sort by length, batch by padded tokens, forward.

A thread tokenises and pads ahead of the forward pass, so that the device does not wait for text. To let it
start before everything is tokenised, texts are taken in windows of similar numbers of characters; inside a
window they are sorted by tokens. That leaves about as little padding as sorting all at once.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rayclean.models.base import Encoder, Tokenizer, pad
from rayclean.models.precision import Precision, inference_autocast

T = TypeVar("T")

WINDOW_TOKENS = 1 << 17
"""Texts are tokenised in windows of about so many tokens at most: small enough to start soon, large enough to
sort."""


@dataclass(frozen=True)
class Outputs:
    """Features and logits of N texts."""

    features: npt.NDArray[np.float32]
    """[N, D] of the first network: one space for all, whichever network predicts."""
    logits: npt.NDArray[np.float32]
    """[N, K] of each text's own network."""
    cut: npt.NDArray[np.bool_]
    """[N] whether the text was longer than the network reads."""


def default_tokens_per_batch(device: torch.device) -> int:
    """Padded tokens in a batch: enough to fill a GPU, few enough that a CPU's activations stay in its caches.

    On two cores MiniLM reads 2.1 times as many rows per second in batches of 2,048 tokens as in batches of
    16,384.
    """
    return 16384 if device.type == "cuda" else 2048


def infer(
    networks: Sequence[Encoder],
    tokenizer: Tokenizer,
    texts: Sequence[str],
    which: npt.NDArray[np.integer[Any]] | None = None,
    *,
    precision: Precision = "auto",
    tokens_per_batch: int | None = None,
) -> Outputs:
    """Features and logits of texts.

    Args:
        networks: in evaluation mode, on one device, of one encoder.
        tokenizer: theirs.
        texts: N of them.
        which: [N] index into `networks` of the network whose logits a text gets; the first one's for all if
            absent.
        precision: of the bodies; features and logits are float32 either way.
        tokens_per_batch: padded tokens in a batch (one text at least); None: `default_tokens_per_batch`.
    """
    device = next(networks[0].parameters()).device
    tokens_per_batch = tokens_per_batch or default_tokens_per_batch(device)
    which = np.zeros(len(texts), dtype=np.int64) if which is None else which
    features = np.empty((len(texts), networks[0].feature_dim), dtype=np.float32)
    logits = np.empty((len(texts), networks[0].num_classes), dtype=np.float32)
    cut = np.zeros(len(texts), dtype=np.bool_)

    def prepared() -> Iterator[list[tuple[int, Tensor, dict[str, Tensor]]]]:
        for window in _windows(texts, tokenizer.max_length):
            tokens, cut[window] = tokenizer([texts[row] for row in window])
            yield list(_batches(window, tokens, which, len(networks), tokenizer.pad_id, tokens_per_batch))

    # Entered once for all batches: autocast keeps the weights it has cast until it is left.
    with torch.inference_mode(), inference_autocast(precision, device)():
        for batches in ahead(prepared):
            done = []
            for index, rows, batch in batches:
                network = networks[index]
                on_device = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
                encoded = network.encode(on_device).float()
                with torch.autocast(device.type, enabled=False):
                    done.append((index, rows.numpy(), encoded, network.logits(encoded)))
            # Fetched after the whole window, so that a GPU never waits for the copies.
            for index, where, encoded, scores in done:
                its_rows = which[where] == index
                logits[where[its_rows]] = scores.cpu().numpy()[its_rows]
                if index == 0:
                    features[where] = encoded.cpu().numpy()
    return Outputs(features, logits, cut)


def _windows(texts: Sequence[str], max_length: int) -> Iterator[npt.NDArray[np.int64]]:
    """Rows by number of characters, in runs of at most WINDOW_TOKENS tokens."""
    # The longest first: memory runs out at once or never.
    order = np.argsort([-len(text) for text in texts], kind="stable")
    size = max(1, WINDOW_TOKENS // max_length)
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _batches(
    window: npt.NDArray[np.int64],
    tokens: list[npt.NDArray[np.int32]],
    which: npt.NDArray[Any],
    networks: int,
    pad_id: int,
    tokens_per_batch: int,
) -> Iterator[tuple[int, Tensor, dict[str, Tensor]]]:
    """Yield (network, rows, padded batch).

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
            yield index, torch.from_numpy(window[part]), pad([tokens[position] for position in part], pad_id)


def ahead(produce: Callable[[], Iterator[T]], depth: int = 1) -> Iterator[T]:
    """The items of an iterator that runs in a thread, at most `depth` finished items ahead of whoever takes
    them.

    An exception of the producer is raised here; if the consumer stops early, the producer does too.
    """
    items: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not stop.is_set():
            try:
                items.put((kind, value), timeout=0.2)
                return
            except queue.Full:
                continue

    def run() -> None:
        try:
            for item in produce():
                put("item", item)
                if stop.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    thread = threading.Thread(target=run, name="rayclean-prepare", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = items.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        stop.set()
        thread.join()
