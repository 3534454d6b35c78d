"""Everything that is chosen by name: encoders, detectors, annotators, methods and tasks.

Each kind is a `Family`: a literal dict of `name -> "module:Class"` in the `__init__.py` of its package, and the
entry points of installed packages in the group `rayclean.<kind>s` (`rayclean.methods`). A name may also be
`"module:Class"` itself. A plug-in class carries its options as a nested pydantic model `Config`, so that adding
a plug-in means adding one file and one line.
"""

import difflib
import functools
import importlib
import importlib.metadata
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from rayclean.errors import ConfigError


class Credential(ValueError):
    """A validator's fault whose value is, or holds, a secret: `explain` does not show the value."""


class Options(BaseModel):
    """Base of every section and of every plug-in's `Config`: unknown keys are refused.

    The docstring under a field is its help text (`rayclean options`). `OPERATIONAL` names the fields that
    change how the work is done but not its result (timeouts, concurrency): they are left out of fingerprints,
    so changing them re-runs nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    OPERATIONAL: ClassVar[tuple[str, ...]] = ()

    def identity(self) -> dict[str, Any]:
        """The fields on which results depend, as plain JSON values."""
        return self.model_dump(mode="json", exclude=set(self.OPERATIONAL))


class Plugin(Options, extra="allow"):
    """A plug-in chosen by name: `"knn"`, or with options beside the name, `{name = "knn", neighbours = 20}`."""

    name: str
    """Name of a built-in plug-in, or `package.module:Class` for one of your own."""

    @model_validator(mode="before")
    @classmethod
    def _name_is_enough(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside `name`, not checked yet."""
        return dict(self.model_extra or {})


PluginClass = TypeVar("PluginClass")


class Family(dict[str, str], Generic[PluginClass]):
    """The plug-ins of one kind, as a dict of `name -> "module:Class"` of the built-in ones.

    Args:
        kind: what a name stands for ("annotator"), for error messages and the group of entry points.
        classes: the literal dict.
    """

    def __init__(self, kind: str, classes: Mapping[str, str]):
        super().__init__(classes)
        self.kind = kind

    def all_names(self) -> dict[str, str]:
        """The built-in plug-ins and those of installed packages, as `name -> "module:Class"`.

        Raises:
            ConfigError: two installed packages, or one and rayclean, use the same name for two classes.
        """
        found = dict(self)
        for name, target, package in _entry_points(f"rayclean.{self.kind}s"):
            if found.setdefault(name, target) != target:
                raise ConfigError(
                    f"{self.kind} {name!r}: the package {package} gives this name to {target!r}, but it stands for "
                    f"{found[name]!r} already: uninstall one of the two, or write 'package.module:Class' instead"
                )
        return found

    def resolve(self, name: str) -> type[PluginClass]:
        """The class behind a name; see `resolve`."""
        return cast("type[PluginClass]", resolve(self.kind, self if name in self else self.all_names(), name))

    def checked(self, plugin: Plugin) -> tuple[type[PluginClass], Options]:
        """The class that a config chooses, and its validated options.

        Raises:
            ConfigError: an unknown name or key (with the nearest valid ones), or a wrong value.
        """
        cls = self.resolve(plugin.name)
        model = getattr(cls, "Config", None)
        if not (isinstance(model, type) and issubclass(model, Options)):
            raise ConfigError(
                f"{self.kind} {plugin.name!r} is no {self.kind}: its options must be a nested class Config of "
                "rayclean.plugins.Options"
            )
        try:
            return cls, model(**plugin.options)
        except ValidationError as error:
            raise ConfigError(explain(error, model, f"{self.kind} {cls.__name__}")) from None

    def build(self, plugin: Plugin, *arguments: Any) -> PluginClass:
        """An instance of the class that a config chooses, made from its validated options and further
        arguments.

        Raises:
            ConfigError: an unknown name or key (with the nearest valid ones), or a wrong value.
        """
        cls, options = self.checked(plugin)
        return cast("PluginClass", cast(Any, cls)(options, *arguments))


def resolve(kind: str, classes: Mapping[str, str], name: str) -> Any:
    """The class (or function) behind a name.

    Args:
        kind: what the name stands for ("annotator"), for error messages.
        classes: the known names, each with its `"module:Class"`.
        name: a key of `classes`, or `"module:Class"`.

    Raises:
        ConfigError: the name is neither, or its module or class does not exist.
    """
    module_name, separator, class_name = classes.get(name, name).partition(":")
    if not separator:
        raise ConfigError(
            f"unknown {kind} {name!r}: {did_you_mean(name, classes)}, or 'package.module:Class' for your own"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{kind} {name!r}: cannot import {module_name!r} ({error})") from error
    if not hasattr(module, class_name):
        raise ConfigError(f"{kind} {name!r}: module {module_name!r} has no class {class_name!r}")
    return getattr(module, class_name)


@functools.cache
def _entry_points(group: str) -> tuple[tuple[str, str, str], ...]:
    """Name, `"module:Class"` and package of every entry point of a group, sorted."""
    found = importlib.metadata.entry_points(group=group)
    return tuple(sorted((each.name, each.value, each.dist.name if each.dist else "?") for each in found))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the names nearest to a wrong one, then all of them.

    >>> did_you_mean("noiseall", ["noiseal", "lane"])
    'did you mean noiseal? known: lane, noiseal'
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}known: {', '.join(known)}"


def explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """A pydantic error in rayclean's words: one line per fault with got, expected and the nearest valid
    key.
    """
    lines = []
    for fault in error.errors():
        path = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            known = _fields_at(model, fault["loc"][:-1])
            key = str(fault["loc"][-1])
            elsewhere = [
                name
                for name in known
                if len(fault["loc"]) == 1 and key in _fields_at(model, (name,)) and key not in known
            ]
            hint = f"it is a key of [{elsewhere[0]}]: write {elsewhere[0]}.{key}. " if elsewhere else ""
            lines.append(f"{where}: unknown key {path!r}; {hint}{did_you_mean(key, known)}")
        elif fault["type"] == "missing":
            lines.append(
                f"{where}: {path!r} is required and missing; write it, as `rayclean options {fault['loc'][0]}` explains it"
            )
        elif str(fault["loc"][-1:]).startswith(("('str'", "('tuple[str")) and fault["type"].endswith("_type"):
            # of a text or several, each way to read it is a fault of its own
            path = ".".join(str(part) for part in fault["loc"][:-1])
            lines.append(f"{where}: {path!r}: expected a text or a list of texts, got {fault.get('input')!r}")
        else:
            said = fault["msg"].removeprefix("Value error, ")
            got = f", got {fault.get('input')!r}"
            secret = isinstance(fault.get("ctx", {}).get("error"), Credential)
            if isinstance(fault.get("input"), dict) or got in said or secret:
                got = ""
            lines.append(f"{where}: {f'{path!r}: ' if path else ''}{said}{got}")
    return "\n".join(dict.fromkeys(lines))


def nested_options(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, alone or as an alternative to None; None for a plain value or a list."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _fields_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """The valid keys of the nested model that `path` leads to."""
    for part in path:
        field = model.model_fields.get(str(part))
        nested = nested_options(field.annotation) if field is not None else None
        if nested is None:
            break
        model = nested
    return list(model.model_fields)
