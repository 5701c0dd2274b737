"""A study file to start from, and the JSON Schema by which editors check and complete one."""

from pathlib import Path
from typing import Any

from pydantic import Field, create_model

from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.errors import StudyError

_START = Path(__file__).with_name("start.toml")


def study_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a study file: the tables of `Study`, and `runtime`."""
    runtime: Any = (Runtime, Field(Runtime(), description="Where it runs."))
    model = create_model("StudyFile", __base__=Study, runtime=runtime)
    schema: dict[str, Any] = _any_of(model.model_json_schema())
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Preceptor study"
    return schema


def _any_of(schema: Any) -> Any:
    """Return the schema with every `oneOf` as `anyOf`: a reward of another package has any fields."""
    if isinstance(schema, list):
        return [_any_of(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {"anyOf" if key == "oneOf" else key: _any_of(one) for key, one in schema.items()}


def write_start(path: str | Path) -> None:
    """Write a commented study file to start from.

    Raises:
        StudyError: there is something of that name, or the file cannot be written.
    """
    try:
        with Path(path).open("x", encoding="utf-8") as file:
            file.write(_START.read_text(encoding="utf-8"))
    except FileExistsError as error:
        raise StudyError(f"'{path}' exists: name another file, or move it away.") from error
    except OSError as error:
        raise StudyError(
            f"Cannot write '{path}': {error.strerror}. Make its folder first, or name another file."
        ) from error
