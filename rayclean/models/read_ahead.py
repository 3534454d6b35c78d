"""Work that a thread does ahead of whoever needs it: a device that computes should not wait for what it reads next."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def ahead(produce: Callable[[], Iterator[T]], depth: int = 1) -> Generator[T, None, None]:
    """The items of an iterator that runs in a thread, at most `depth` finished items ahead of whoever takes them.

    An exception of the producer is raised here. If the consumer stops early and closes this iterator
    (`contextlib.closing`), the thread has ended when the block is left, whatever ended it.
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
