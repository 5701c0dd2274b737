"""Constraints on a response's form that can be counted: words, bullets, capitals, keywords, layout.

A reference lists constraints such as `{"name": "words", "at_least": 50}`, each is kept or
not, and the reward says whether all are (or, with `partial`, which share). They cover the instructions
of IFEval (Zhou et al. 2023, arXiv 2311.07911) but for the language of a response, under plain names;
the table in `docs/verifiers.md` maps its instruction ids to them and says where the counting differs.
Texts of a reference are compared letter by letter and never become patterns.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from preceptor.errors import DataError, nearest
from preceptor.scorers.verifier.checks import NOT_JSON, Check, fenced_block, parsed_json
from preceptor.scorers.verifier.text_counts import (
    bullets,
    capital_words,
    first_word,
    has_postscript,
    has_title,
    has_whole,
    highlights,
    is_quoted,
    is_two_responses,
    paragraphs,
    placeholders,
    sections,
    sentences,
    words,
)

Kept = Callable[[str], bool]
"""Whether a response's text keeps a constraint."""

Fields = Mapping[str, object]
"""The fields of one constraint, without the absent ones."""


def constraints_check(reference: Mapping[str, object]) -> Check:
    """Return the check of a list of constraints: 1.0 where all are kept, else 0.0.

    With `partial` the reward is the share of constraints kept.

    Raises:
        DataError: The list or one of its constraints is malformed.
    """
    listed, partial = reference["constraints"], reference.get("partial", False)
    if not isinstance(listed, list | tuple) or not listed:
        raise DataError(f"The field 'constraints' is a list with some entry, not {listed!r:.80}.")
    if not isinstance(partial, bool):
        raise DataError(f"The field 'partial' is true or false, not {partial!r:.80}.")
    checks = [_prepared(one) for one in listed]

    def check(text: str) -> float:
        kept = [one(text) for one in checks]
        return sum(kept) / len(kept) if partial else float(all(kept))

    return check


def _prepared(constraint: object) -> Kept:
    """Return the check of one constraint, after looking its fields over."""
    if not isinstance(constraint, Mapping):
        raise DataError(f"A constraint is a table with a name, not {constraint!r:.80}.")
    fields = {key: value for key, value in constraint.items() if value is not None}
    name = fields.pop("name", None)
    if not isinstance(name, str) or name not in _CONSTRAINTS:
        raise DataError(
            f"A constraint's name is {name!r:.80}; the names are {', '.join(_CONSTRAINTS)}."
            + nearest(str(name)[:80], _CONSTRAINTS)
        )
    build, needs, options = _CONSTRAINTS[name]
    allowed = (*needs, *options)
    for field in fields:
        if field not in allowed:
            raise DataError(
                f"The constraint '{name}' has no field {field!r:.80}; its fields are "
                f"{', '.join(allowed) or 'none'}." + nearest(str(field)[:80], allowed)
            )
    missing = [field for field in needs if field not in fields]
    if missing:
        raise DataError(f"The constraint '{name}' needs the field '{missing[0]}': give it one.")
    return build(fields)


def _whole(fields: Fields, name: str, *, least: int = 0) -> int | None:
    """Return a field that is a whole number, or None where it is absent."""
    value = fields.get(name)
    if value is None:
        return None
    # Column formats turn whole numbers into floats where another row has none.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise DataError(f"The field '{name}' is a whole number from {least}, not {value!r:.80}.")
    return value


def _text(fields: Fields, name: str, default: str | None = None) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"The field '{name}' is a text that is not blank, not {value!r:.80}.")
    return value.strip()


def _texts(fields: Fields, name: str) -> list[str]:
    values = fields[name]
    if not isinstance(values, list | tuple) or not values:
        raise DataError(f"The field '{name}' is a list with some text, not {values!r:.80}.")
    return [_text({name: value}, name).casefold() for value in values]


def _between(fields: Fields, count: Callable[[str], int]) -> Kept:
    """Return the check that a count lies in the bounds the fields state, of which one must be there."""
    low, high = _whole(fields, "at_least"), _whole(fields, "at_most")
    if low is None and high is None:
        raise DataError("A counting constraint needs 'at_least', 'at_most' or both.")
    if low is not None and high is not None and low > high:
        raise DataError(f"No count is at least {low} and at most {high}: exchange them.")

    def kept(text: str) -> bool:
        counted = count(text)
        return (low is None or low <= counted) and (high is None or counted <= high)

    return kept


