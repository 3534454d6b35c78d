"""A method's questions on their way to the annotator, and the answers back: between two epochs, on every worker alike.

The loop knows an annotator only as a `Consult`: plain ids go out, labels come back. Neighbours are searched exactly, in
the features of the first network as it is at that moment: every worker reads its share of the pool in blocks, keeps
the best of each query, and the best of all workers are merged. One worker asks; the others wait in short steps, so that
hours of asking are no time-out of a collective.

A text that stands in the data many times is shown once, and not to itself: of the pool's examples with the same text only
the first is a possible demonstration.
"""

import threading
import time
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from rayclean.functional.hashing import mix, uniform
from rayclean.methods.base import Method, Questions
from rayclean.schema import Consultation
from rayclean.training.collectives import Collectives
from rayclean.training.state import ExampleState
from rayclean.training.worker import EVALUATION_ROWS, Worker

DIGITS = 5
"""Cosines are compared to so many digits, then by id: their last digits depend on batches and machines."""
POSITIONS = 2**40
"""More examples than there are; a rounded cosine times this, minus a position, is one whole number that orders both."""
NOBODY = -(2**62)
QUERIES = 8192
"""Queries compared with a block of the pool at once."""
SECONDS_BETWEEN_LOOKS = 0.2

Ints = npt.NDArray[np.int64]


class Consult(Protocol):
    """Whoever brings questions to the annotator."""

    def demonstrations(self, count: int, selector: str) -> tuple[int, str]:
        """How many demonstrations the annotator wants, and which, where the method says `count` and `selector`."""
        ...

    def __call__(self, asked: Consultation) -> tuple[Ints, dict[str, float]]:
        """Labels [Q], -1 where there is no answer, and figures for the epoch's line. Never raises for a failing annotator."""
        ...


def ask(
    worker: Worker,
    method: Method,
    state: ExampleState,
    questions: Questions,
    consult: Consult,
    seed: int,
    epoch: int,
) -> dict[str, float]:
    """Ask, let the method revise its columns, and return figures (known on the first worker alone)."""
    collectives = worker.collectives
    count, selector = consult.demonstrations(questions.demonstrations, questions.selector)
    texts = worker.data.texts_of_train if count else np.arange(len(state.ids))
    pool = first_of_each(texts, np.flatnonzero(questions.pool))
    if not count or not len(pool):
        places = np.full((len(questions.rows), 0), -1, dtype=np.int64)
        similarity = np.zeros(places.shape, dtype=np.float32)
    elif selector == "random":
        places = draw(state.ids, texts, questions.rows, pool, count, seed, epoch)
        similarity = np.full(places.shape, np.nan, dtype=np.float32)
    else:
        read = _Reader(worker, method.networks[0])
        places, similarity = nearest(read, state.ids, texts, questions.rows, pool, count, collectives)
    labels = state.columns["given_label"]
    shown = mislabelled(state.ids, labels, method.num_classes, questions.corrupted, seed)
    request = Consultation(
        ids=state.ids[questions.rows],
        given=labels[questions.rows],
        predicted=questions.predicted,
        neighbours=np.where(places >= 0, state.ids[places], -1),
        neighbour_labels=np.where(places >= 0, shown[places], -1),
        similarity=similarity,
        candidates=questions.candidates,
        accept=questions.accept,
    )
    answers, figures = _first_asks(consult, request, collectives)
    method.revise(state.columns, questions.rows, collectives.from_first(answers), epoch)
    return figures


def first_of_each(texts: Ints, pool: Ints) -> Ints:
    """Of the pool's positions, in rising order, the first of each text."""
    _, first = np.unique(texts[pool], return_index=True)
    return pool[np.sort(first)]


