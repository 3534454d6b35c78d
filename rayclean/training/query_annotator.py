"""A method's questions on their way to the annotator, and the answers back: between two epochs, on every worker alike.

The loop knows an annotator only as an `AskAnnotator`: plain ids go out, labels come back. One worker asks; the others wait in
short steps, so that hours of asking are no time-out of a collective.

The demonstrations of each question are written down before anybody is asked: an attempt that repeats the epoch asks the
same, also where its features differ in the last digits (other workers, lower precision), and so pays for no answer twice.
"""

import threading
import time
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from rayclean.folder import Folder
from rayclean.methods.base import Method, Questions
from rayclean.schema import MethodQueries
from rayclean.training import query_demonstrations
from rayclean.training.collectives import Collectives
from rayclean.training.state import ExampleState
from rayclean.training.worker import Worker

SECONDS_BETWEEN_LOOKS = 0.2

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float32]


class AskAnnotator(Protocol):
    """Carrier of a method's questions to the annotator."""

    def demonstrations(self, count: int, selector: str) -> tuple[int, str]:
        """Number and kind of the demonstrations that the annotator wants, where the method asks for `count` by `selector`."""
        ...

    def __call__(self, asked: MethodQueries) -> tuple[_Ints, dict[str, float]]:
        """Labels [Q], -1 where there is no answer, and figures for the epoch's line. Never raises for a failing annotator."""
        ...


def ask_annotator(
    worker: Worker,
    method: Method,
    state: ExampleState,
    questions: Questions,
    consult: AskAnnotator,
    seed: int,
    epoch: int,
    shown: Folder,
) -> dict[str, float]:
    """Ask, let the method revise its columns, and return figures (known on the first worker alone).

    Args:
        worker: networks and data.
        method: the method that asks.
        state: its columns.
        questions: its questions.
        consult: the way to the annotator.
        seed: of the job.
        epoch: the epoch that begins.
        shown: folder of this training for the demonstrations of its questions.
    """
    collectives = worker.collectives
    count, selector = consult.demonstrations(questions.demonstrations, questions.selector)
    texts = worker.data.texts_of_train if count else np.arange(len(state.ids))
    pool = query_demonstrations.first_of_each(texts, np.flatnonzero(questions.pool))
    if not count or not len(pool):
        places, similarity = query_demonstrations.no_neighbours(len(questions.rows), 0)
    elif selector == "random":
        places = query_demonstrations.draw_from_pool(
            state.ids, texts, questions.rows, pool, count, seed, epoch
        )
        similarity = np.full(places.shape, np.nan, dtype=np.float32)
    else:
        name, asked_about = f"epoch-{epoch:03d}.safetensors", state.ids[questions.rows]
        known = _written(shown, name, asked_about) if collectives.rank == 0 else None
        if collectives.from_first(np.array([known is not None]))[0]:
            places, similarity = known or query_demonstrations.no_neighbours(len(questions.rows), count)
        else:
            read = query_demonstrations.TextReader(worker, method.networks[0])
            places, similarity = query_demonstrations.nearest_in_pool(
                read, state.ids, texts, questions.rows, pool, count, collectives
            )
            if collectives.rank == 0:
                _write(shown, name, asked_about, places, similarity)
    labels = state.columns["given_label"]
    displayed = query_demonstrations.mislabelled(
        state.ids, labels, method.num_classes, questions.corrupted, seed
    )
    request = MethodQueries(
        ids=state.ids[questions.rows],
        given=labels[questions.rows],
        predicted=questions.predicted,
        neighbours=np.where(places >= 0, state.ids[places], -1),
        neighbour_labels=np.where(places >= 0, displayed[places], -1),
        similarity=similarity,
        candidates=questions.candidates,
        accept=questions.accept,
    )
    answers, figures = _first_asks(consult, request, collectives)
    method.revise(state.columns, questions.rows, collectives.from_first(answers), epoch)
    return figures


def _write(folder: Folder, name: str, ids: _Ints, places: _Ints, similarity: _Floats) -> None:
    """Write the demonstrations of the questions about some examples."""
    folder.write_bytes(save({"ids": ids, "places": places, "similarity": similarity}), name)


def _written(folder: Folder, name: str, ids: _Ints) -> tuple[_Ints, _Floats] | None:
    """Demonstrations that an earlier attempt wrote for the same examples; None where there are none."""
    if not folder.exists(name):
        return None
    found = load(folder.fs.cat_file(folder.path(name)))
    return (found["places"], found["similarity"]) if np.array_equal(found["ids"], ids) else None


def _first_asks(
    consult: AskAnnotator, request: MethodQueries, collectives: Collectives
) -> tuple[_Ints, dict[str, float]]:
    """Answers and figures on the first worker; the other workers wait, however long, and get -1 and no figures."""
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
