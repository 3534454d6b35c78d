"""From suspects to queries, shard by shard: what `relabel` asks, written as files before anyone is asked.

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
from rayclean.annotators.demonstrations import (
    DemonstrationSources,
    nearest_demonstrations,
    random_demonstrations,
)
from rayclean.folder import Folder
from rayclean.schema import Label, LabelSet

QUERIES = pa.schema(
    [
        ("example_id", pa.int64()),
        ("rank", pa.int64()),
        ("given_label", pa.int32()),
        ("suggested_label", pa.int32()),
        ("text", pa.string()),
        ("candidates", pa.list_(pa.int32())),
        (
            "demonstrations",
            pa.list_(pa.struct([("text", pa.string()), ("label", pa.int32()), ("similarity", pa.float64())])),
        ),
    ]
)


class CandidateMaker(Protocol):
    """What is needed of a task (`rayclean.tasks.base.Task`)."""

    def candidates(self, given: Any, predicted: Any, kind: str) -> tuple[Label, ...]:
        """The possible answers for one suspect."""
        ...


@dataclass(frozen=True)
class QueryBuilder:
    """How queries are made of suspects."""

    sources: DemonstrationSources
    task: CandidateMaker
    out: str
    """URL of the folder whose `queries/` is written."""
    candidates: str
    """`binary` or `all`."""
    demonstrations: int
    selector: str
    pool: tuple[tuple[int, str, int], ...]
    """`random` only: what is drawn from."""
    seed: int
    rows_per_chunk: int

    def build(self, shards: Sequence[str]) -> int:
        """Write the queries of some shards of examples, all their suspects in memory at once; returns how many."""
        out = Folder(self.out)
        tables = {shard: self._suspects(shard) for shard in shards}
        total = 0
        if self.demonstrations and self.selector == "nearest":
            shown = self._nearest(tables)
        else:
            shown = {
                example: random_demonstrations(self.pool, example, text, self.demonstrations, self.seed)
                for table in tables.values()
                for example, text in zip(
                    table["example_id"].to_pylist(), table["text"].to_pylist(), strict=True
                )
            }
        for shard, table in tables.items():
            rows = [self._row(row, shown[row["example_id"]]) for row in table.to_pylist()]
            queries = pa.Table.from_pylist(rows, schema=QUERIES)
            chunks = queries["rank"].to_numpy() // self.rows_per_chunk
            for chunk in np.unique(chunks):
                out.write_table(
                    queries.filter(pa.array(chunks == chunk)), "queries", chunk_name(int(chunk)), shard
                )
            out.write_json(
                {"suspects": len(rows)}, "queries", "built", f"{shard}.json"
            )  # last: the shard is whole
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
        return dict(
            zip(
                ids.tolist(),
                nearest_demonstrations(self.sources, ids, texts, features, self.demonstrations),
                strict=True,
            )
        )

    def _row(self, row: dict[str, object], shown: tuple[Demonstration, ...]) -> dict[str, object]:
        labels = self.task.candidates(row["given_label"], row["suggested_label"], self.candidates)
        return {
            **row,
            "candidates": [label.index for label in labels],
            "demonstrations": [{"text": d.text, "label": d.label, "similarity": d.similarity} for d in shown],
        }


def suspects_of(detect: str, shard: str) -> pa.Table:
    """example_id, rank, given_label and suggested_label of a shard's suspects."""
    columns = ["example_id", "rank", "given_label", "suggested_label", "suspect"]
    table = Folder(detect).read_table("findings", shard, columns=columns)
    return table.filter(table["suspect"]).select(columns[:-1])


def chunk_name(chunk: int) -> str:
    """Folder of a chunk's queries."""
    return f"chunk-{chunk:05d}"


def read_chunk(out: Folder, chunk: int, labels: LabelSet, scored: bool) -> tuple[pa.Table, list[Query]]:
    """A chunk's rows, most doubtful first, and their queries.

    Args:
        out: folder with `queries/`.
        chunk: number of the chunk.
        labels: all labels.
        scored: whether the scores of the other labels are wanted, too.
    """
    name = chunk_name(chunk)
    parts = [out.read_table("queries", name, shard) for shard in out.shards("queries", name)]
    table = pa.concat_tables(parts).sort_by([("rank", "ascending"), ("example_id", "ascending")])
    queries = []
    for row in table.to_pylist():
        candidates = tuple(labels[index] for index in row["candidates"])
        queries.append(
            Query(
                row["example_id"],
                row["text"],
                candidates,
                tuple(Demonstration(**d) for d in row["demonstrations"]),
                row["given_label"],
                row["suggested_label"],
                tuple(label for label in labels if label not in candidates) if scored else (),
            )
        )
    return table, queries
