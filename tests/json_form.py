"""Holds what a command wrote as JSON to its published schema, here without room for other fields."""

from typing import Any

import jsonschema
import render_json

SCHEMAS = {
    file.rpartition("/")[2].partition(".")[0]: schema
    for file, schema in render_json.schemas().items()
}


def closed(node: Any) -> Any:
    """Return the schema without room for a field that it does not name."""
    if isinstance(node, list):
        return [closed(one) for one in node]
    if not isinstance(node, dict):
        return node
    inner = {key: closed(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict):
        inner.setdefault("additionalProperties", False)
    return inner


def check(name: str, content: Any) -> None:
    """Raise jsonschema.ValidationError where the object, or one of a list, is not of the form."""
    validator = jsonschema.Draft202012Validator(closed(SCHEMAS[name]))
    for one in content if isinstance(content, list) else [content]:
        validator.validate(one)
