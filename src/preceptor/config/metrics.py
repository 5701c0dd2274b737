"""What a study may give as a metric: a name, a table with parameters, or an object of one's own.

Names are those of the built-in metrics and of the entry points `preceptor.metrics` of other packages.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, core_schema

from preceptor.config.plugins import Registry
from preceptor.errors import StudyError, nearest

if TYPE_CHECKING:
    from preceptor.ranking.metrics import Metric


@cache
def known_metrics() -> Registry[Callable[..., object]]:
    """Return every metric's class by its kind; only here is NumPy loaded."""
    from preceptor.ranking.metrics import METRICS

    built_in = {kind: type(metric) for kind, metric in METRICS.items()}
    return Registry("metrics", "metric", built_in)


def metric_of(given: object) -> "Metric":
    """Return the metric that a name, a table `{"kind": ..., parameters}` or an object means.

    Raises:
        StudyError: for an unknown kind or parameter, with the nearest name, or an object that is no metric.
    """
    from preceptor.ranking.metrics import require_metric

    if isinstance(given, str):
        return metric_named(given)
    if isinstance(given, Mapping):
        parameters = {str(name): value for name, value in given.items() if name != "kind"}
        return metric_named(str(given.get("kind")), **parameters)
    return require_metric(given)


def metric_named(kind: str, **parameters: object) -> "Metric":
    """Return the metric of this kind with these parameters, for example `beta`."""
    from preceptor.ranking.metrics import require_metric

    made = known_metrics()[kind]
    known = [name for name in inspect.signature(made).parameters if name != "kind"]
    for name in parameters:
        if name not in known:
            raise StudyError(
                f"Metric '{kind}' has no parameter '{name}'; it takes {', '.join(known) or 'none'}."
                f"{nearest(name, known)}"
            )
    if not is_dataclass(made):
        return require_metric(made(**parameters))
    try:
        return require_metric(TypeAdapter(made).validate_python(parameters))
    except ValidationError as error:
        wrong = error.errors()[0]
        raise StudyError(f"Metric '{kind}', {wrong['loc'][0]}: {wrong['msg']}.") from error


def written(metric: "Metric") -> dict[str, object]:
    """Return the table of a study file that means the metric; only a data class shows its parameters."""
    fields: dict[str, object] = asdict(metric) if is_dataclass(metric) else {}
    return {"kind": metric.kind, **fields}


class _Given:
    """How pydantic reads, writes and describes a metric."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _validated, serialization=core_schema.plain_serializer_function_ser_schema(written)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _: CoreSchema, __: GetJsonSchemaHandler) -> Any:
        table = {"type": "object", "properties": {"kind": {"type": "string"}}, "required": ["kind"]}
        return {"anyOf": [{"enum": known_metrics().names()}, {"type": "string"}, table]}


def _validated(given: object) -> "Metric":
    try:
        return metric_of(given)
    except StudyError as error:
        raise ValueError(str(error)) from error


if TYPE_CHECKING:
    GivenMetric = Annotated[Metric, _Given]
else:
    GivenMetric = Annotated[object, _Given]
"""A field of a table that holds a metric."""
