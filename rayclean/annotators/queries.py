"""From suspects to queries, shard by shard; the queries are written as files before any is sent.

    queries/chunk-00000/part-00003.parquet    queries of one shard of examples, cut by rank into chunks

Chunks follow the rank, so that a budget is spent on the most doubtful suspects first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.annotators.base import Demonstration, Query
from rayclean.annotators.calibration_queries import labels_to_score
from rayclean.annotators.demonstrations import (
    DemonstrationSources,
    nearest_demonstrations,
    random_demonstrations,
)
from rayclean.folder import Folder
from rayclean.schema import Label, LabelSet

_DEMONSTRATION = pa.struct([("text", pa.string()), ("label", pa.int32()), ("similarity", pa.float64())])
_QUERIES = pa.schema(
    [
        ("example_id", pa.int64()),
        ("rank", pa.int64()),
        ("given_label", pa.int32()),
        ("suggested_label", pa.int32()),
        ("text", pa.string()),
        ("candidates", pa.list_(pa.int32())),
        ("demonstrations", pa.list_(_DEMONSTRATION)),
    ]
)


class CandidateMaker(Protocol):
    """The part of a task (`rayclean.tasks.base.Task`) that makes queries."""

    def candidates(self, given: Any, predicted: Any, kind: str) -> tuple[Label, ...]:
        """The possible answers for one suspect."""
        ...


@dataclass(frozen=True)
class QueryBuilder:
    """Makes queries from suspects and writes them."""

    sources: DemonstrationSources
    task: CandidateMaker
    out: str
    """URL of the folder whose `queries/` is written."""
    candidates: str
    """`binary` or `all`."""
    demonstrations: int
    """Number of demonstrations per query."""
    selector: str
    """`nearest` or `random`."""
    pool: tuple[tuple[int, str, int], ...]
    """Id, text and label of the examples from which `random` draws; empty for `nearest`."""
    seed: int
    rows_per_chunk: int

    def build(self, shards: Sequence[str]) -> int:
        """Write the queries of some shards of examples, with all their suspects in memory; returns the number
        of queries.
        """
        out = Folder(self.out)
        tables = {shard: self._suspects(shard) for shard in shards}
        total = 0
        if self.demonstrations and self.selector == "nearest":
            shown = self._nearest(tables)
        else:
            shown = {
                row["example_id"]: random_demonstrations(
                    self.pool, row["example_id"], row["text"], self.demonstrations, self.seed
                )
                for table in tables.values()
                for row in table.select(["example_id", "text"]).to_pylist()
            }
        for shard, table in tables.items():
            rows = [self._row(row, shown[row["example_id"]]) for row in table.to_pylist()]
            queries = pa.Table.from_pylist(rows, schema=_QUERIES)
            chunks = queries["rank"].to_numpy() // self.rows_per_chunk
            for chunk in np.unique(chunks):
                out.write_table(
                    queries.filter(pa.array(chunks == chunk)), "queries", chunk_name(int(chunk)), shard
                )
            # Written last: where this file exists, the queries of the shard are complete.
            out.write_json({"suspects": len(rows)}, "queries", "built", f"{shard}.json")
            total += len(rows)
        return total

    def _suspects(self, shard: str) -> pa.Table:
        found = suspects_of(self.sources.detect, shard)
        examples = Folder(self.sources.load).read_table("examples", shard, columns=["example_id", "text"])
        rows = pc.index_in(found["example_id"], value_set=examples["example_id"].combine_chunks())
        return found.append_column("text", examples["text"].take(rows.combine_chunks()))

    def _nearest(self, tables: dict[str, pa.Table]) -> dict[int, tuple[Demonstration, ...]]:
        tables = {shard: table for shard, table in tables.items() if len(table)}
        if not tables:
            return {}
        ids = np.concatenate([table["example_id"].to_numpy() for table in tables.values()])
        texts = [text for table in tables.values() for text in table["text"].to_pylist()]
        features = np.concatenate(
            [self.sources.features(shard, table["example_id"].to_numpy()) for shard, table in tables.items()]
        )
        shown = nearest_demonstrations(self.sources, ids, texts, features, self.demonstrations)
        return dict(zip(ids.tolist(), shown, strict=True))

    def _row(self, row: dict[str, object], shown: tuple[Demonstration, ...]) -> dict[str, object]:
        """A suspect's row with its candidates and demonstrations."""
        labels = self.task.candidates(row["given_label"], row["suggested_label"], self.candidates)
        return {
            **row,
            "candidates": [label.index for label in labels],
            "demonstrations": [{"text": d.text, "label": d.label, "similarity": d.similarity} for d in shown],
        }


def suspects_of(detect: str, shard: str) -> pa.Table:
    """The columns example_id, rank, given_label and suggested_label of a shard's suspects."""
    columns = ["example_id", "rank", "given_label", "suggested_label", "suspect"]
    table = Folder(detect).read_table("findings", shard, columns=columns)
    return table.filter(table["suspect"]).select(columns[:-1])


def chunk_name(chunk: int) -> str:
    """Name of the folder with a chunk's queries."""
    return f"chunk-{chunk:05d}"


def read_chunk(out: Folder, chunk: int, labels: LabelSet, calibration: str) -> tuple[pa.Table, list[Query]]:
    """A chunk's rows, most doubtful first, and the queries of those that have several candidates.

    Args:
        out: folder with `queries/`.
        chunk: number of the chunk.
        labels: all labels.
        calibration: `batch` makes queries ask for the scores of further labels, too.
    """
    name = chunk_name(chunk)
    parts = [out.read_table("queries", name, shard) for shard in out.shards("queries", name)]
    table = pa.concat_tables(parts).sort_by([("rank", "ascending"), ("example_id", "ascending")])
    queries = []
    for row in table.to_pylist():
        candidates = tuple(labels[index] for index in row["candidates"])
        if len(candidates) < 2:
            continue
        queries.append(
            Query(
                row["example_id"],
                row["text"],
                candidates,
                tuple(Demonstration(**d) for d in row["demonstrations"]),
                row["given_label"],
                row["suggested_label"],
                labels_to_score(labels, candidates, calibration),
            )
        )
    return table, queries
