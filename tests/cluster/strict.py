"""Kubernetes schemas that refuse unknown fields, as `kubectl --validate=strict` does."""

from typing import Any

KEEPS = "x-kubernetes-preserve-unknown-fields"


def strict(schema: Any) -> Any:
    """The same schema, closed wherever it lists properties, unless it says that it keeps others."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if schema.get("type") == "object" and "properties" in schema and not schema.get(KEEPS):
        closed.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        closed["type"] = ["integer", "string"]
        closed.pop("anyOf", None)
    return closed
