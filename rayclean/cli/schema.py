"""The JSON schema of configs, by which editors complete, explain and check them (`rayclean config --schema`).

It is made from the same types and docstrings as `rayclean options`. Plug-ins are known with their options, those of
installed packages among them.
"""

from typing import TYPE_CHECKING, Any

from rayclean.cli.options import key_help, option_families

if TYPE_CHECKING:
    from rayclean.plugins import Family, Options

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_OWN_CLASS = r"^[\w.]+:\w+$"
_PLACES = {
    ("Config", "task"): "task",
    ("Config", "encoder"): "encoder",
    ("Config", "annotator"): "annotator",
    ("Config", "method"): "method",
    ("DetectConfig", "detectors"): "detector",
    ("RelabelConfig", "annotators"): "annotator",
}
"""Model and key -> kind of the plug-ins that stand there."""


def config_schema() -> dict[str, Any]:
    """The schema of a config file.

    No section is required: a file may be laid over another one.
    """
    from rayclean.config import Config

    schema = Config.model_json_schema()
    definitions: dict[str, Any] = schema.pop("$defs")
    definitions["Plugin"] = _any_plugin(definitions["Plugin"])
    for kind, family in option_families().items():
        definitions |= _plugin_definitions(kind, family)
    schema.pop("required")
    for (model, key), kind in _PLACES.items():
        properties = (schema if model == "Config" else definitions[model])["properties"]
        properties[key] = _at_plugin(properties[key], kind, definitions)
    _explain(schema, Config)
    return {"$schema": DIALECT, "title": "rayclean config", **schema, "$defs": definitions}


def _plugin_definitions(kind: str, family: "Family[Any]") -> dict[str, Any]:
    """`<kind>`, a plug-in by its name or with its options, and what that is made of."""
    found: dict[str, Any] = {}
    names = list(family.all_names())
    for name in names:
        model = family.resolve(name).Config
        prefix = f"{kind}.{name}"
        schema = model.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}")
        found |= {f"{prefix}.{each}": nested for each, nested in schema.pop("$defs", {}).items()}
        _explain(schema, model)
        schema["properties"] = {"name": {"const": name}, **schema.get("properties", {})}
        found[prefix] = {**schema, "title": prefix, "required": ["name", *schema.get("required", ())]}
    own: dict[str, Any] = {
        "type": "object",
        "title": f"{kind} of your own",
        "properties": {"name": {"type": "string", "pattern": _OWN_CLASS}},
        "required": ["name"],
    }
    by_name = [{"enum": names}, {"type": "string", "pattern": _OWN_CLASS}]
    found[kind] = {"anyOf": [*by_name, *({"$ref": f"#/$defs/{kind}.{name}"} for name in names), own]}
    return found


def _at_plugin(place: dict[str, Any], kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a key that holds a plug-in, or a list of them.

    Where there is one, a table without a name has the options of the default plug-in.
    """
    explained: dict[str, Any] = {key: place[key] for key in ("description", "title") if key in place}
    reference = {"$ref": f"#/$defs/{kind}"}
    if place.get("type") == "array":
        return {**explained, "type": "array", "items": reference}
    default = place["default"]["name"]
    whole = definitions[f"{kind}.{default}"]
    unnamed = {
        **whole,
        "title": f"options of {kind}.{default}, the default",
        "properties": {key: value for key, value in whole["properties"].items() if key != "name"},
        "required": [key for key in whole["required"] if key != "name"],
    }
    return {**explained, "anyOf": [reference, unnamed], "default": default}


def _any_plugin(schema: dict[str, Any]) -> dict[str, Any]:
    """A plug-in whose kind is not known here: a name, or a table with one."""
    return {"anyOf": [{"type": "string"}, schema]}


def _explain(schema: dict[str, Any], model: "type[Options]") -> None:
    """Add the explanations that a field has from its base class, where only its default differs."""
    for key, place in schema.get("properties", {}).items():
        if key in model.model_fields and "description" not in place:
            place["description"] = key_help(model, key)
