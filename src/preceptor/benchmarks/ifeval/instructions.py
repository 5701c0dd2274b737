"""IFEval's instruction ids with their arguments, as constraints of ours; and its loose readings.

Source: Zhou et al. 2023 (arXiv 2311.07911), section 2. How each constraint counts, and where that differs
from the paper's own code, stands in `docs/reference/verifiers.md`.
"""

from collections.abc import Callable, Mapping

from preceptor.benchmarks.rows import Row
from preceptor.errors import DataError

Constraint = dict[str, object]

ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
"""The answers of `detectable_format:constrained_response`."""


def constraints_of(instruction: str, kwargs: Row) -> list[Constraint]:
    """Return the constraints that one instruction id asks for.

    Raises:
        DataError: the id is unknown or cannot be checked by counting, or an argument is missing.
    """
    if (made := _INSTRUCTIONS.get(instruction)) is None:
        raise DataError(f"No rule checks the instruction '{instruction[:80]}'.")
    try:
        return made({name: value for name, value in kwargs.items() if value is not None})
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"The instruction '{instruction}' lacks an argument: {error}.") from error


def loose_readings(text: str) -> list[str]:
    """Return the eight readings of which one must keep an instruction in loose accuracy.

    The text, without its first line, its last, or both; and each of these without asterisks.
    """
    lines = text.split("\n")
    parts = (lines, lines[1:], lines[:-1], lines[1:-1])
    plain = ["\n".join(part).strip() for part in parts]
    return [text, *plain[1:], *(one.replace("*", "") for one in (text, *plain[1:]))]


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError(f"{value!r:.40} is no whole number")
    return int(value)


def _bounds(kwargs: Row, number: str, relation: str = "relation") -> Constraint:
    """Return the bounds of 'at least' and 'less than'; IFEval's default is at least."""
    wanted, stated = _number(kwargs[number]), kwargs.get(relation, "at least")
    if stated not in ("at least", "less than"):
        raise ValueError(f"{relation} is {stated!r:.40}, expected 'at least' or 'less than'")
    return {"at_least": wanted} if stated == "at least" else {"at_most": wanted - 1}


def _exactly(kwargs: Row, number: str) -> Constraint:
    wanted = _number(kwargs[number])
    return {"at_least": wanted, "at_most": wanted}


def _plain(name: str) -> Callable[[Row], list[Constraint]]:
    return lambda kwargs: [{"name": name}]


def _least(name: str, number: str) -> Callable[[Row], list[Constraint]]:
    return lambda kwargs: [{"name": name, "at_least": _number(kwargs[number])}]


def _counted(
    name: str, number: str, relation: str = "relation"
) -> Callable[[Row], list[Constraint]]:
    return lambda kwargs: [{"name": name, **_bounds(kwargs, number, relation)}]


_INSTRUCTIONS: Mapping[str, Callable[[Row], list[Constraint]]] = {
    "keywords:existence": lambda k: [{"name": "keywords", "words": k["keywords"]}],
    "keywords:frequency": lambda k: [
        {"name": "keyword_count", "word": k["keyword"], **_bounds(k, "frequency")}
    ],
    "keywords:forbidden_words": lambda k: [{"name": "forbidden", "words": k["forbidden_words"]}],
    "keywords:letter_frequency": lambda k: [
        {
            "name": "letter_count",
            "letter": k["letter"],
            **_bounds(k, "let_frequency", "let_relation"),
        }
    ],
    "length_constraints:number_words": _counted("words", "num_words"),
    "length_constraints:number_sentences": _counted("sentences", "num_sentences"),
    "length_constraints:number_paragraphs": lambda k: [
        {"name": "paragraphs", "divider": "***", **_exactly(k, "num_paragraphs")}
    ],
    "length_constraints:nth_paragraph_first_word": lambda k: [
        {"name": "paragraphs", **_exactly(k, "num_paragraphs")},
        {
            "name": "first_word",
            "paragraph": _number(k["nth_paragraph"]),
            "word": k["first_word"],
        },
    ],
    "detectable_content:number_placeholders": _least("placeholders", "num_placeholders"),
    "detectable_content:postscript": lambda k: [
        {"name": "postscript", "marker": k["postscript_marker"]}
    ],
    "detectable_format:number_bullet_lists": lambda k: [
        {"name": "bullets", **_exactly(k, "num_bullets")}
    ],
    "detectable_format:constrained_response": lambda k: [
        {"name": "one_of", "texts": list(ANSWERS)}
    ],
    "detectable_format:number_highlighted_sections": _least("highlights", "num_highlights"),
    "detectable_format:multiple_sections": lambda k: [
        {
            "name": "sections",
            "marker": k["section_spliter"],  # spelt so in the published file
            "at_least": _number(k["num_sections"]),
        }
    ],
    "detectable_format:json_format": _plain("json"),
    "detectable_format:title": _plain("title"),
    "combination:two_responses": _plain("two_responses"),
    "combination:repeat_prompt": lambda k: [{"name": "starts_with", "text": k["prompt_to_repeat"]}],
    "startend:end_checker": lambda k: [{"name": "ends_with", "text": k["end_phrase"]}],
    "startend:quotation": _plain("quoted"),
    "change_case:capital_word_frequency": _counted(
        "capital_words", "capital_frequency", "capital_relation"
    ),
    "change_case:english_capital": _plain("upper_case"),
    "change_case:english_lowercase": _plain("lower_case"),
    "punctuation:no_comma": _plain("no_commas"),
}
