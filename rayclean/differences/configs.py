"""The keys of two configs whose values differ."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rayclean.annotators import ANNOTATORS
from rayclean.config import Config, Plugin
from rayclean.detectors import DETECTORS
from rayclean.errors import ConfigError
from rayclean.methods import METHODS
from rayclean.models import ENCODERS
from rayclean.plugins import Family
from rayclean.tasks import TASKS

_OF_THE_FOLDER = ("name", "output")
"""Keys that say where a run is, which tells nothing about two runs."""


@dataclass(frozen=True)
class ConfigDifference:
    """A key whose values differ."""

    key: str
    """Dotted, as an override names it."""
    a: Any
    """As JSON has it; None where the key is not there."""
    b: Any


def config_differences(a: Config, b: Config) -> tuple[ConfigDifference, ...]:
    """The keys with other values in two configs, sorted; name and folder of the run aside. Options of plug-ins that are left
    out count as their defaults.
    """
    one, other = (dict(_keys("", _with_defaults(each))) for each in (a, b))
    return tuple(
        ConfigDifference(key, one.get(key), other.get(key))
        for key in sorted({*one, *other})
        if key not in _OF_THE_FOLDER and one.get(key) != other.get(key)
    )


def _with_defaults(config: Config) -> dict[str, Any]:
    """A config as JSON values, with all options of its plug-ins."""
    values = config.model_dump(mode="json")
    for key, family in (
        ("task", TASKS),
        ("encoder", ENCODERS),
        ("annotator", ANNOTATORS),
        ("method", METHODS),
    ):
        values[key] = _options(family, getattr(config, key))
    values["detect"]["detectors"] = {
        each.name: _options(DETECTORS, each) for each in config.detect.detectors
    }  # each once
    values["relabel"]["annotators"] = [_options(ANNOTATORS, each) for each in config.relabel.annotators]
    return values


def _options(family: Family[Any], plugin: Plugin) -> dict[str, Any]:
    try:
        return {"name": plugin.name, **family.checked(plugin)[1].model_dump(mode="json")}
    except ConfigError:  # its package is not installed here
        return plugin.model_dump(mode="json")


def _keys(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested tables; lists are values."""
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from _keys(f"{prefix}{key}.", each)
    else:
        yield prefix.removesuffix("."), value
