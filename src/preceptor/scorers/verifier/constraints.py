"""Constraints on a response's form that can be counted: words, bullets, capitals, keywords, layout.

A reference lists constraints such as `{"name": "words", "at_least": 50}`, each is kept or
not, and the reward says whether all are (or, with `partial`, which share). They cover the instructions
of IFEval (Zhou et al. 2023, arXiv 2311.07911) but for the language of a response, under plain names;
the table in `docs/reference/verifiers.md` maps its instruction ids to them and says where the counting
differs. Texts of a reference are compared letter by letter and never become patterns.
"""

from collections.abc import Callable, Mapping

from preceptor.errors import DataError
from preceptor.scorers.verifier.checks import (
    NOT_JSON,
    Check,
    Maker,
    fenced_block,
    made,
    parsed_json,
)
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
    checks = [made(one, _CONSTRAINTS, what="constraint", by="name") for one in listed]

    def check(text: str) -> float:
        kept = [one(text) for one in checks]
        return sum(kept) / len(kept) if partial else float(all(kept))

    return check


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


_BOUNDS = ("at_least", "at_most")

_CONSTRAINTS: Mapping[str, Maker[Kept]] = {
    "words": Maker(_counting(words), (), _BOUNDS),
    "sentences": Maker(_counting(sentences), (), _BOUNDS),
    "paragraphs": Maker(_paragraphs, (), ("divider", *_BOUNDS)),
    "first_word": Maker(_first_word, ("word",), ("paragraph",)),
    "keywords": Maker(_keywords, ("words",)),
    "forbidden": Maker(_forbidden, ("words",)),
    "keyword_count": Maker(_word_count, ("word",), _BOUNDS),
    "letter_count": Maker(_letter_count, ("letter",), _BOUNDS),
    "upper_case": Maker(_holding(str.isupper)),
    "lower_case": Maker(_holding(str.islower)),
    "capital_words": Maker(_counting(capital_words), (), _BOUNDS),
    "no_commas": Maker(_holding(lambda text: "," not in text)),
    "starts_with": Maker(_starts_with, ("text",)),
    "ends_with": Maker(_ends_with, ("text",)),
    "quoted": Maker(_holding(is_quoted)),
    "one_of": Maker(_one_of, ("texts",)),
    "bullets": Maker(_counting(bullets), (), _BOUNDS),
    "placeholders": Maker(_counting(placeholders), (), _BOUNDS),
    "highlights": Maker(_counting(highlights), (), _BOUNDS),
    "sections": Maker(_sections, (), ("marker", *_BOUNDS)),
    "title": Maker(_holding(has_title)),
    "json": Maker(_holding(_is_json)),
    "postscript": Maker(_postscript, (), ("marker",)),
    "two_responses": Maker(_holding(is_two_responses)),
}
