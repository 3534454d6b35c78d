"""A run that exists already, by whatever a person has of it: its config, its folder or the run itself."""

import os
from pathlib import Path

from rayclean.config import Config, load_config, parse_config
from rayclean.errors import ArtifactError
from rayclean.pipeline import open_run
from rayclean.run import Run

RunOrConfig = Run | Config | str | Path
"""A run, its config, its folder (path or URL) or its config file."""


def existing_run(which: RunOrConfig) -> Run:
    """The run that is meant.

    Raises:
        ArtifactError: there is no run.
        ConfigError: the config file cannot be read, or is wrong.
        TypeError: it is none of these.
    """
    if isinstance(which, str | Path):
        named = str(which)
        which = Run(named) if os.path.isdir(named) or "://" in named else load_config(named)
    run = which if isinstance(which, Run) else open_run(which)
    if not run.exists("config.json"):
        raise ArtifactError(
            f"{run.url()} holds no run (no config.json there); give a path like runs/<name>, or the config of a run that "
            "was begun"
        )
    return run


def config_of(run: Run) -> Config:
    """The config that a run was last worked on with.

    Raises:
        ConfigError: this rayclean cannot read it.
    """
    return parse_config(run.read_json("config.json"), where=run.path("config.json"))
