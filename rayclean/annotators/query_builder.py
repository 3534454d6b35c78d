"""The conversion of suspects to queries, shard by shard; all queries are written before any is sent.

    queries/annotator-00/chunk-00000/part-00003.parquet    queries of one shard of examples to one annotator

The queries of every shard are divided into chunks by rank, so that a budget is spent on the most doubtful
suspects first. Written queries refer to examples by id; `read_chunk` adds the texts.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.annotators.answers import QUESTION
from rayclean.annotators.base import NEAREST_OF_ANY
from rayclean.annotators.demonstrations import (
    DemonstrationSources,
    LabelledExample,
    balanced_demonstrations,
    nearest_demonstrations,
)
from rayclean.annotators.query import Demonstration, Query
from rayclean.annotators.random_demonstrations import random_demonstrations
from rayclean.folder import Folder
from rayclean.functional.hashing import uniform
from rayclean.functional.lookup import lookup
from rayclean.schema import LabelSet
from rayclean.tasks.base import Task

SMALLEST = 1e-9
"""A probability below this counts as this, so that log-odds are finite."""
FIRST_SUSPECTS = 200
"""Suspects of the first chunk, which are asked about together with the control questions: all of them say whether asking
about the others can change a label."""
_DEMONSTRATION = pa.struct(
    [
        ("example_id", pa.int64()),
        ("label", pa.int32()),
        ("value", pa.string()),
        ("similarity", pa.float64()),
        ("probability", pa.float64()),  # that the label is right; null where no suspect is shown
    ]
)
_QUERIES = QUESTION.append(pa.field("demonstrations", pa.list_(_DEMONSTRATION)))


@dataclass(frozen=True)
class QueryBuilder:
    """Builds queries from suspects and writes them."""

    sources: DemonstrationSources
    task: Task
    out: str
    """URL of the folder for the queries of one annotator (`queries/annotator-00`)."""
    candidates: str
    """`binary` or `all`."""
    demonstrations: int
    """Number of demonstrations per query."""
    selector: str
    """`nearest` (of the candidates, balanced), `random` (of the candidates), or `NEAREST_OF_ANY`."""
    pool: tuple[LabelledExample, ...]
    """Examples from which the selector `random` draws; empty for others."""
    seed: int
    rows_per_chunk: int
    """Number of ranks per chunk after the first, which has `FIRST_SUSPECTS` and the control questions."""
    controls: int = 0
    """Number of control questions."""
    only: npt.NDArray[np.int64] | None = None
    """Sorted ids of the suspects to ask about; None: all."""
    beyond: tuple[npt.NDArray[np.int64], int] | None = None
    """Sorted ids of units that are no suspects and are asked about all the same, and the rank of the first."""

    def build(self, shards: Sequence[str]) -> int:
        """Write the queries of some shards, with all their suspects in memory; returns the number of
        queries.
        """
        out = Folder(self.out)
        suspects = {shard: self._suspects(shard) for shard in shards}
        if self.demonstrations and self.selector != "random":
            self._show_nearest(suspects)
        elif self.demonstrations:
            for row in itertools.chain(*suspects.values()):
                row["demonstrations"] = random_demonstrations(
                    self.pool,
                    row["example_id"],
                    row["text"],
                    self.demonstrations,
                    self.seed,
                    frozenset(self._shown(row)),
                )
        total = 0
        for shard, rows in suspects.items():
            queries = pa.Table.from_pylist([_query_row(row) for row in rows], schema=_QUERIES)
            after_first = queries["rank"].to_numpy() - FIRST_SUSPECTS
            chunks = np.where(after_first < 0, 0, 1 + after_first // self.rows_per_chunk)
            for chunk in np.unique(chunks):
                part = queries.filter(pa.array(chunks == chunk))
                out.write_table(part, chunk_name(int(chunk)), shard)
            # This file is written last and marks the queries of the shard as complete.
            out.write_json({"suspects": len(rows)}, "built", f"{shard}.json")
            total += len(rows)
        return total

    def _suspects(self, shard: str) -> list[dict[str, Any]]:
        """The suspects of a shard with their texts and candidates, without demonstrations."""
        found = suspects_of(self.sources.detect, shard, self.controls, self.beyond)
        if self.only is not None:
            asked = np.isin(found["unit_id"].to_numpy(), self.only) | (found["rank"].to_numpy() < 0)
            found = found.filter(pa.array(asked))
        examples = Folder(self.sources.load).read_table("examples", shard, columns=["example_id", "text"])
        rows = pc.index_in(found["example_id"], value_set=examples["example_id"].combine_chunks())
        suspects: list[dict[str, Any]] = found.append_column(
            "text", examples["text"].take(rows.combine_chunks())
        ).to_pylist()
        for row in suspects:
            row["candidates"] = self.task.candidates(
                row["given_label"], row["suggested_label"], self.candidates
            )
            if not self.task.candidates_are_labels:  # by what they say: not the given one first
                values = {
                    row[f"{which}_label"]: row[f"{which}_value"] or "" for which in ("given", "suggested")
                }
                row["candidates"] = sorted(row["candidates"], key=values.__getitem__)
            row["demonstrations"] = ()
        return suspects

    def _show_nearest(self, suspects: dict[str, list[dict[str, Any]]]) -> None:
        rows = list(itertools.chain(*suspects.values()))
        if not rows:
            return
        ids = {
            shard: np.array([row["example_id"] for row in each], dtype=np.int64)
            for shard, each in suspects.items()
        }
        features = [self.sources.features(shard, each) for shard, each in ids.items() if len(each)]
        votes = self.selector == NEAREST_OF_ANY
        where = (
            replace(self.sources, votes=votes),
            np.concatenate([*ids.values()]),
            [row["text"] for row in rows],
            np.concatenate(features),
            self.demonstrations,
        )
        if votes:
            shown = nearest_demonstrations(*where, [self._answers(row) for row in rows])
        else:
            shown = balanced_demonstrations(*where, [self._shown(row) for row in rows])
        for row, demonstrations in zip(rows, shown, strict=True):
            row["demonstrations"] = demonstrations

    def _shown(self, row: dict[str, Any]) -> list[int]:
        """The answers of which demonstrations are shown, each equally often: the candidates; where these are texts of their
        own, what other examples were given, as they have neither of these texts.
        """
        return row["candidates"] if self.task.candidates_are_labels else [row["given_label"]]

    def _answers(self, row: dict[str, Any]) -> frozenset[int]:
        """All answers of a suspect's unit: other units than those with one of them are no neighbours."""
        return frozenset({*row["candidates"], *self.task.further(row["candidates"])})


