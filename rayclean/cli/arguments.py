"""Arguments that several commands share, and their conversion to a config."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from rayclean.errors import ConfigError

if TYPE_CHECKING:
    from rayclean.config import Config

ConfigArgument = Annotated[
    str,
    typer.Argument(metavar="CONFIG", help="Config file (.toml), or a run folder to resume with its config."),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE|FILE]...",
        help="Overrides like detect.budget=0.05, and config files laid over the first one (configs/cluster/*.toml).",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout, and nothing else there.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        help="The cluster's dashboard, like http://127.0.0.1:8265. Without it: RAY_API_SERVER_ADDRESS or RAY_ADDRESS."
    ),
]


def read_config(config: str, overrides: list[str] | None) -> "Config":
    """Read the config of a command line: a file with overrides, or the config of a run folder.

    Raises:
        RaycleanError: the config cannot be read, or is invalid.
    """
    from rayclean.config import load_config
    from rayclean.pipeline import resolved_config

    if os.path.isdir(config) or "://" in config:
        if overrides:
            raise typer.BadParameter("overrides go with a config file; a run folder already has its config")
        return resolved_config(config)
    return load_config(config, overrides or [])


def place_of_row(text: str) -> tuple[str, int]:
    """File and row of `FILE:ROW`; a file's name may hold colons itself.

    Raises:
        ConfigError: there is no row.
    """
    file, colon, row = text.rpartition(":")
    if not (colon and file and row.isdecimal()):
        raise ConfigError(f"--row {text!r}: expected a file and a row of it, such as --row tickets.csv:17")
    return file, int(row)
