"""The ledger, an append-only store of all answers on any file system.

Answers are written in segments (JSON lines) under a temporary name, then renamed; `put` returns when the
segment with its answer is complete. Answers that arrive while a segment is written go into the next one
(group commit), so the number of segments depends on the speed of the file system, not on the number of
answers. A writer merges its small segments: the merged one is written before the small ones are deleted, so a
crash leaves at worst duplicates, which are harmless because answers are found by key. Concurrent writers use
different random names.

A failed answer is recorded and counted, but the next run asks again.

Answers of another record version, from an older rayclean, are kept but not used, with a warning.
"""

import asyncio
import json
import logging
import posixpath
import re
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from rayclean.annotators.query import Annotation
from rayclean.folder import Folder
from rayclean.schema import Candidate

logger = logging.getLogger(__name__)

RECORD_VERSION = 2
"""Version of the format of a line: answers and scores by the position of the candidate, candidates by
content."""
MERGE_AT = 64
"""Number of small segments of one writer that are merged into one."""
LINGER = 0.01
"""Seconds that a segment waits for further answers."""

_Place = tuple[str, int]
"""Name of a segment, and a line number in it."""


@dataclass
class Spent:
    """Charges of one session: numbers of queries and tokens."""

    queries: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0

    def add(self, annotation: Annotation) -> None:
        """Count one answer, good or failed."""
        self.queries += 1
        self.failed += annotation.error is not None
        self.prompt_tokens += annotation.prompt_tokens
        self.answer_tokens += annotation.answer_tokens


