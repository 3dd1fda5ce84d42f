"""The OpenAPI description of the public listener, made from the endpoint table and nothing else.

What a call reads, who may make it, what it answers and what it weighs is in its row; so a row that is added
is described, and a test holds the answers against the description. Parameters stand in the query string here;
a form body does as well.
"""

from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from exchange.intake.access import NEEDED
from exchange.intake.endpoint import Endpoint, Security
from exchange.intake.parameters import CLIENT_ID_RANGE, Parameter, client_order_id, decimal

OPENAPI_VERSION = "3.1.0"
_SCHEMAS = "#/components/schemas/"
_KEY_SCHEME, _SIGNATURE_SCHEME = "apiKey", "signature"
_DECIMAL_SCHEMA = {"type": "string", "pattern": r"^-?[0-9]{1,20}(\.[0-9]{1,20})?$"}
_OF_PARSE: dict[Any, dict[str, Any]] = {
    decimal: _DECIMAL_SCHEMA,
    client_order_id: {"type": "string", "pattern": CLIENT_ID_RANGE},
}
_OF_TYPE: dict[Any, dict[str, Any]] = {
    int: {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
    bool: {"type": "boolean"},
}
_SIGNED = (
    {
        "name": "timestamp",
        "in": "query",
        "required": True,
        "description": "When the request was made, ms.",
        "schema": {"type": "integer"},
    },
    {
        "name": "recvWindow",
        "in": "query",
        "required": False,
        "description": "How old the request may be when it is looked at, ms; 5000 unless given.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 60_000},
    },
    {
        "name": "signature",
        "in": "query",
        "required": True,
        "description": "Over query string and body as sent, without itself: HMAC-SHA256 in hexadecimal, or "
        "Ed25519 in base64.",
        "schema": {"type": "string"},
    },
)
# What any call may be answered instead of its result. 500 is a defect of the exchange.
_FAULTS = {
    400: "What was asked is not valid, or the exchange refuses it.",
    401: "The key is nobody's, may not do this, or may not be used from there.",
    404: "There is no such call.",
    413: "The body is too large.",
    418: "The address is banned: it went on after 429.",
    429: "Too much was asked; Retry-After says when to come back.",
    500: "A fault of the exchange.",
    503: "Not now; the text says whether the request may have been executed.",
}
_ERROR = "Error"


class Error(msgspec.Struct, frozen=True):
    """Why a request is not granted: the code that clients act on, and what it means."""

    code: int
    msg: str


def describe(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Return the OpenAPI document of a table of endpoints."""
    rows = list(endpoints)
    leaves = list(dict.fromkeys(leaf for row in rows for leaf in _leaves(row.response)))
    schemas, components = msgspec.json.schema_components([*leaves, Error], ref_template=_SCHEMAS + "{name}")
    schema_of = dict(zip(leaves, map(_without_tuples, schemas), strict=False))
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        operation = _operation(row, _answer_schema(row.response, schema_of))
        paths.setdefault(row.path, {})[row.method.lower()] = operation
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "Foldex",
            "version": "1",
            "description": "Binance USD-M futures under /fapi, what Foldex has of its own under /foldex.",
        },
        "paths": paths,
        "components": {
            "schemas": _without_tuples(components),
            "securitySchemes": {
                _KEY_SCHEME: {"type": "apiKey", "in": "header", "name": "X-MBX-APIKEY"},
                _SIGNATURE_SCHEME: {"type": "apiKey", "in": "query", "name": "signature"},
            },
        },
    }


def _operation(row: Endpoint, schema: dict[str, Any]) -> dict[str, Any]:
    summary = (row.handler.__doc__ or "").strip().partition("\n")[0]
    operation: dict[str, Any] = {
        "operationId": f"{row.method.lower()}{row.path.replace('/', '_')}",
        "summary": summary,
        "tags": [row.path.split("/")[1]],
        "parameters": [_parameter(parameter) for parameter in row.parameters],
        "responses": {
            "200": {
                "description": summary or "The answer.",
                "content": {"application/json": {"schema": schema}},
            },
            **{str(status): _fault(text) for status, text in _FAULTS.items()},
        },
        "x-weight": row.weight if isinstance(row.weight, int) else "depends on the parameters",
        "x-security": row.security.name,
    }
    if row.is_order:
        operation["x-orders"] = row.orders if isinstance(row.orders, int) else "depends on the parameters"
    if row.security is not Security.NONE:
        operation["x-permission"] = str(NEEDED[row.security].name).lower()
        operation["security"] = [{_KEY_SCHEME: []}]
    if row.security.is_signed:
        operation["parameters"] += _SIGNED
        operation["security"] = [{_KEY_SCHEME: [], _SIGNATURE_SCHEME: []}]
    return operation


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.required,
        "schema": _schema(parameter),
    }


def _schema(parameter: Parameter) -> dict[str, Any]:
    """Return what a parameter looks like: its texts, or what its parser says that it makes of a text."""
    if parameter.values:
        return {"type": "string", "enum": list(parameter.values)}
    known = _OF_PARSE.get(parameter.parse)
    if known is not None:
        return known
    made = get_type_hints(parameter.parse).get("return")
    schema = _OF_TYPE.get(made, {"type": "string"})
    return {**schema, "minLength": 1} if parameter.required and schema["type"] == "string" else schema


def _without_tuples(schema: Any) -> Any:
    """Return a schema whose tuples are arrays of as many of any of their parts.

    Many tools that read these documents do not know `prefixItems`.
    """
    if isinstance(schema, list):
        return [_without_tuples(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _without_tuples(part) for name, part in schema.items() if name != "prefixItems"}
    if "prefixItems" in schema:
        parts = _without_tuples(schema["prefixItems"])
        kinds = [part for n, part in enumerate(parts) if part not in parts[:n]]
        plain["items"] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    return plain


def _fault(text: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _SCHEMAS + _ERROR}}}
    return {"description": text, "content": content}


def _leaves(response: Any) -> Iterator[Any]:
    """Yield what an answer is made of: the alternatives of a union, what a list is of."""
    if get_origin(response) in (Union, UnionType, list):
        for part in get_args(response):
            yield from _leaves(part)
    else:
        yield response


def _answer_schema(response: Any, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of an answer. Unions are put together here: their members need no tag to be told."""
    origin = get_origin(response)
    if origin in (Union, UnionType):
        return {"anyOf": [_answer_schema(part, schema_of) for part in get_args(response)]}
    if origin is list:
        (part,) = get_args(response)
        return {"type": "array", "items": _answer_schema(part, schema_of)}
    return schema_of[response]
