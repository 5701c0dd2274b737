"""Other ways to put the same question. None touches a number, or a word of three letters."""

import random
import re
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b

from preceptor.data.instructions import Prompt
from preceptor.types import Instruction, Message

PARAPHRASE = "paraphrase"
"""The column of the user's file that holds the question in other words."""

_WORD = re.compile(r"[^\W\d_]{4,}")
_SHARE = 0.25
"""Share of the words of four letters and more in which two letters are exchanged; one word at least."""


def ways_to_ask(asked: Prompt) -> Iterator[tuple[str, Instruction]]:
    """Yield the name of each perturbation that changes the question, and the question so put."""
    text = asked.instruction.messages[-1].text
    ways = {"typos": with_typos(text), "format": reformatted(text)}
    paraphrase = asked.fields.get(PARAPHRASE)
    if isinstance(paraphrase, str) and paraphrase.strip():
        ways[PARAPHRASE] = paraphrase
    for name, other in ways.items():
        if other != text:
            before = asked.instruction.messages[:-1]
            turn = Message(asked.instruction.messages[-1].role, other)
            yield name, replace(asked.instruction, messages=(*before, turn))


def with_typos(text: str) -> str:
    """Return the text with two neighbouring letters inside some words exchanged, always the same ones."""
    seed = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    rng = random.Random(seed)
    places = [
        at
        for match in _WORD.finditer(text)
        for at in (rng.randrange(match.start() + 1, match.end() - 2),)
        if text[at] != text[at + 1]
    ]
    rng.shuffle(places)
    letters = list(text)
    for at in places[: max(1, round(_SHARE * len(places)))]:
        letters[at], letters[at + 1] = letters[at + 1], letters[at]
    return "".join(letters)


def reformatted(text: str) -> str:
    """Return the text as a field of a form, on lines of its own."""
    return f"Question:\n\n    {text.strip()}\n\nAnswer:"
