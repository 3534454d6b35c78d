"""One resolver for everything that is chosen by name: encoders, detectors, annotators, methods, tasks.

Each family keeps a literal dict of `name -> "module:Class"` in its `__init__.py`; the only other way in is to write
`"module:Class"` as the name. A plug-in class carries its options as a nested pydantic model `Config`, so that
adding one means adding one file.
"""

import difflib
import importlib
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rayclean.errors import ConfigError


class Options(BaseModel):
    """Base of every plug-in's `Config`: unknown keys are refused, docstrings under fields are their help.

    `OPERATIONAL` names the fields that change how the work is done but not its result (timeouts, concurrency):
    they are left out of fingerprints, so changing them re-runs nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    OPERATIONAL: ClassVar[tuple[str, ...]] = ()

    def identity(self) -> dict[str, Any]:
        """The fields on which results depend, as plain JSON values."""
        return self.model_dump(mode="json", exclude=set(self.OPERATIONAL))


def did_you_mean(name: str, known: list[str]) -> str:
    """The end of an error message: the names nearest to a wrong one, then all of them.

    >>> nearest("noiseall", ["noiseal", "lane"])
    'did you mean noiseal? known: lane, noiseal'
    """
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}known: {', '.join(sorted(known))}"


def resolve(family: str, registry: Mapping[str, str], name: str) -> type[Any]:
    """The class behind a plug-in name.

    Args:
        family: what the name stands for, for the error message ("annotator").
        registry: the family's literal dict of `name -> "module:Class"`.
        name: a key of `registry`, or `"module:Class"`.

    Raises:
        ConfigError: the name is neither, or its module or class does not exist.
    """
    target = registry.get(name, name)
    module_name, separator, class_name = target.partition(":")
    if not separator:
        raise ConfigError(
            f"unknown {family} {name!r}: {did_you_mean(name, list(registry))}, or 'package.module:Class' for your own"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{family} {name!r}: cannot import {module_name!r} ({error})") from error
    if not hasattr(module, class_name):
        raise ConfigError(f"{family} {name!r}: module {module_name!r} has no class {class_name!r}")
    found: type[Any] = getattr(module, class_name)
    return found


def build_options(family: str, cls: type[Any], options: Mapping[str, Any]) -> Any:
    """A plug-in's validated `Config` from the keys written beside its name.

    Raises:
        ConfigError: an unknown key (with the nearest valid ones) or a wrong value.
    """
    try:
        return cls.Config(**options)
    except ValidationError as error:
        raise ConfigError(explain(error, cls.Config, f"{family} {cls.__name__}")) from None


def explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """A pydantic error in rayclean's words: one line per fault with got, expected and the nearest valid key."""
    lines = []
    for fault in error.errors():
        path = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            known = _fields_at(model, fault["loc"][:-1])
            lines.append(f"{where}: unknown key {path!r}; {did_you_mean(str(fault['loc'][-1]), known)}")
        elif fault["type"] == "missing":
            lines.append(f"{where}: {path!r} is required and missing")
        else:
            got = "" if isinstance(fault.get("input"), dict) else f", got {fault.get('input')!r}"
            lines.append(f"{where}: {path!r}: {fault['msg']}{got}")
    return "\n".join(lines)


def _fields_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """The valid keys of the nested model that `path` leads to."""
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None:
            break
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not nested:
            break
        model = nested[0]
    return list(model.model_fields)