class Ledger:
    """A store of answers by key.

    Args:
        folder: folder of the segments, created by the first `put`.
        session: name under which answers are charged: `spent` counts the answers under this name, including
            those of crashed processes, so that budgets apply to all attempts.
    """

    def __init__(self, folder: Folder, session: str = ""):
        self.folder = folder
        self.session = session
        self.writer = f"{time.time_ns():x}-{uuid.uuid4().hex[:8]}"
        self.torn = 0
        """Number of lines that could not be read, as a crash of the file system itself leaves them."""
        self.other_versions = 0
        """Number of answers of another version, which are not used."""
        self.spent = Spent()
        self._places: dict[bytes, _Place] = {}
        self._segments: set[str] = set()
        self._small: list[tuple[int, list[str]]] = []
        self._waiting: list[tuple[Annotation, asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._count = 0
        self._lock = threading.RLock()
        self.refresh(count=True)

    def refresh(self, *, count: bool = False) -> None:
        """Read new segments; with `count`, add the answers of this session to `spent`."""
        while True:  # a segment that vanishes was merged into another, which the next listing contains
            vanished = False
            names = self._list()
            self._forget(self._segments - set(names))
            for name in uncovered_segments(names):
                if name in self._segments:
                    continue
                lines = segment_lines(self.folder, name)
                if lines is None:
                    vanished = True
                    continue
                self._segments.add(name)
                self._index(name, lines, count=count)
            if not vanished:
                break
        if self.other_versions and count:
            logger.warning(
                "ledger: %d answers in %s are of another version of rayclean: they stay where they are and "
                "are not used, so these questions are asked again",
                self.other_versions,
                self.folder.path(),
            )

    def lookup(self, keys: Iterable[str]) -> dict[str, Annotation]:
        """The answers by key; keys without an answer are absent."""
        found: dict[str, Annotation] = {}
        with self._lock:
            missing = set(keys)
            while wanted := {
                key: bytes.fromhex(key) for key in missing if bytes.fromhex(key) in self._places
            }:
                by_segment: dict[str, list[tuple[int, str]]] = {}
                for key, packed in wanted.items():
                    segment, number = self._places[packed]
                    by_segment.setdefault(segment, []).append((number, key))
                for segment, places in by_segment.items():
                    lines = segment_lines(self.folder, segment)
                    if lines is None:  # merged by another writer
                        self.refresh()
                        break
                    for number, key in places:
                        record = parse_answer(lines[number])
                        assert isinstance(record, Annotation)  # indexed lines are readable
                        found[key] = record
                missing -= found.keys()
        return found

    def __len__(self) -> int:
        """Number of keys with an answer."""
        return len(self._places)

    async def put(self, annotation: Annotation) -> None:
        """Record an answer; returns when it is durable."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((annotation, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        await future

    def close(self) -> None:
        """Merge the small segments of this writer."""
        with self._lock:
            self._merge()

    async def _flush(self) -> None:
        """Write all waiting answers, one segment at a time."""
        await asyncio.sleep(LINGER)
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._commit, [annotation for annotation, _ in batch])
            except Exception as error:  # raised again where `put` is awaited
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for _, future in batch:
                    if not future.done():
                        future.set_result(None)

    def _commit(self, annotations: list[Annotation]) -> None:
        """Write answers as one segment."""
        with self._lock:
            lines = [_line(annotation) for annotation in annotations]
            name = self._write(lines, self._count, self._count)
            self._small.append((self._count, lines))
            self._count += 1
            self._index(name, lines, count=True)
            if len(self._small) >= MERGE_AT:
                self._merge()

    def _merge(self) -> None:
        if len(self._small) < 2:
            return
        lines = [line for _, segment in self._small for line in segment]
        name = self._write(lines, self._small[0][0], self._small[-1][0])
        self._index(name, lines, count=False, move=True)
        for number, _ in self._small:
            small = _segment_name(self.writer, number, number)
            self._segments.discard(small)
            self.folder.remove(small)
        self._small = []

    def _write(self, lines: list[str], first: int, last: int) -> str:
        """Write a segment atomically; returns its name."""
        name = _segment_name(self.writer, first, last)
        content = "".join(f"{line}\n" for line in lines).encode()
        self.folder.write_bytes(content, name, durable=True)
        self._segments.add(name)
        return name

    def _index(self, name: str, lines: list[str], *, count: bool, move: bool = False) -> None:
        """Index the places of a segment's answers; `move` replaces known places."""
        for number, line in enumerate(lines):
            annotation = parse_answer(line)
            if isinstance(annotation, _OtherVersion):
                self.other_versions += 1
                continue
            if annotation is None:
                self.torn += 1
                logger.warning(
                    "ledger: line %d of %s cannot be read: skipped", number + 1, self.folder.path(name)
                )
                continue
            if count and annotation.session == self.session:
                self.spent.add(annotation)
            key = bytes.fromhex(annotation.key)
            if annotation.error is None and (move or key not in self._places):
                self._places[key] = (name, number)

    def _forget(self, segments: set[str]) -> None:
        """Remove segments that no longer exist from the index."""
        if segments:
            self._segments -= segments
            self._places = {key: place for key, place in self._places.items() if place[0] not in segments}

    def _list(self) -> list[str]:
        self.folder.fs.invalidate_cache(self.folder.root)
        try:
            entries = self.folder.fs.ls(self.folder.root, detail=False)
        except FileNotFoundError:
            return []
        names = (posixpath.basename(str(entry)) for entry in entries)
        return sorted(name for name in names if SEGMENT.fullmatch(name))


SEGMENT = re.compile(r"segment-([0-9a-f]+-[0-9a-f]+)-(\d+)-(\d+)\.jsonl")
"""Names of segments: the writer, and the first and the last of its groups of answers that are there."""


def _segment_name(writer: str, first: int, last: int) -> str:
    """Name of the segment with the answers of a writer's groups `first` to `last`."""
    return f"segment-{writer}-{first:08d}-{last:08d}.jsonl"


def segment_lines(folder: Folder, name: str) -> list[str] | None:
    """Lines of a segment; None if it no longer exists."""
    try:
        content = bytes(folder.fs.cat_file(folder.path(name))).decode(errors="replace")
    except FileNotFoundError:
        return None
    return content.removesuffix("\n").split("\n") if content else []


def uncovered_segments(names: list[str]) -> list[str]:
    """Names without the segments that a merged one contains, left by a crash before their deletion."""
    ranges: dict[str, list[tuple[int, int]]] = {}
    parsed = []
    for name in names:
        match = SEGMENT.fullmatch(name)
        assert match is not None
        writer, first, last = match[1], int(match[2]), int(match[3])
        parsed.append((name, writer, first, last))
        if last > first:
            ranges.setdefault(writer, []).append((first, last))
    return [
        name
        for name, writer, first, last in parsed
        if not any(a <= first and last <= b and (a, b) != (first, last) for a, b in ranges.get(writer, []))
    ]


class _OtherVersion:
    """Placeholder for a line of another record version."""


def _line(annotation: Annotation) -> str:
    """Format an answer as one line of JSON."""
    return json.dumps({"v": RECORD_VERSION, **asdict(annotation)}, allow_nan=False)


def parse_answer(line: str) -> Annotation | _OtherVersion | None:
    """Parse the answer in a line; None if the line is damaged."""
    try:
        record = json.loads(line)
        if record.pop("v") != RECORD_VERSION:
            return _OtherVersion()
        bytes.fromhex(record["key"])
        candidates = tuple(Candidate(**candidate) for candidate in record.pop("candidates"))
        scores = tuple(float(score) for score in record.pop("scores"))
        return Annotation(**record, scores=scores, candidates=candidates)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
