"""The section `export`: the user's own data set back, with the final labels."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rayclean.plugins import Options

ExportFormat = Literal["parquet", "csv", "jsonl", "conll", "huggingface"]
OnlyRows = Literal["all", "changed", "suspects", "referred"]
ADDED_COLUMNS = (
    "label_given",
    "label",
    "label_source",
    "label_confidence",
    "label_reason",
    "label_annotator",
)
"""The columns that an export adds, by the names that they have by default."""


class ExportConfig(Options):
    """Where the data set goes, and what of it. `export = "cleaned.parquet"` stands for `export.to = "cleaned.parquet"`."""

    to: str = Field(min_length=1)
    """A file (.parquet, .csv, .tsv, .jsonl, .conll, those of text also compressed: .gz, .bz2, .xz, .zst) or a folder, on any
    file system that fsspec knows. Into a folder every file of the data set is written under its own name.
    """
    format: ExportFormat | None = None
    """Format of the files. Without it, by the ending of `to`, and in a folder that of the data set."""
    only: OnlyRows = "all"
    """Which rows: all, those whose label was changed, those that were doubted, or those that wait for a person."""
    drop_referred: bool = False
    """Whether rows that wait for a person are left out."""
    in_place_column: bool = False
    """Whether the final label replaces the given one in the label column, written as the column writes its labels, instead of
    a column of its own."""
    names: dict[str, str] = Field(default_factory=dict)
    """Other names of added columns, like `{ label = "final_label" }`. Where the data set has a column of the same name, the
    added one is called `rayclean_label` and so on."""
    spreadsheet_safe: bool = False
    """Whether cells of a CSV that a spreadsheet would run as a formula are written with a quote before them."""
    overwrite: bool = False
    """Whether files that are there already are replaced."""

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, values: Any) -> Any:
        return {"to": values} if isinstance(values, str) else values

    @field_validator("names")
    @classmethod
    def _names_known(cls, names: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(names.keys() - set(ADDED_COLUMNS)):
            raise ValueError(
                f"{unknown[0]!r} is no column that is added; these are: {', '.join(ADDED_COLUMNS)}"
            )
        if empty := [name for name, other in names.items() if not other]:
            raise ValueError(f"{empty[0]!r} has no name; to leave the column out, drop it after the export")
        return names
