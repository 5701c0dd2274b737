"""Make preference pairs whose better answer is known by construction, to train and check reward models.

Every kind has its own rule for what is right, and the answers to choose from are drawn
alike, so that neither length nor a word alone gives the better one away. Held-out pairs are of other
people, things, places and numbers than the training pairs. Pairs whose length would tilt the balance
between chosen and rejected are drawn again.

Usage:
    python bench/make_preference_pairs.py --out FOLDER [--seed 0] [--train 300] [--held-out 60]

writes `train.jsonl` and `held_out.jsonl`, rows of kind, instruction, chosen and rejected. The kind
`zoo` is the demo's own: a verified-right against a verified-wrong answer to one of its instructions.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np

from preceptor.demo import demo_files
from preceptor.scorers.verifier.verifier import verify


@dataclass(frozen=True)
class Pair:
    """Two answers to one instruction, the first better by the rule of its kind."""

    kind: str
    instruction: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class World:
    """What instructions are about: invented words and numbers that the other split has not."""

    words: tuple[str, ...]
    numbers: tuple[int, ...]


SYLLABLES = tuple(first + second for first in "bdfgklmnprstvz" for second in "aeiou")
"""Words are two of them: every syllable is met in training, a held-out word never."""

_PLACES = tuple(product(range(len(SYLLABLES)), repeat=2))
_DIGITS = tuple(product(range(1, 10), range(10)))


def _world(*, held_out: bool) -> World:
    """Return one split: every fourth word and number is held out, by the sum of its parts."""
    words = (SYLLABLES[one] + SYLLABLES[two] for one, two in _PLACES if _is_out(one, two, held_out))
    numbers = (10 * ten + unit for ten, unit in _DIGITS if _is_out(ten, unit, held_out))
    return World(tuple(words), tuple(numbers))


def _is_out(one: int, two: int, held_out: bool) -> bool:
    return ((one + two) % 4 == 0) == held_out


TRAIN = _world(held_out=False)
HELD_OUT = _world(held_out=True)

DEEDS = {
    "clean": "cleaned",
    "paint": "painted",
    "hide": "hid",
    "mend": "mended",
    "lift": "lifted",
    "sell": "sold",
    "wash": "washed",
    "move": "moved",
}

Rule = Callable[[World, np.random.Generator], tuple[str, str, str]]
"""Draws the instruction, the better and the worse answer."""


PHRASES = {"Where": "in the", "When": "after the", "How": "with a", "Why": "because of"}
"""How the answer to each question goes on."""


def pick(values: Sequence[str], rng: np.random.Generator) -> str:
    """Return one of the values."""
    return values[int(rng.integers(len(values)))]


def pick_two(values: Sequence[str], rng: np.random.Generator) -> tuple[str, str]:
    """Return two different values, in either order."""
    first, further = rng.integers(len(values)), rng.integers(1, len(values))
    return values[int(first)], values[int(first + further) % len(values)]


def pick_name(world: World, rng: np.random.Generator) -> str:
    """Return a word as a name."""
    return pick(world.words, rng).capitalize()


def phrase(asked: str, world: World, rng: np.random.Generator) -> str:
    """Return three words that answer the question word."""
    return f"{PHRASES[asked]} {pick(world.words, rng)}"


def on_topic(world: World, rng: np.random.Generator) -> tuple[str, str, str]:
    """An answer to the question asked, or to another question of the same deed."""
    asked, other = pick_two(tuple(PHRASES), rng)
    deed, name, thing = pick(tuple(DEEDS), rng), pick_name(world, rng), pick(world.words, rng)
    start = f"{name} {DEEDS[deed]} the {thing}"
    right, wrong = (phrase(one, world, rng) for one in (asked, other))
    return f"{asked} did {name} {deed} the {thing}?", f"{start} {right}.", f"{start} {wrong}."


def on_subject(world: World, rng: np.random.Generator) -> tuple[str, str, str]:
    """An answer about the thing asked about, or about another thing."""
    thing, other = pick_two(world.words, rng)
    deed, name = pick(tuple(DEEDS), rng), pick_name(world, rng)
    start, rest = f"{name} {DEEDS[deed]} the", phrase("Where", world, rng)
    question = f"Where did {name} {deed} the {thing}?"
    return question, f"{start} {thing} {rest}.", f"{start} {other} {rest}."


def story(world: World, rng: np.random.Generator) -> tuple[str, list[str]]:
    """Return a request and four sentences of seven words that fulfil it."""
    name, thing = pick_name(world, rng), pick(world.words, rng)
    sentences = [
        f"{name} {DEEDS[pick(tuple(DEEDS), rng)]} the {thing} {phrase(asked, world, rng)}."
        for asked in PHRASES
    ]
    order = rng.permutation(len(sentences))
    return f"Tell me about {name} and the {thing}.", [sentences[at] for at in order]


def finished(world: World, rng: np.random.Generator) -> tuple[str, str, str]:
    """A text that comes to its end, or one that breaks off within a sentence."""
    request, sentences = story(world, rng)
    whole = " ".join(sentences[: int(rng.integers(1, 4))])
    kept, last = sentences[: int(rng.integers(0, 3))], sentences[3].split()
    # Four words of a sentence are one in themselves: "Mara cleaned the lamp".
    cut = (3, 5, 6)[int(rng.integers(3))]
    broken = " ".join([*kept, *last[:cut]])
    # A full stop after the break: the last character must not give it away.
    return request, whole, f"{broken}."


def fluent(world: World, rng: np.random.Generator) -> tuple[str, str, str]:
    """A text in order, or another one with the words of a sentence shuffled."""
    request, sentences = story(world, rng)
    name, *words = sentences[1].rstrip(".").split()
    shuffled = words
    while shuffled == words:
        shuffled = [words[at] for at in rng.permutation(len(words))]
    return request, " ".join(sentences[::3]), f"{sentences[2]} {' '.join([name, *shuffled])}."


def repeated(world: World, rng: np.random.Generator) -> tuple[str, str, str]:
    """Sentences that go on, or the same sentence over and over."""
    request, sentences = story(world, rng)
    count = int(rng.integers(2, 4))
    return request, " ".join(sentences[:count]), " ".join(sentences[3:] * count)


def in_order(world: World, rng: np.random.Generator) -> tuple[str, str, str]:
    """Numbers sorted the way asked, or the other way round."""
    size = int(rng.integers(2, 5))
    drawn = [int(one) for one in rng.choice(world.numbers, size=size, replace=False)]
    up, down = (
        ", ".join(map(str, sorted(drawn, reverse=reverse))) + "." for reverse in (False, True)
    )
    given = ", ".join(map(str, drawn))
    if rng.random() < 0.5:
        return f"Sort from smallest to largest: {given}.", up, down
    return f"Sort from largest to smallest: {given}.", down, up


def compared(world: World, rng: np.random.Generator) -> tuple[str, str, str]:
    """The larger or the smaller of two numbers as asked, or the other one."""
    one, other = (int(number) for number in rng.choice(world.numbers, size=2, replace=False))
    asked = pick(("larger", "smaller"), rng)
    right, wrong = (max, min) if asked == "larger" else (min, max)
    start = f"Of {one} and {other}, the {asked} number is"
    question = f"Which is {asked}, {one} or {other}?"
    return question, f"{start} {right(one, other)}.", f"{start} {wrong(one, other)}."


def looked_up(world: World, rng: np.random.Generator) -> tuple[str, str, str]:
    """The place that the instruction itself gives for a thing, or the other thing's place."""
    things, places = pick_two(world.words, rng), pick_two(world.words, rng)
    facts = [f"The {thing} is in the {at}." for thing, at in zip(things, places, strict=True)]
    at = int(rng.integers(2))
    right, wrong = (f"The {things[at]} is in the {places[one]}." for one in (at, 1 - at))
    return f"{' '.join(facts)} Where is the {things[at]}?", right, wrong