def nearest(
    read: "_Reader", ids: Ints, texts: Ints, rows: Ints, pool: Ints, count: int, collectives: Collectives
) -> tuple[Ints, npt.NDArray[np.float32]]:
    """The `count` members of the pool nearest to each of some examples, none of its own text.

    Rows are ordered by rounded cosine, then position, wherever some are cut off: neither blocks nor the number of workers
    decide between equals.

    Args:
        read: unit features of positions.
        ids: [N] sorted example ids.
        texts: [N] equal where two examples have the same text.
        rows: [Q] positions of the queries.
        pool: [P] positions of those that may be neighbours, of different texts.
        count: M.
        collectives: who shares the work.

    Returns:
        Positions [Q, M], the most similar first, -1 where the pool has no more; cosines [Q, M], 0 there.
    """
    rank, world_size = collectives.rank, collectives.world_size
    mine = rows[rank::world_size]
    padded = np.full(-(-len(rows) // world_size), -1, dtype=np.int64)
    padded[: len(mine)] = mine
    gathered, columns = collectives.gather(padded, {"features": read(np.maximum(padded, 0))})
    queries = columns["features"][np.searchsorted(gathered, rows)]
    best = np.full((len(rows), count), NOBODY, dtype=np.int64)
    share = pool[rank::world_size]
    for start in range(0, len(share), EVALUATION_ROWS):
        block = share[start : start + EVALUATION_ROWS]
        vectors = read(block).T
        for part in (slice(first, first + QUERIES) for first in range(0, len(rows), QUERIES)):
            order = _order(queries[part] @ vectors, block)
            order[texts[block] == texts[rows[part], None]] = NOBODY
            best[part] = _highest(np.concatenate([best[part], order], axis=1), count)
    if world_size > 1:
        every = collectives.gather_rows(torch.from_numpy(best).to(read.device)).cpu().numpy()
        parts = range(0, len(every), len(rows))
        best = _highest(np.concatenate([every[i : i + len(rows)] for i in parts], axis=1), count)
    cosine, places = _read_order(best)
    none = best == NOBODY
    return np.where(none, -1, places), np.where(none, 0, cosine).astype(np.float32)


def draw(ids: Ints, texts: Ints, rows: Ints, pool: Ints, count: int, seed: int, epoch: int) -> Ints:
    """Up to `count` members of the pool per query [Q, M], drawn by its id, none of its text; -1 where there are no more."""
    drawn = np.full((len(rows), count), -1, dtype=np.int64)
    for query, hashed in enumerate(mix(ids[rows], seed, f"demonstrations of epoch {epoch}")):
        size = min(count + 1, len(pool))
        chosen = pool[np.random.default_rng(int(hashed)).choice(len(pool), size, replace=False)]
        chosen = chosen[texts[chosen] != texts[rows[query]]][:count]
        drawn[query, : len(chosen)] = chosen
    return drawn


def mislabelled(ids: Ints, labels: Ints, num_classes: int, share: float, seed: int) -> Ints:
    """Labels [N] of which a share is wrong, drawn by id: an example shows the same one whoever sees it, and whenever."""
    if not share:
        return labels
    wrong = uniform(ids, seed, "corrupted demonstrations") < share
    others = mix(ids, seed, "labels of corrupted demonstrations") % np.uint64(max(num_classes - 1, 1))
    return np.where(wrong, (labels + 1 + others.astype(np.int64)) % num_classes, labels)


class _Reader:
    """Unit features of training examples by a network in evaluation mode."""

    def __init__(self, worker: Worker, name: str):
        self.worker, self.name, self.device = worker, name, worker.device
        worker.networks[name].eval()

    @torch.no_grad()
    def __call__(self, positions: Ints) -> npt.NDArray[np.float32]:
        """[len(positions), D]"""
        parts = [np.zeros((0, 0), dtype=np.float32)]
        for start in range(0, len(positions), EVALUATION_ROWS):
            chosen = positions[start : start + EVALUATION_ROWS]
            inputs = self.worker.inputs_of(self.name, self.worker.data.train, chosen)
            features = self.worker.forward(self.name, inputs).features.float()
            parts.append(F.normalize(features, dim=1).cpu().numpy())
        return np.ascontiguousarray(np.concatenate(parts[1:] or parts))


def _order(cosine: npt.NDArray[np.float32], places: Ints) -> Ints:
    """Greater where the rounded cosine is, and among equals where the position is smaller."""
    steps: Ints = np.rint(cosine.astype(np.float64) * 10**DIGITS).astype(np.int64)
    return np.asarray(steps * POSITIONS - places)


def _read_order(order: Ints) -> tuple[npt.NDArray[np.float64], Ints]:
    """Rounded cosines and positions."""
    steps = -(-order // POSITIONS)
    return steps / 10**DIGITS, steps * POSITIONS - order


def _highest(order: Ints, count: int) -> Ints:
    """The `count` highest of each row, in falling order."""
    if order.shape[1] > count:
        order = np.partition(order, order.shape[1] - count, axis=1)[:, -count:]
    return np.asarray(np.sort(order, axis=1)[:, ::-1])


def _first_asks(
    consult: Consult, request: Consultation, collectives: Collectives
) -> tuple[Ints, dict[str, float]]:
    """The first worker's answers; the others have -1 and nothing, and wait as long as it takes."""
    answers: tuple[Ints, dict[str, float]] = np.full(len(request.ids), -1, dtype=np.int64), {}
    if collectives.world_size == 1:
        return consult(request)
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["answers"] = consult(request)
        except BaseException as error:  # raised below, on this worker
            outcome["error"] = error

    thread = threading.Thread(target=run, name="rayclean-ask", daemon=True)
    if collectives.rank == 0:
        thread.start()
    while collectives.sum([float(thread.is_alive())])[0]:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    if "error" in outcome:
        raise outcome["error"]
    answers = outcome.get("answers", answers)
    return answers
