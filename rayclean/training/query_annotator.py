"""Queries of a method to the annotator between two epochs, with the same answers on every worker.

The loop uses an annotator only as an `AskAnnotator`, which takes ids and returns labels. One worker asks; the
others wait in short steps, so that hours of asking do not exceed the time-out of a collective.

The demonstrations of all queries are stored before asking, so an attempt that repeats the epoch sends the
same queries, even if its features differ in the last digits (other workers, lower precision), and pays for no
answer twice.
"""

import threading
import time
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from rayclean.folder import Folder
from rayclean.methods.base import AnnotatorRequest, Method
from rayclean.schema import MethodQueries
from rayclean.training import query_demonstrations
from rayclean.training.collectives import Collectives
from rayclean.training.state import ExampleState
from rayclean.training.worker import Worker

SECONDS_BETWEEN_LOOKS = 0.2

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float32]


class AskAnnotator(Protocol):
    """Interface through which a method's queries are answered."""

    def demonstrations(self, count: int, selector: str) -> tuple[int, str]:
        """Number and selector of the demonstrations that the annotator uses, given those that the method
        requests.
        """
        ...

    def __call__(self, asked: MethodQueries) -> tuple[_Ints, dict[str, float]]:
        """Labels [Q], -1 without an answer, and figures for the epoch's line; does not raise for a failing
        annotator.
        """
        ...


def ask_annotator(
    worker: Worker,
    method: Method,
    state: ExampleState,
    request: AnnotatorRequest,
    consult: AskAnnotator,
    seed: int,
    epoch: int,
    shown: Folder,
) -> dict[str, float]:
    """Ask the annotator, let the method update its columns, and return figures (on the first worker only).

    Args:
        worker: worker with networks and data.
        method: method that asks.
        state: columns of the method.
        request: the request of the method.
        consult: interface to the annotator.
        seed: seed of the job.
        epoch: number of the epoch that begins.
        shown: folder in which this training stores the demonstrations of its queries.
    """
    collectives = worker.collectives
    count, selector = consult.demonstrations(request.demonstrations, request.selector)
    texts = worker.data.texts_of_train if count else np.arange(len(state.ids))
    pool = query_demonstrations.first_of_each(texts, np.flatnonzero(request.pool))
    if not count or not len(pool):
        places, similarity = query_demonstrations.no_neighbours(len(request.rows), 0)
    elif selector == "random":
        places = query_demonstrations.draw_from_pool(state.ids, texts, request.rows, pool, count, seed, epoch)
        similarity = np.full(places.shape, np.nan, dtype=np.float32)
    else:
        name, asked_about = f"epoch-{epoch:03d}.safetensors", state.ids[request.rows]
        known = _written(shown, name, asked_about) if collectives.rank == 0 else None
        if collectives.from_first(np.array([known is not None]))[0]:
            places, similarity = known or query_demonstrations.no_neighbours(len(request.rows), count)
        else:
            read = query_demonstrations.TextReader(worker, method.networks[0])
            places, similarity = query_demonstrations.nearest_in_pool(
                read, state.ids, texts, request.rows, pool, count, collectives
            )
            if collectives.rank == 0:
                _write(shown, name, asked_about, places, similarity)
    labels = state.columns["given_label"]
    displayed = query_demonstrations.mislabelled(
        state.ids, labels, method.num_classes, request.corrupted, seed
    )
    queries = MethodQueries(
        ids=state.ids[request.rows],
        given=labels[request.rows],
        predicted=request.predicted,
        log_odds=request.log_odds,
        neighbours=np.where(places >= 0, state.ids[places], -1),
        neighbour_labels=np.where(places >= 0, displayed[places], -1),
        similarity=similarity,
        candidates=request.candidates,
        accept=request.accept,
    )
    answers, figures = _first_asks(consult, queries, collectives)
    method.revise(state.columns, request.rows, collectives.from_first(answers), epoch)
    return figures


def _write(folder: Folder, name: str, ids: _Ints, places: _Ints, similarity: _Floats) -> None:
    """Store the demonstrations of the queries about some examples."""
    folder.write_bytes(save({"ids": ids, "places": places, "similarity": similarity}), name)


def _written(folder: Folder, name: str, ids: _Ints) -> tuple[_Ints, _Floats] | None:
    """Demonstrations stored by an earlier attempt for the same examples; None if there are none."""
    if not folder.exists(name):
        return None
    found = load(folder.fs.cat_file(folder.path(name)))
    return (found["places"], found["similarity"]) if np.array_equal(found["ids"], ids) else None


def _first_asks(
    consult: AskAnnotator, request: MethodQueries, collectives: Collectives
) -> tuple[_Ints, dict[str, float]]:
    """Ask on the first worker; the other workers wait, however long, and get -1 and no figures."""
    answers: tuple[_Ints, dict[str, float]] = np.full(len(request.ids), -1, dtype=np.int64), {}
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
