"""A study as the text of a study file, so that what options asked for can be asked again.

TOML is written from the study's own fields, short because what has its default is left out, and
faithful because reading it back gives an equal study.
"""

import json
import math
from collections.abc import Mapping, Sequence

from preceptor.config.study import Study
from preceptor.errors import StudyError

_TAG = "kind"


def study_text(study: Study) -> str:
    """Return the tables of a study file, without `[runtime]`; `StudyFile.read` gives an equal study.

    Raises:
        StudyError: a rule holds a null in a list, which TOML cannot say.
    """
    whole = study.model_dump(mode="json")
    short = study.model_dump(mode="json", exclude_defaults=True)
    tables = _tagged(short, whole)
    assert isinstance(tables, dict)
    return "\n".join(_table(tables, ())).strip() + "\n"


def _tagged(short: object, whole: object) -> object:
    """Return the short dump without nulls, and with the tags: they have defaults but tell a table's class."""
    if isinstance(short, dict) and isinstance(whole, dict):
        kept = {_TAG: whole[_TAG]} if isinstance(whole.get(_TAG), str) else {}
        kept |= {name: _tagged(value, whole[name]) for name, value in short.items()}
        return {name: value for name, value in kept.items() if value is not None}
    if isinstance(short, list) and isinstance(whole, list):
        return [_tagged(*pair) for pair in zip(short, whole, strict=True)]
    return short


def _table(values: Mapping[str, object], path: tuple[str, ...]) -> list[str]:
    """Return the lines of a table: its plain values first, as TOML wants them, then the tables within."""
    lines, below = [], []
    for name, value in values.items():
        inner = (*path, name)
        heading = ".".join(map(_key, inner))
        if isinstance(value, dict):
            below += ["", f"[{heading}]", *_table(value, inner)]
        elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            for one in value:
                below += ["", f"[[{heading}]]", *_table(one, inner)]
        else:
            lines.append(f"{_key(name)} = {_value(value, name)}")
    return [*lines, *below]


def _key(name: str) -> str:
    plain = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if plain else _string(name)


def _value(value: object, name: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        pairs = (f"{_key(key)} = {_value(one, key)}" for key, one in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    if isinstance(value, Sequence):
        return f"[{', '.join(_value(one, name) for one in value)}]"
    raise StudyError(
        f"'{name}' holds {value!r:.40}, which a study file cannot say: expected texts, numbers, lists and "
        "tables. Leave it out."
    )


def _string(text: str) -> str:
    """Return a basic string: JSON's escapes are TOML's, but for DEL, which TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
