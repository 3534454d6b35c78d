"""The example that a story is about: where it is, and its row in every table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rayclean.config import Config, parse_config
from rayclean.errors import ArtifactError
from rayclean.folder import Folder
from rayclean.origins import ORIGINS_FOLDER, Origin, Origins
from rayclean.run import Run
from rayclean.schema import LabelSet
from rayclean.stories.events import Relative
from rayclean.stories.finding import EXAMPLE_PARTS
from rayclean.tasks import TASKS
from rayclean.tasks.base import Task


@dataclass(frozen=True)
class Unit:
    """One thing that is doubted about the example: in classification the example itself."""

    unit_id: int
    part: str
    """The class that it is about; empty where the example is the unit."""
    given_label: int | None
    """Number of the answer that the data give; None where they give none."""
    given_value: str | None
    """The answer as JSON, where its number does not say it."""


@dataclass(frozen=True)
class Subject:
    """An example of a run, and the tables that know it."""

    run: Run
    config: Config
    task: Task
    example_id: int
    origin: Origin | None
    shard: str
    """Name of the shard that holds it, in every table but those of `train` and the decisions on suspects."""
    table: str
    """`examples` or `test`."""
    example: dict[str, Any]
    """Its row of `load/examples/` or `load/test/`."""
    units: tuple[Unit, ...]

    @classmethod
    def read(cls, run: Run, example_id: int) -> "Subject":
        """Find the example.

        Raises:
            ArtifactError: the run does not hold it.
        """
        load = run.require("load")
        config = parse_config(run.read_json("config.json"), where=run.path("config.json"))
        labels = LabelSet.from_json(load.read_text("labels.json"))
        task = TASKS.build(config.task, labels.described(config.dataset.words, config.dataset.definitions))
        places = [
            shard
            for shard, _ in load.rows_with(ORIGINS_FOLDER, "example_id", [example_id], columns=["example_id"])
        ]
        for table in EXAMPLE_PARTS:
            for shard in places or load.shards(table):
                rows = rows_in(load, (table, shard), "example_id", [example_id])
                if len(rows):
                    origin = Origins(load).shard(shard, rows["example_id"]).to_pylist()[0]
                    known = origin.pop("example_id") is not None and origin["file"] is not None
                    return cls(
                        run, config, task, example_id, Origin(**origin) if known else None, shard, table, rows.to_pylist()[0],
                        _units(task, rows),
                    )  # fmt: skip
        raise ArtifactError(
            f"no example has the id {example_id} (see {load.url('examples')}); look for it by key or row: rayclean.log(run, "
            "key=...)"
        )

    @property
    def text(self) -> str:
        """Its whole text."""
        return str(self.example["text"])

    @property
    def unit_ids(self) -> list[int]:
        """Ids of its units."""
        return [unit.unit_id for unit in self.units]

    @cached_property
    def names(self) -> list[str]:
        """Names of all answers."""
        return self.task.answers.names

    def written(self, label: Any) -> str | None:
        """A label of the example in the form of the task as people read it; None where there is none."""
        return None if label is None else self.task.written(label, self.text)

    def answer(self, number: int | None, value: str | None = None) -> str | None:
        """An answer about one of its units as people read it: by its name, or by what it says where the name does not."""
        return None if number is None else self.task.answer_written(number, value, self.text)

    def done(self, verb: str) -> Folder | None:
        """The folder of a verb; None where it has not finished."""
        return None if self.run.manifest(verb) is None else self.run.sub(verb)

    def metrics(self, verb: str) -> dict[str, Any]:
        """The figures of a finished verb."""
        manifest = self.run.manifest(verb)
        return {} if manifest is None else manifest.metrics

    def row(self, folder: Folder, *parts: str) -> dict[str, Any] | None:
        """Its row of a table that holds examples; None where it has none."""
        rows = rows_in(folder, (*parts, self.shard), "example_id", [self.example_id]).to_pylist()
        return rows[0] if rows else None

    def unit_rows(self, folder: Folder, *parts: str) -> list[tuple[Unit, dict[str, Any]]]:
        """The rows of a table that holds units, in the order of its units."""
        rows = rows_in(folder, (*parts, self.shard), "unit_id", self.unit_ids).to_pylist()
        by_id = {row["unit_id"]: row for row in rows}
        return [(unit, by_id[unit.unit_id]) for unit in self.units if unit.unit_id in by_id]

    def relatives(self, similarity: Mapping[int, float | None]) -> tuple[Relative, ...]:
        """Some other examples, in the order of the ids."""
        load = self.run.require("load")
        origins = Origins(load).of(similarity)
        columns = ["example_id", "text", "given_label"]
        rows = {
            row["example_id"]: row
            for _, table in load.rows_with("examples", "example_id", similarity, columns=columns)
            for row in table.to_pylist()
        }
        return tuple(
            Relative(
                each,
                str(origins.get(each, each)),
                self._written_other(rows[each]),
                rows[each]["text"],
                cosine,
            )
            for each, cosine in similarity.items()
            if each in rows
        )

    def _written_other(self, row: dict[str, Any]) -> str | None:
        label = row["given_label"]
        return None if label is None else self.task.written(label, row["text"])


def rows_in(folder: Folder, place: tuple[str, ...], column: str, ids: Iterable[int]) -> pa.Table:
    """The rows of one shard with some ids; an empty table where there is no such shard, or it has no such column."""
    table = folder.read_table(*place) if folder.exists(*place) else pa.table({})
    if column not in table.column_names:
        return pa.table({column: pa.array([], pa.int64())})
    return table.filter(pc.is_in(table[column], pa.array(list(ids), pa.int64())))


def _units(task: Task, rows: pa.Table) -> tuple[Unit, ...]:
    units = task.unit_rows(rows)
    parts = [""] if task.units_are_examples else task.labels.names
    columns = (units[name].to_pylist() for name in ("unit_id", "given_label", "given_value"))
    return tuple(
        Unit(unit_id, part, number, value)
        for part, unit_id, number, value in zip(parts, *columns, strict=True)
    )
