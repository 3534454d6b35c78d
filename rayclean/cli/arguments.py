"""Arguments that several commands share, and their conversion to a config."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

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