def added(world: World, rng: np.random.Generator) -> tuple[str, str, str]:
    """The right sum of two numbers, or one that is off by a little or by tens."""
    one, other = (int(number) for number in rng.choice(world.numbers, size=2))
    off = int(rng.choice([-20, -10, -2, -1, 1, 2, 10, 20]))
    start, total = f"{one} + {other} is", one + other
    return f"What is {one} + {other}?", f"{start} {total}.", f"{start} {total + off}."


RULES: Mapping[str, Rule] = {
    "on_topic": on_topic,
    "finished": finished,
    "fluent": fluent,
    "repeated": repeated,
    "in_order": in_order,
    "compared": compared,
    "on_subject": on_subject,
    "looked_up": looked_up,
    "added": added,
}
"""The kinds made from rules."""

EASY = ("on_topic", "finished", "fluent", "repeated")
"""What a model of two thin layers learns from some thousand pairs; of the others it learns little."""


def balanced(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Yield pairs, leaving out those that would make one side longer more often than the other."""
    lead = 0
    for pair in pairs:
        longer = int(np.sign(len(pair.chosen) - len(pair.rejected)))
        if abs(lead + longer) <= 1:
            lead += longer
            yield pair


def draws(kind: str, world: World, rng: np.random.Generator) -> Iterator[Pair]:
    """Yield pairs of one kind without end, none twice."""
    seen = set()
    while True:
        pair = Pair(kind, *RULES[kind](world, rng))
        if pair not in seen and pair.chosen != pair.rejected:
            seen.add(pair)
            yield pair


def make_pairs(world: World, counts: Mapping[str, int], *, seed: int) -> list[Pair]:
    """Return so many pairs of each kind, kind after kind, the same for a seed."""
    found = []
    for kind, count in counts.items():
        rng = np.random.default_rng([seed, tuple(RULES).index(kind), len(world.words)])
        supply = balanced(draws(kind, world, rng))
        found += [next(supply) for _ in range(count)]
    return found


def zoo_pairs(seed: int) -> list[Pair]:
    """Return pairs of the demo's answers, verified right against verified wrong, in random order."""
    lines = [line for file in demo_files() for line in file.read_bytes().splitlines()]
    rows = [json.loads(line) for line in lines]
    answers: dict[str, tuple[list[str], list[str]]] = {}
    for row in rows:
        wrong, right = answers.setdefault(row["instruction"], ([], []))
        if row["output"].strip():
            (right if verify(row["output"], row["reference"]) else wrong).append(row["output"])
    pairs = [
        Pair("zoo", instruction, good, bad)
        for instruction, (wrong, right) in answers.items()
        for good, bad in product(dict.fromkeys(right), dict.fromkeys(wrong))
    ]
    order = np.random.default_rng(seed).permutation(len(pairs))
    return list(balanced(pairs[at] for at in order))


def length_accuracy(pairs: Sequence[Pair]) -> float:
    """Return how often the longer answer is the better one; a tie counts as one half."""
    signs = [np.sign(len(pair.chosen) - len(pair.rejected)) for pair in pairs]
    return float(np.mean([(1 + sign) / 2 for sign in signs]))


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write JSON Lines."""
    lines = (json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in pairs)
    path.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the two files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=300, help="training pairs of each kind")
    parser.add_argument("--held-out", type=int, default=60, help="held-out pairs of each kind")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    splits = (("train", TRAIN, asked.train), ("held_out", HELD_OUT, asked.held_out))
    for name, world, count in splits:
        pairs = make_pairs(world, dict.fromkeys(RULES, count), seed=asked.seed)
        if world is HELD_OUT:
            pairs += zoo_pairs(asked.seed)
        write_pairs(asked.out / f"{name}.jsonl", pairs)
        print(f"{name}: {len(pairs)} pairs, the longer is better in {length_accuracy(pairs):.1%}")


if __name__ == "__main__":
    main()
