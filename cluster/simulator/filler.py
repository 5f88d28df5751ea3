"""JSON that fits a schema, for a model that has nothing to say."""

from collections.abc import Mapping
from typing import Any

from cluster.simulator.refusal import Refusal

_FULL_DEPTH_MAX = 8
_DEPTH_MAX = 32
_VALUES_MAX = 10_000
_ITEMS_MAX = 100
_STRING_CHARS_MAX = 1_000
_FORMATS = {
    "date": "2026-03-14",
    "time": "15:09:26Z",
    "date-time": "2026-03-14T15:09:26Z",
    "email": "nobody@example.com",
    "uri": "https://example.com/",
    "uuid": "3f9a0c1d-2e4b-4c6d-8e8f-0a1b2c3d4e5f",
}


def fill(schema: Mapping[str, Any]) -> Any:
    """The same for the same schema. Knows what the providers' structured outputs know, Gemini's upper-case types too,
    but not `pattern`. Below a depth only what is required is filled, so that recursive schemas end.

    Raises Refusal for a schema that is none, or too deep or too large.
    """
    try:
        return _Filler(schema).value(schema, 0)
    except (TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        raise Refusal(400, "The schema is not one that can be followed.") from error


class _Filler:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._values = 0

    def value(self, schema: Any, depth: int) -> Any:
        self._values += 1
        if depth > _DEPTH_MAX or self._values > _VALUES_MAX:
            raise Refusal(400, f"The schema is deeper than {_DEPTH_MAX} or has more than {_VALUES_MAX} values.")
        if not isinstance(schema, Mapping):
            return None
        if "$ref" in schema:
            return self.value(self._referred(schema["$ref"]), depth + 1)
        for fixed in ("const", "default"):
            if fixed in schema:
                return schema[fixed]
        if schema.get("enum"):
            return schema["enum"][0]
        if choices := schema.get("anyOf") or schema.get("oneOf"):
            return self.value(_choice(choices, depth), depth + 1)
        if schema.get("allOf"):
            return self.value(self._merged(schema), depth + 1)
        return self._typed(schema, _kind(schema), depth)

    def _typed(self, schema: Mapping[str, Any], kind: str, depth: int) -> Any:
        if kind == "object":
            properties = schema.get("properties", {})
            required = schema.get("required", ())
            wanted = [name for name in properties if depth < _FULL_DEPTH_MAX or name in required]
            return {name: self.value(properties[name], depth + 1) for name in wanted}
        if kind == "array":
            count = int(schema.get("minItems", 0)) or int(depth < _FULL_DEPTH_MAX)
            return [self.value(schema.get("items", {}), depth + 1) for _ in range(min(count, _ITEMS_MAX))]
        if kind in ("integer", "number"):
            return _number(schema, step=1 if kind == "integer" else 0.5)
        if kind == "boolean":
            return True
        return None if kind == "null" else _string(schema)

    def _merged(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        merged: dict[str, Any] = {}
        for part in schema["allOf"]:
            merged |= self._referred(part["$ref"]) if "$ref" in part else part
        return {**merged, **{name: value for name, value in schema.items() if name != "allOf"}}

    def _referred(self, reference: str) -> Any:
        found: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/") if reference.strip("#/") else ():
            found = found[step]
        return found


def _kind(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type") or ("object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    return str(kind).lower()


def _choice(choices: Any, depth: int) -> Any:
    """The first that is not null; null where it goes deep."""
    nulls = [each for each in choices if _kind(each) == "null"]
    return nulls[0] if nulls and depth >= _FULL_DEPTH_MAX else next((each for each in choices if each not in nulls), {})


def _number(schema: Mapping[str, Any], step: float) -> Any:
    if "minimum" in schema:
        return schema["minimum"]
    if "exclusiveMinimum" in schema:
        return schema["exclusiveMinimum"] + step
    return min(step, schema.get("maximum", schema.get("exclusiveMaximum", 2 * step) - step))


def _string(schema: Mapping[str, Any]) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    least = min(int(schema.get("minLength", 0)), _STRING_CHARS_MAX)
    return "synthetic".ljust(least, ".")[: max(least, int(schema.get("maxLength", _STRING_CHARS_MAX)))]
