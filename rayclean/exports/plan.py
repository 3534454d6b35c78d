"""Which files an export writes, with which columns."""

import codecs
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

import pyarrow as pa

from rayclean.config.export_section import ExportConfig, ExportFormat
from rayclean.datasets.base import Reader, SourceFile
from rayclean.datasets.conll import Conll
from rayclean.datasets.csv import Csv
from rayclean.datasets.partitions import PartitionedReader, partitions
from rayclean.datasets.sources import Source
from rayclean.datasets.text_files import first_bytes, uncompressed_name
from rayclean.errors import ConfigError
from rayclean.exports.formats import CsvStyle, FileFormat, OutputFile, compression_of
from rayclean.plugins import resolve

FORMAT_CLASSES = {
    "parquet": "rayclean.exports.parquet_files:ParquetFiles",
    "csv": "rayclean.exports.csv_files:CsvFiles",
    "jsonl": "rayclean.exports.json_files:JsonFiles",
    "conll": "rayclean.exports.conll_files:ConllFiles",
    "huggingface": "rayclean.exports.huggingface_folder:HuggingFaceFolder",
}
_ENDINGS = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "csv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".conll": "conll", ".iob": "conll", ".bio": "conll",
}  # fmt: skip
_OF_FORMAT = {"parquet": ".parquet", "csv": ".csv", "jsonl": ".jsonl", "conll": ".conll"}


@dataclass(frozen=True)
class FilePlan:
    """How the rows of one file of the source are exported."""

    output: int
    """Index of the file that they go to."""
    left_out: tuple[str, ...]
    """Columns of folders that the output's own path says."""


@dataclass(frozen=True)
class ExportPlan:
    """The files that an export writes."""

    outputs: tuple[OutputFile, ...]
    files: dict[str, FilePlan]
    """Name of a file of the source -> its plan."""
    columns: tuple[str, ...]
    """All columns of the data set."""
    is_folder: bool
    """Whether the target is a folder."""


def writer_of(output: OutputFile) -> FileFormat:
    """What writes an output."""
    cls: type[FileFormat] = resolve("export format", FORMAT_CLASSES, output.format)
    return cls(output)


def is_folder(options: ExportConfig) -> bool:
    """Whether `to` names a folder: it ends with a slash, or without an ending that says a format of files."""
    return options.format == "huggingface" or options.to.endswith("/") or _ending(options.to) not in _ENDINGS


def format_of(options: ExportConfig, of_source: str) -> str:
    """The format in which data of some format are exported.

    Raises:
        ConfigError: the ending of `to` contradicts the format that is asked for.
    """
    by_ending = None if is_folder(options) else _ENDINGS[_ending(options.to)]
    if by_ending is not None and options.format not in (None, by_ending):
        raise ConfigError(
            f"export: {options.to!r} ends like {by_ending}, and format = {options.format!r} says otherwise; change one of them"
        )
    if options.format or by_ending:
        return str(options.format or by_ending)
    if of_source == "json":
        return "jsonl"
    return of_source if of_source in get_args(ExportFormat) else "parquet"


def file_names(options: ExportConfig, source: Source) -> list[str]:
    """The paths below the target of the files of an export into a folder."""
    format_ = format_of(options, source.format)
    if format_ == "huggingface":
        return ["data-00000-of-00001.arrow", "dataset_info.json", "state.json"]
    return [_output_name(file.name, format_, source.format) for file in source.files]


def plan_export(options: ExportConfig, source: Source) -> ExportPlan:
    """Plan the export of a source; columns are not added yet.

    Raises:
        ConfigError: the ending of `to` contradicts the format, or files of several types cannot be one file.
        DataError: a file cannot be read.
    """
    reader = source.reader()
    files = [file for file in source.files if file.size and reader.columns(file)]
    folder = is_folder(options)
    format_ = format_of(options, source.format)
    style = partial(_style, options, reader, of_source=source.format)
    if not folder or format_ == "huggingface":
        # One output of all files.
        fields = {file.name: reader.schema(file) for file in files}
        output = OutputFile(
            "", format_, _common_schema(fields, format_), compression_of(options.to),
            style(files[0], format_) if files else CsvStyle(is_safe=options.spreadsheet_safe),
            _ending(options.to) == ".json",
        )  # fmt: skip
        if _ending(options.to) == ".tsv" and source.format != "csv":
            output = replace(output, style=replace(output.style, delimiter="\t"))
        plans = {file.name: FilePlan(0, ()) for file in files}
        return ExportPlan((output,), plans, _names(fields.values()), folder)
    outputs, plans, columns = [], {}, dict[str, None]()
    for file in files:
        in_path = tuple(
            name for name in partitions(file) if f"/{name}=" in f"/{posixpath.dirname(file.name)}"
        )
        schema = reader.schema(file)
        left_out = tuple(name for name in in_path if name not in _own_columns(reader, file))
        columns |= dict.fromkeys(_names([schema]))
        if schema is not None:
            schema = _without(schema, left_out)
        outputs.append(
            OutputFile(
                _output_name(file.name, format_, source.format),
                format_,
                schema,
                compression_of(file.name) if _same(format_, source.format) else "",
                style(file, format_),
                _is_array(reader, file, format_),
            )
        )
        plans[file.name] = FilePlan(len(outputs) - 1, left_out)
    return ExportPlan(tuple(outputs), plans, tuple(columns), True)


