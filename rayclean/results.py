"""A run as Python users meet it: its figures, its suspects, and their own data with the final labels.

run = rayclean.clean("tickets.csv", text="body", label="category")
run.suspects()                    # the doubtful labels first, as a DataFrame with your own columns
run.export("cleaned.parquet")     # your own rows, with the final labels beside them
"""

import html
import json
from collections.abc import Sequence
from functools import cached_property
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from rayclean.config.export_section import ADDED_COLUMNS
from rayclean.errors import ArtifactError
from rayclean.run import VERBS, Run

if TYPE_CHECKING:
    import datasets
    import pandas
    import pyarrow as pa

    from rayclean.config import Config
    from rayclean.config.export_section import OnlyRows
    from rayclean.exports.export import Exported


class RunResults(Run):
    """A run folder with its results; every table has the columns of the user's data."""

    @cached_property
    def config(self) -> "Config":
        """The config of the run."""
        from rayclean.pipeline import resolved_config

        return resolved_config(self.url())

    def suspects(self) -> "pandas.DataFrame":
        """The rows whose label is doubted, the most doubtful first: the columns of the data, then `label_given`,
        `label_suggested`, `label_quality` (lower = more likely wrong), `label_rank` and `label_reason`.

        Raises:
            ArtifactError: detect has not run, or the data have changed since.
        """
        from rayclean.exports.added_columns import OF_SUSPECTS

        table = self._rows("suspects", OF_SUSPECTS)
        rank = next(name for name in reversed(table.column_names) if name.endswith("label_rank"))
        return _part_of_a_frame(table.sort_by(rank))

    def changes(self) -> "pandas.DataFrame":
        """The rows whose label was changed, with the columns that `export` adds.

        Raises:
            ArtifactError: relabel has not run, or the data have changed since.
        """
        return _part_of_a_frame(self._rows("changed"))

    def to_pandas(self) -> "pandas.DataFrame":
        """All rows of the data with the columns that `export` adds, in their order.

        Raises:
            ArtifactError: detect has not run, or the data have changed since.
        """
        found: pandas.DataFrame = self._rows("all").to_pandas()
        return found

    def to_hf(self) -> "datasets.Dataset":
        """All rows as a data set of the Hugging Face library.

        Raises:
            ArtifactError: detect has not run, or the data have changed since.
        """
        import datasets

        return datasets.Dataset(self._rows("all"))

    def to_dataset(self) -> Any:
        """All rows as a data set of Ray Data, read from shards in the run folder (`export/`).

        Raises:
            ArtifactError: detect has not run, or the data have changed since.
        """
        from rayclean.runtime.ray_data import read_parquet_folder

        folder = self.url("export", "rows")
        own = {"only": "all", "drop_referred": False, "in_place_column": False}  # whatever the config exports
        self.export(f"{folder}/", format="parquet", overwrite=True, **own)
        return read_parquet_folder(folder)

    def export(self, to: str, **options: Any) -> "Exported":
        """Write all rows with their final labels; see `rayclean.export`."""
        from rayclean.run_actions import export

        return export(self.config, to, **options)

    def summary(self) -> str:
        """What the run has found and done, in a few lines."""
        lines = [f"{self.name}: {self.url()}"]
        for verb in VERBS:
            manifest = self.manifest(verb)
            if manifest is not None:
                lines.append(f"  {verb}: {', '.join(_figures(verb, manifest.metrics)) or 'done'}")
        if len(lines) == 1:
            lines.append("  nothing is finished yet")
        if self.exists("report.html"):
            lines.append(f"  report: {self.url('report.html')}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        """The summary for a notebook, with the most doubtful rows."""
        text = f"<pre>{html.escape(self.summary())}</pre>"
        if self.manifest("detect") is None:
            return text
        try:
            rows = self.suspects().head(5)
        except ArtifactError:  # the data have changed since; the figures above are still those of the run
            return text
        shown = rows.map(
            lambda value: shorten(value, _WIDEST, placeholder=" …") if isinstance(value, str) else value
        )
        return text + shown.to_html(escape=True, index=False, max_cols=20)

    def _rows(self, only: "OnlyRows", columns: Sequence[str] = ADDED_COLUMNS) -> "pa.Table":
        """Rows with added columns; those of a part with their numbers as the last column."""
        from rayclean.exports.added_columns import ROW
        from rayclean.run_actions import exported_rows

        return exported_rows(self.config, only, columns if only == "all" else (*columns, ROW))


def _part_of_a_frame(table: "pa.Table") -> "pandas.DataFrame":
    """Some rows of the data, numbered in their last column.

    An index that only counts rows is not kept with them: it follows from their numbers.
    """
    numbers = table.column(table.num_columns - 1).to_numpy()
    found: pandas.DataFrame = table.remove_column(table.num_columns - 1).to_pandas()
    kept = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    if len(kept) == 1 and isinstance(kept[0], dict):
        found.index = kept[0]["start"] + kept[0]["step"] * numbers
        found.index.name = kept[0]["name"]
    return found


_WIDEST = 80
"""Characters of a text that a notebook shows."""
_SHOWN = {
    "load": {"examples": "{:,} examples", "classes": "{:,} classes", "rejected": "{:,} rows left out"},
    "predict": {"accuracy_given": "{:.1%} of the given labels predicted"},
    "detect": {"suspects": "{:,} suspects"},
    "relabel": {"changed": "{:,} labels changed", "referred": "{:,} referred to a person"},
    "train": {"dev_accuracy": "dev accuracy {:.1%}"},
}
"""Verb -> figure of its manifest -> how it is shown."""


def _figures(verb: str, metrics: dict[str, Any]) -> list[str]:
    if verb == "relabel":
        from rayclean.annotations import waiting_for_person

        metrics = metrics | {"referred": waiting_for_person(metrics)}
    return [
        text.format(metrics[name])
        for name, text in _SHOWN.get(verb, {}).items()
        if isinstance(metrics.get(name), int | float)
    ]
