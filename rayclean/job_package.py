"""What travels to a cluster when a run is submitted: the command and its config, resolved where it was submitted.

Data, models and artifacts do not travel: their paths must mean the same on every node.
"""

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from fsspec.core import has_magic

from rayclean.config import Config, load_config, parse_config
from rayclean.datasets import BUILTIN
from rayclean.errors import ConfigError
from rayclean.overrides import read_values
from rayclean.pipeline import open_run
from rayclean.run import VERBS
from rayclean.runtime.jobs import JobPackage
from rayclean.sweeps.plan import any_point, base_values, put_over, sweep_root
from rayclean.sweeps.spec import load_sweep
from rayclean.verb_fingerprints import check_plugins

COMMANDS = ("clean", *VERBS, "sweep")
PATHS = ("path", "model", "tokenizer", "template", "truth_path")
"""Keys whose values may be paths, beside `output`."""
FILES = (
    "dataset.path", "dataset.dev.path", "dataset.test.path", "predict.path", "predict.model", "detect.detectors.path",
)  # fmt: skip
"""Keys whose values are paths, whether they exist here or not, unless they name a data set."""


def pack(
    verb: str, file: str, overrides: list[str] | tuple[str, ...] = (), *, extend: bool = False
) -> JobPackage:
    """Resolve and check a config, or a sweep, for the way to a cluster.

    Args:
        verb: one of `COMMANDS`.
        file: config or sweep file.
        overrides: as on the command line.
        extend: of a sweep: its space grew.

    Raises:
        ConfigError: a key, a value or a plug-in is wrong, or a path means nothing on another machine.
    """
    if verb not in COMMANDS:
        raise ConfigError(f"unknown verb {verb!r}: expected one of {', '.join(COMMANDS)}")
    if verb == "sweep":
        return _pack_sweep(file, overrides, extend)
    if extend:
        raise ConfigError(f"--extend is for a sweep whose space grew, got verb {verb!r}; leave it out")
    config = load_config(file, overrides)
    _check(config)
    command = shlex.join(["rayclean", verb, "config.json"])
    return JobPackage(config.name, open_run(config).url(), command, {"config.json": _text(_portable(config))})


def _pack_sweep(file: str, overrides: list[str] | tuple[str, ...], extend: bool) -> JobPackage:
    spec = load_sweep(file, overrides)
    _check_path("output", spec.output)
    _check(parse_config(put_over(base_values(spec), any_point(spec)), where=file))
    base = read_values(spec.base)
    base.get("cluster", {}).pop("address", None)
    settings = {path: value for path, value in spec.set.items() if path != "cluster.address"}
    own = {"base": "base.json", "base_shown": None, "set": settings}
    sweep = spec.model_dump(mode="json") | own
    command = shlex.join(["rayclean", "sweep", "sweep.json", "shown.json", *(["--extend"] if extend else [])])
    files = {"base.json": _text(base), "sweep.json": _text(sweep)}
    # What printed commands call the base hangs on the folder from which it is submitted.
    shown = {"shown.json": _text({"base_shown": spec.base_shown or spec.base})}
    return JobPackage(spec.name, sweep_root(spec), command, files, shown)


def _check(config: Config) -> None:
    check_plugins(config)
    _check_path("output", config.output)
    named = BUILTIN if config.dataset.format in ("auto", "builtin") else ()
    hub = config.dataset.format == "huggingface"
    for key, value in _paths(config.model_dump(mode="json"), ""):
        is_file = key in FILES and value not in named and not (hub and key.startswith("dataset."))
        # Elsewhere what is no path here (a built-in name, a hub id) is none there; neither has wildcards.
        if is_file or value.startswith("~") or has_magic(value) or os.path.exists(value):
            _check_path(key, value)


def _check_path(key: str, path: str) -> None:
    if "://" not in path and not os.path.isabs(path):
        raise ConfigError(
            f"{key} = {path!r} is relative to {'your home' if path.startswith('~') else 'this folder'}, which a cluster does not have: give a URL (s3://, gs://, ...) or "
            "an absolute path on a disk that every node mounts"
        )


def _paths(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                yield from _paths(each, f"{above}{key}.")
            elif isinstance(each, str) and key in PATHS:
                yield above + key, each


def _portable(config: Config) -> dict[str, Any]:
    """Without the address: a job finds its own cluster."""
    values = config.model_dump(mode="json")
    del values["cluster"]["address"]
    return values


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False, sort_keys=True)