def _query_row(suspect: dict[str, Any]) -> dict[str, Any]:
    """A suspect as it is written: without its text, and with ids in place of the demonstrations' texts."""
    shown = [
        {
            "example_id": each.example_id,
            "label": each.label,
            "value": each.value,
            "similarity": each.similarity,
            "probability": each.probability,
        }
        for each in suspect["demonstrations"]
    ]
    return {**{name: value for name, value in suspect.items() if name != "text"}, "demonstrations": shown}


def suspects_of(
    detect: str, shard: str, controls: int = 0, beyond: tuple[npt.NDArray[np.int64], int] | None = None
) -> pa.Table:
    """The columns of a shard's suspects that queries are made of, of its control questions, and of those `beyond`.

    The rank of a control question is negative, so that it is asked before any suspect: nothing can be decided without
    it. Questions beyond the suspects come after all of them. `log_odds` = log P(suggested) - log P(given), as detection sees it.
    """
    columns = [
        "unit_id",
        "example_id",
        "rank",
        "given_label",
        "suggested_label",
        "given_value",
        "suggested_value",
    ]
    further = ["control", "given_probability", "suggested_probability"]
    table = Folder(detect).read_table("findings", shard, columns=[*columns, *further])
    rank, control = table["rank"].to_numpy(), table["control"].to_numpy()
    is_control = (control >= 0) & (control < controls)
    rank = np.where(is_control, control - controls, rank)
    if beyond is not None:
        place, hit = lookup(beyond[0], table["unit_id"].to_numpy())
        rank = np.where(hit, beyond[1] + place, rank)
    given, suggested = (
        np.log(np.maximum(table[name].to_numpy().astype(np.float64), SMALLEST)) for name in further[1:]
    )
    table = table.set_column(2, "rank", pa.array(rank)).select(columns)
    table = table.append_column("log_odds", pa.array(suggested - given))
    return table.filter(pa.array(is_control | (rank >= 0)))


