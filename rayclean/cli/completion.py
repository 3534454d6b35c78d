"""What a shell completes beside commands, options and files: keys of a config and their values, names of sections and
plug-ins.

`rayclean --install-completion` sets it up. The functions run on every press of the tab key, so they load no plug-in.
"""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin


def complete_override(incomplete: str) -> list[str]:
    """Keys as KEY=, or, behind a key with few possible values, these values."""
    key, equals, _ = incomplete.partition("=")
    if not equals:
        return [f"{name}=" for name in _keys() if name.startswith(incomplete)]
    return [each for each in (f"{key}={value}" for value in _values(key)) if each.startswith(incomplete)]


def complete_option_name(incomplete: str) -> list[str]:
    """Names of sections and plug-ins, as `rayclean options` takes them."""
    from rayclean.cli.options import option_families, option_sections

    plugins = (f"{kind}.{name}" for kind, family in option_families().items() for name in family.all_names())
    return [name for name in (*option_sections(), *plugins) if name.startswith(incomplete)]


def _keys() -> Iterator[str]:
    """All keys of a config; of a plug-in its name alone."""
    from rayclean.cli.options import describe_options, option_families, option_sections

    for section, model in option_sections().items():
        prefix = "" if section == "run" else f"{section}."
        yield from (prefix + option.key for option in describe_options(model) if option.type != "table")
    yield from (f"{kind}.name" for kind in option_families() if kind != "detector")


def _values(key: str) -> Iterator[str]:
    """The values that a key may have, where they can be listed."""
    from rayclean.cli.options import option_families, option_sections

    section, _, rest = key.rpartition(".")
    families = option_families()
    if section in families and rest == "name":
        yield from families[section].all_names()
        return
    if key in families:
        yield from families[key].all_names()
        return
    model: Any = option_sections()["run"]
    for part in key.split("."):
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return
        model = field.annotation
    yield from _listed(model)


def _listed(annotation: Any) -> Iterator[str]:
    if annotation is bool:
        yield from ("true", "false")
    elif get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    else:
        for part in get_args(annotation):
            yield from _listed(part)