def _counting(count: Callable[[str], int]) -> Callable[[Fields], Kept]:
    return lambda fields: _between(fields, count)


def _holding(kept: Kept) -> Callable[[Fields], Kept]:
    return lambda fields: kept


def _is_json(text: str) -> bool:
    text = text.strip()
    block = fenced_block(text) if text.startswith("```") and text.endswith("```") else None
    return parsed_json(text if block is None else block) is not NOT_JSON


def _paragraphs(fields: Fields) -> Kept:
    divider = _text(fields, "divider") if "divider" in fields else None
    return _between(fields, lambda text: len(paragraphs(text, divider)))


def _first_word(fields: Fields) -> Kept:
    place = _whole(fields, "paragraph", least=1) or 1
    wanted = _text(fields, "word").casefold()

    def kept(text: str) -> bool:
        found = paragraphs(text)
        return place <= len(found) and first_word(found[place - 1]) == wanted

    return kept


def _keywords(fields: Fields) -> Kept:
    listed = _texts(fields, "words")

    def kept(text: str) -> bool:
        folded = text.casefold()
        return all(word in folded for word in listed)

    return kept


def _forbidden(fields: Fields) -> Kept:
    listed = _texts(fields, "words")

    def kept(text: str) -> bool:
        folded = text.casefold()
        return not any(has_whole(folded, word) for word in listed)

    return kept


def _word_count(fields: Fields) -> Kept:
    word = _text(fields, "word").casefold()
    return _between(fields, lambda text: text.casefold().count(word))


def _letter_count(fields: Fields) -> Kept:
    letter = _text(fields, "letter").lower()
    if len(letter) != 1:
        raise DataError(f"The field 'letter' is one character, not {letter!r:.80}.")
    return _between(fields, lambda text: text.lower().count(letter))


def _starts_with(fields: Fields) -> Kept:
    start = _text(fields, "text").casefold()
    return lambda text: text.strip().casefold().startswith(start)


def _ends_with(fields: Fields) -> Kept:
    end = _text(fields, "text").casefold()
    return lambda text: text.strip().strip('"').casefold().endswith(end)


def _one_of(fields: Fields) -> Kept:
    choices = _texts(fields, "texts")
    return lambda text: any(choice in text.casefold() for choice in choices)


def _sections(fields: Fields) -> Kept:
    marker = _text(fields, "marker", "Section")
    return _between(fields, lambda text: sections(text, marker))


def _postscript(fields: Fields) -> Kept:
    marker = _text(fields, "marker", "P.S.")
    return lambda text: has_postscript(text, marker)


class _Constraint(NamedTuple):
    """How to build one constraint's check, the fields it must have and those it can have."""

    build: Callable[[Fields], Kept]
    needs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


_BOUNDS = ("at_least", "at_most")

_CONSTRAINTS = {
    "words": _Constraint(_counting(words), (), _BOUNDS),
    "sentences": _Constraint(_counting(sentences), (), _BOUNDS),
    "paragraphs": _Constraint(_paragraphs, (), ("divider", *_BOUNDS)),
    "first_word": _Constraint(_first_word, ("word",), ("paragraph",)),
    "keywords": _Constraint(_keywords, ("words",)),
    "forbidden": _Constraint(_forbidden, ("words",)),
    "keyword_count": _Constraint(_word_count, ("word",), _BOUNDS),
    "letter_count": _Constraint(_letter_count, ("letter",), _BOUNDS),
    "upper_case": _Constraint(_holding(str.isupper)),
    "lower_case": _Constraint(_holding(str.islower)),
    "capital_words": _Constraint(_counting(capital_words), (), _BOUNDS),
    "no_commas": _Constraint(_holding(lambda text: "," not in text)),
    "starts_with": _Constraint(_starts_with, ("text",)),
    "ends_with": _Constraint(_ends_with, ("text",)),
    "quoted": _Constraint(_holding(is_quoted)),
    "one_of": _Constraint(_one_of, ("texts",)),
    "bullets": _Constraint(_counting(bullets), (), _BOUNDS),
    "placeholders": _Constraint(_counting(placeholders), (), _BOUNDS),
    "highlights": _Constraint(_counting(highlights), (), _BOUNDS),
    "sections": _Constraint(_sections, (), ("marker", *_BOUNDS)),
    "title": _Constraint(_holding(has_title)),
    "json": _Constraint(_holding(_is_json)),
    "postscript": _Constraint(_postscript, (), ("marker",)),
    "two_responses": _Constraint(_holding(is_two_responses)),
}