def chunk_name(chunk: int) -> str:
    """Name of the folder with a chunk's queries."""
    return f"chunk-{chunk:05d}"


def chunks_in(queries: Folder) -> list[int]:
    """Numbers of the chunks that hold queries, the most doubtful suspects first."""
    try:
        entries = queries.fs.ls(queries.path(), detail=False)
    except FileNotFoundError:
        return []
    names = (str(entry).rstrip("/").rpartition("/")[2] for entry in entries)
    return sorted(int(name.removeprefix("chunk-")) for name in names if name.startswith("chunk-"))


def read_chunk(
    queries: Folder, examples: str, chunk: int, task: Task, shows_given: bool = False
) -> tuple[pa.Table, list[Query]]:
    """A chunk's rows, most doubtful first, and the queries of those that have several candidates.

    Args:
        queries: folder with the queries to one annotator.
        examples: folder of example shards, which hold the texts.
        chunk: number of the chunk.
        task: holds all answers.
        shows_given: `Annotator.shows_given`.
    """
    name = chunk_name(chunk)
    parts = [queries.read_table(name, shard) for shard in queries.shards(name)]
    table = pa.concat_tables(parts).sort_by([("rank", "ascending"), ("unit_id", "ascending")])
    rows = [row for row in table.to_pylist() if len(row["candidates"]) > 1]
    ids = {each["example_id"] for row in rows for each in (row, *row["demonstrations"])}
    texts = read_texts(examples, np.array(sorted(ids), dtype=np.int64))
    answers = task.answers
    return table, [build_query(row, texts, task, answers, shows_given) for row in rows]


def build_query(
    row: Mapping[str, Any], texts: Mapping[int, str], task: Task, answers: LabelSet, shows_given: bool
) -> Query:
    """The query in a row of `queries/`.

    Args:
        row: as it was written.
        texts: of its example and of its demonstrations, by id.
        task: of the run.
        answers: `task.answers`.
        shows_given: `Annotator.shows_given`.
    """
    shown = []
    for each in row["demonstrations"]:
        said, number, value = texts[each["example_id"]], each["label"], each.get("value")
        answer = answers.candidate(number) if value is None else task.candidate(number, value, said)
        shown.append(Demonstration(said, answer, each["similarity"], each.get("probability")))
    text = texts[row["example_id"]]
    values = {row["given_label"]: row["given_value"], row["suggested_label"]: row["suggested_value"]}
    offered = {
        answer: task.candidate(answer, values.get(answer), text) for answer in {*row["candidates"], *values}
    }
    given, suggested = offered[row["given_label"]], offered[row["suggested_label"]]
    if shows_given and row["rank"] < 0 and _is_exchanged(row["unit_id"]):
        given, suggested = suggested, given
    candidates = tuple(offered[answer] for answer in row["candidates"])
    return Query(row["unit_id"], text, candidates, tuple(shown), given, suggested)


def _is_exchanged(unit_id: int) -> bool:
    """Whether a control question shows its rival as the given label; so do half of them."""
    return bool(uniform(np.array([unit_id]), 0, "exchanged control")[0] < 0.5)


def read_texts(examples: str, ids: npt.NDArray[np.int64]) -> dict[int, str]:
    """Texts by id, with one shard of the folder `examples` in memory at a time."""
    folder = Folder(examples)
    texts: dict[int, str] = {}
    for shard in folder.shards():
        table = folder.read_table(shard, columns=["example_id", "text"])
        table = table.filter(pa.array(np.isin(table["example_id"].to_numpy(), ids)))
        texts.update(zip(table["example_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    return texts
