"""The package that is sent to a cluster when a run is submitted: a command and its config, resolved here.

Data, models and artifacts are not sent: their paths must mean the same on every node.
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
from rayclean.overrides import put_over, read_values
from rayclean.pipeline import open_run
from rayclean.run import VERBS
from rayclean.runtime.jobs import JobPackage
from rayclean.sweeps.plan import any_point, base_values, sweep_root
from rayclean.sweeps.sweep_file import load_sweep
from rayclean.verb_fingerprints import check_plugins

COMMANDS = ("clean", *VERBS, "sweep")
_MAYBE_PATHS = ("path", "model", "tokenizer", "template", "truth_path")
"""Last parts of keys whose values may be paths."""
_ALWAYS_PATHS = (
    "dataset.path",
    "dataset.dev.path",
    "dataset.test.path",
    "predict.path",
    "predict.model",
    "detect.detectors.path",
)
"""Keys whose values are paths, whether they exist on this machine or not, unless they name a data set."""


def pack(
    verb: str, file: str, overrides: list[str] | tuple[str, ...] = (), *, extend: bool = False
) -> JobPackage:
    """Resolve and check a config, or a sweep, for a cluster.

    Args:
        verb: one of `COMMANDS`.
        file: config or sweep file.
        overrides: dotted overrides or config files, as on the command line.
        extend: whether the space of a sweep has grown.

    Raises:
        ConfigError: a key, a value or a plug-in is wrong, or a path has no meaning on another machine.
    """
    if verb not in COMMANDS:
        raise ConfigError(f"unknown verb {verb!r}: expected one of {', '.join(COMMANDS)}")
    if verb == "sweep":
        return _pack_sweep(file, overrides, extend)
    if extend:
        raise ConfigError(f"--extend is for a sweep whose space grew, got verb {verb!r}; leave it out")
    config = load_config(file, overrides)
    _check_config(config)
    command = shlex.join(["rayclean", verb, "config.json"])
    values = config.model_dump(mode="json")
    del values["cluster"]["address"]  # a job finds its own cluster
    return JobPackage(config.name, open_run(config).url(), command, {"config.json": _json(values)})


def _pack_sweep(file: str, overrides: list[str] | tuple[str, ...], extend: bool) -> JobPackage:
    spec = load_sweep(file, overrides)
    _check_path("output", spec.output)
    _check_config(parse_config(put_over(base_values(spec), any_point(spec)), where=file))
    base = read_values(spec.base)
    base.get("cluster", {}).pop("address", None)
    settings = {path: value for path, value in spec.set.items() if path != "cluster.address"}
    sweep = {**spec.model_dump(mode="json"), "base": "base.json", "base_shown": None, "set": settings}
    command = shlex.join(["rayclean", "sweep", "sweep.json", "shown.json", *(["--extend"] if extend else [])])
    files = {"base.json": _json(base), "sweep.json": _json(sweep)}
    # The base's name in printed commands depends on the folder of submission; the fingerprint must not.
    notes = {"shown.json": _json({"base_shown": spec.base_shown or spec.base})}
    return JobPackage(spec.name, sweep_root(spec), command, files, notes)


def _check_config(config: Config) -> None:
    check_plugins(config)
    _check_path("output", config.output)
    built_in = BUILTIN if config.dataset.format in ("auto", "builtin") else ()
    on_hub = config.dataset.format == "huggingface"
    for key, value in _possible_paths(config.model_dump(mode="json")):
        names_data_set = value in built_in or (on_hub and key.startswith("dataset."))
        is_path = key in _ALWAYS_PATHS and not names_data_set
        # A built-in name or a hub id exists in no folder and has no wildcards.
        if is_path or value.startswith("~") or has_magic(value) or os.path.exists(value):
            _check_path(key, value)


def _check_path(key: str, path: str) -> None:
    if "://" not in path and not os.path.isabs(path):
        place = "your home" if path.startswith("~") else "this folder"
        raise ConfigError(
            f"{key} = {path!r} is relative to {place}, which a cluster does not have: give a URL (s3://, "
            "gs://, ...) or an absolute path on a disk that every node mounts"
        )


def _possible_paths(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and value of everything that may be a path, also inside lists of tables."""
    for key, value in values.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                yield from _possible_paths(each, f"{above}{key}.")
            elif isinstance(each, str) and key in _MAYBE_PATHS:
                yield above + key, each


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False, sort_keys=True)
