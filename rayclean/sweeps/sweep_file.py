"""Reading of sweep files, with overrides from the command line."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from rayclean.config import Config
from rayclean.errors import ConfigError
from rayclean.overrides import assignments, is_file, read_values, set_path
from rayclean.plugins import explain
from rayclean.sweeps.spec import Sweep


def sweep_files(file: str, overrides: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
    """Split the arguments of a command into sweep files, each with its overrides.

    If every file is a sweep (as from `configs/sweeps/*.toml`), each gets the overrides that are not files;
    otherwise the first file gets all overrides.

    Raises:
        ConfigError: a file cannot be read.
    """
    files = [file, *filter(is_file, overrides)]
    if len(files) > 1 and all("space" in read_values(each) for each in files):
        return [(each, [one for one in overrides if not is_file(one)]) for each in files]
    return [(file, list(overrides))]


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file and apply overrides; `base` becomes a path from the working folder.

    Overrides of the base config, like `dataset.path=...` or a file with a [cluster] section, are added to
    [set].

    Raises:
        ConfigError: the file cannot be read, a key or a value is wrong, or an override is another sweep or
            its base.
    """
    path = Path(path)
    values = json.loads(json.dumps(read_values(path), default=str))
    for override in overrides:
        if is_file(override) and read_values(override).keys() & {"space", "base"}:
            raise ConfigError(
                f"{override} is a sweep file, and so is {path}: one sweep at a time, or files of sweeps "
                "alone (and overrides "
                "like detect.budget=0.05, which go to each)"
            )
        for keys, value in assignments(override):
            if keys[0] in Config.model_fields and keys[0] not in Sweep.model_fields:
                for table in ("set", "overrides"):
                    values[table] = {**values.get(table, {}), ".".join(keys): value}
            else:
                set_path(values, keys, value)
    if isinstance(base := values.get("base"), str) and not Path(base).is_absolute():
        values["base"] = str(path.parent / base)
    try:
        return Sweep(**values)
    except ValidationError as error:
        raise ConfigError(explain(error, Sweep, str(path))) from None
