"""Arguments that several commands share, and their conversion to a config."""

import os
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from rayclean.cli.completion import complete_override
from rayclean.errors import ConfigError

if TYPE_CHECKING:
    from rayclean.config import Config

ConfigArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="Config file (.toml), a run folder to resume with its config, or a data file with --text and --label.",
    ),
]
RunArgument = Annotated[str, typer.Argument(help="Folder of a run, or its config file (.toml).")]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE|FILE]...",
        help="Overrides like detect.budget=0.05, and config files laid over the first one (configs/cluster/*.toml).",
        autocompletion=complete_override,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout, and nothing else there.")
]
TextOption = Annotated[
    list[str] | None,
    typer.Option(
        "--text", metavar="COLUMN", help="Text column of a data file (repeatable: several are joined)."
    ),
]
LabelOption = Annotated[
    str | None, typer.Option("--label", metavar="COLUMN", help="Label column of a data file.")
]
IdOption = Annotated[
    str | None, typer.Option("--id", metavar="COLUMN", help="Column of your own key in a data file.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        help="The cluster's dashboard, like http://127.0.0.1:8265. Without it: RAY_API_SERVER_ADDRESS or RAY_ADDRESS."
    ),
]


def column_overrides(text: Sequence[str] | None, label: str | None, key: str | None) -> list[str]:
    """The overrides that --text, --label and --id stand for.

    >>> column_overrides(["subject", "body"], "topic", None)
    ['dataset.text=["subject", "body"]', 'dataset.label="topic"']
    """
    from rayclean.overrides import toml_value

    columns = {"text": text[0] if text and len(text) == 1 else text, "label": label, "id": key}
    return [f"dataset.{name}={toml_value(column)}" for name, column in columns.items() if column]


def with_columns(
    config: str, overrides: list[str] | None, text: Sequence[str] | None, label: str | None, key: str | None
) -> list[str] | None:
    """The overrides of a command line with those that --text, --label and --id stand for.

    Raises:
        ConfigError: they stand beside a config, which names its columns itself.
    """
    from rayclean.config.arguments import is_data_file

    columns = column_overrides(text, label, key)
    if not columns:
        return overrides
    if not is_data_file(config):
        raise ConfigError(
            f"--text, --label and --id name the columns of a data file, and {config} is none; a config names its own columns: "
            f"write overrides behind it, {shlex.join(columns)}"
        )
    return [*columns, *(overrides or [])]


def read_config(config: str, overrides: list[str] | None) -> "Config":
    """Read the config of a command line: a file with overrides, the config of a run folder, or a data file with its columns.

    Raises:
        RaycleanError: the config cannot be read, or is invalid.
    """
    from rayclean.config import load_config
    from rayclean.config.arguments import columns_missing, is_data_file, overridden, required_columns
    from rayclean.pipeline import resolved_config

    if is_data_file(config):
        if missing := columns_missing(overrides or []):
            if "label" not in required_columns(overridden(overrides or []).get("predict")):
                raise ConfigError(
                    f"{config!r} is a data file, and the column of its text is not named: say it with --text COLUMN; its rows "
                    "are scored by a trained classifier and need no label"
                )
            _ask_for_columns(config, missing)
    elif os.path.isdir(config) or "://" in config:
        if overrides:
            raise typer.BadParameter("overrides go with a config file; a run folder already has its config")
        return resolved_config(config)
    return load_config(config, overrides or [])


def read_run(run: str, overrides: list[str] | None = None) -> "Config":
    """Read the config of a run that a command looks at or works on, as `read_config` does.

    Raises:
        ConfigError: what stands in the place of the run is a data file.
        RaycleanError: the config cannot be read, or is invalid.
    """
    from rayclean.config.arguments import columns_missing, is_data_file
    from rayclean.config.run_name import name_of_file

    if is_data_file(run) and columns_missing(overrides or []):
        raise ConfigError(
            f"{run!r} is a data file; expected the folder of a run, such as runs/{name_of_file(run)}, or its config file"
        )
    return read_config(run, overrides)


def place_of_row(text: str) -> tuple[str, int]:
    """File and row of `FILE:ROW`; a file's name may hold colons itself.

    Raises:
        ConfigError: there is no row.
    """
    file, colon, row = text.rpartition(":")
    if not (colon and file and row.isdecimal()):
        raise ConfigError(f"--row {text!r}: expected a file and a row of it, such as --row tickets.csv:17")
    return file, int(row)


def _ask_for_columns(path: str, missing: Sequence[str]) -> NoReturn:
    """Stop at a data file whose columns nobody has named.

    Raises:
        ConfigError: says which they probably are, and the command that names them.
        RaycleanError: the file cannot be read.
    """
    from rayclean.first_look.proposed_config import guess_columns, task_of_form

    roles = guess_columns(path)
    command, named = ["rayclean", *sys.argv[1:]], []
    if not roles.is_clear or len(roles.label.columns) > 1:
        raise ConfigError(
            f"{path!r} is a data file, and which columns hold its text and its label is not clear from its first rows: say it "
            f"with --text COLUMN --label COLUMN, or let `rayclean init {shlex.quote(path)}` write a config"
        )
    assert roles.text is not None
    found = {"text": (roles.text.column, roles.text.why), "label": (roles.label.columns[0], roles.label.why)}
    for key in missing:
        column, why = found[key]
        named.append(f"the {key} is probably {column!r} ({why})")
        command += [f"--{key}", column]
    if roles.label.form != "class":
        command.append(f"task.name={task_of_form(roles.label.form)}")
    if roles.label.separator:
        command.append(f"dataset.label_separator={roles.label.separator}")
    if roles.label.form == "tags":
        command.append(f"dataset.tokens={roles.text.column}")
    raise ConfigError(
        f"{path!r} is a data file, and the columns of its {' and '.join(missing)} are not named; {' and '.join(named)}. If that "
        f"is so: {shlex.join(command)}"
    )
