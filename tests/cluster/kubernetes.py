"""Schemas of Kubernetes' own kinds, as far as the files under cluster/ use them, closed like `strict.strict` closes
KubeRay's. Fields and types are those of the API reference (core/v1, networking.k8s.io/v1).
"""

from typing import Any

Schema = dict[str, Any]
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}


def closed(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object", "properties": properties, "required": list(required), "additionalProperties": False,
    }  # fmt: skip


def several(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


METADATA = closed(("name",), name=NAME, namespace=NAME, labels=TEXTS, annotations=TEXTS)
SELECTOR = closed(
    matchLabels=TEXTS,
    matchExpressions=several(
        closed(
            ("key", "operator"),
            key={"type": "string"},
            operator={"enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
            values=several({"type": "string"}),
        )
    ),
)
CIDR: Schema = {"type": "string", "pattern": r"^\d+\.\d+\.\d+\.\d+/\d+$|^[0-9a-f:]+/\d+$"}
PEERS = several(
    {
        **closed(
            podSelector=SELECTOR,
            namespaceSelector=SELECTOR,
            ipBlock=closed(("cidr",), cidr=CIDR, **{"except": several(CIDR)}),
        ),
        "minProperties": 1,
    }
)
PORTS = several(
    closed(
        port={"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, NAME]},
        endPort={"type": "integer", "minimum": 1, "maximum": 65535},
        protocol={"enum": ["TCP", "UDP", "SCTP"]},
    )
)
SCHEMAS: dict[str, Schema] = {
    "ConfigMap": closed(
        ("apiVersion", "kind", "metadata"),
        apiVersion={"const": "v1"},
        kind={"const": "ConfigMap"},
        metadata=METADATA,
        data=TEXTS,
        binaryData=TEXTS,
        immutable={"type": "boolean"},
    ),
    "NetworkPolicy": closed(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "networking.k8s.io/v1"},
        kind={"const": "NetworkPolicy"},
        metadata=METADATA,
        spec=closed(
            ("podSelector",),
            podSelector=SELECTOR,
            policyTypes={"type": "array", "items": {"enum": ["Ingress", "Egress"]}},
            ingress={"type": "array", "items": closed(ports=PORTS, **{"from": PEERS})},
            egress={"type": "array", "items": closed(ports=PORTS, to=PEERS)},
        ),
    ),
}