def with_added_columns(output: OutputFile, added: pa.Schema) -> OutputFile:
    """The output with further columns at its end."""
    if output.schema is None:
        return output
    schema = output.schema
    for field in added:
        schema = schema.append(field)
    return replace(output, schema=schema, added=len(added))


def _names(schemas: Iterable[pa.Schema | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for schema in schemas if schema is not None for name in schema.names))


def _own_columns(reader: Reader, file: SourceFile) -> Sequence[str]:
    own = reader.reader if isinstance(reader, PartitionedReader) else reader
    return own.columns(file)


def _without(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    for name in names:
        schema = schema.remove(schema.get_field_index(name))
    return schema


def _same(format_: str, of_source: str) -> bool:
    return format_ == ("jsonl" if of_source == "json" else of_source)


def _output_name(name: str, format_: str, of_source: str) -> str:
    """The name of a file, with the ending of the format where it becomes another one."""
    if _same(format_, of_source):
        return name
    stem = name[: len(uncompressed_name(name))]
    return f"{posixpath.splitext(stem)[0]}{_OF_FORMAT[format_]}"


def _ending(name: str) -> str:
    return posixpath.splitext(uncompressed_name(name))[1]


def _is_array(reader: Reader, file: SourceFile, format_: str) -> bool:
    form = reader.describe(file) if format_ == "jsonl" else None
    return form is not None and form.words.startswith("JSON: an array")


def _style(options: ExportConfig, reader: Reader, file: SourceFile, format_: str, of_source: str) -> CsvStyle:
    """The style of a CSV or CoNLL file of the source; commas (CoNLL: tabs) and UTF-8 for data of another format."""
    if format_ == "conll" and of_source == "conll":
        found = reader.reader if isinstance(reader, PartitionedReader) else reader
        assert isinstance(found, Conll)
        return CsvStyle(found.delimiter(file), encoding=found.encoding(file))
    if format_ != "csv" or of_source != "csv":
        return CsvStyle("\t" if format_ == "conll" else ",", is_safe=options.spreadsheet_safe)
    own = reader.reader if isinstance(reader, PartitionedReader) else reader
    assert isinstance(own, Csv)
    sniffed = own.sniff(file)
    marks = (
        codecs.BOM_UTF8,
        codecs.BOM_UTF16_LE,
        codecs.BOM_UTF16_BE,
        codecs.BOM_UTF32_LE,
        codecs.BOM_UTF32_BE,
    )
    return CsvStyle(
        sniffed.dialect.delimiter,
        sniffed.dialect.quote,
        sniffed.dialect.escape,
        sniffed.encoding,
        first_bytes(file)[0].startswith(marks),
        own.options.header,
        options.spreadsheet_safe,
    )


def _common_schema(schemas: dict[str, pa.Schema | None], format_: str) -> pa.Schema | None:
    """The columns of all files together, each once, in the order in which they come.

    Raises:
        ConfigError: a column has types that are no one type.
    """
    found = [schema for schema in schemas.values() if schema is not None]
    if len(found) < len(schemas):
        return None
    if len({schema.remove_metadata() for schema in found}) <= 1:
        return next(iter(found), pa.schema([]))
    if format_ == "csv":  # whatever the types are, they become text; each file is written by its own
        return pa.schema([(name, pa.string()) for name in _names(found)])
    try:
        merged: Any = pa.unify_schemas([_plain(schema) for schema in found], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ConfigError(
            f"export: files of the data set have columns of several types, which cannot be one file ({error}); export to a "
            "folder, where every file keeps its own"
        ) from error
    return merged


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema without dictionaries, whose values may differ between files."""
    fields = [
        field.with_type(field.type.value_type) if isinstance(field.type, pa.DictionaryType) else field
        for field in schema
    ]
    return pa.schema(fields)
