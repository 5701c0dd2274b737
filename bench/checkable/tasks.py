"""Arithmetic, word problems and small text tasks, drawn from a seed, each with its answer and working.

No two questions of a draw are equal or share eight words in a row, so that none is left out of training for
what it shares with a question that is asked.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass


def _words(text: str) -> list[str]:
    return text.split()


WORDS = _words(
    "ant apple bag bean bird boat book box bread bus cake car cat chair clock cloud coat corn cow cup "
    "desk dog door drum duck egg farm fish flag flower fork frog garden gate glass goat gold grape grass "
    "hat hen hill horse house ice ink jam jar key king kite lake lamp leaf lemon lion map milk moon mouse "
    "nest net nose nut oak onion orange owl paper pear pen pig pin plum pond pot queen rain ring river "
    "road rock roof rope rose salt sand ship shoe snow soap sock spoon star stone sun table tea tent tiger "
    "tree van wall wheel wind wolf wood yard zebra"
)
NAMES = _words("Ann Ben Carl Dora Eve Finn Gina Hugo Ida Jon Kim Leo Mia Ned Ola Pam")
THINGS = _words("apples books coins pens cards nuts eggs cups stamps shells")


@dataclass(frozen=True)
class Task:
    """One question: `short` and `long` are working, in which `{}` stands for the answer."""

    kind: str
    question: str
    answer: str
    short: str
    long: str
    code: str

    @property
    def reference(self) -> dict[str, str]:
        """How an answer is checked."""
        kind = "numeric" if self.answer.isdigit() else "exact"
        return {"kind": kind, "answer": self.answer}


def _add(rng: random.Random) -> Task:
    a, b = rng.randint(2, 60), rng.randint(2, 39)
    return Task("add", f"What is {a} plus {b}?", str(a + b), *_sum(a, b))


def _sum(a: int, b: int) -> tuple[str, str, str]:
    tens, ones = a // 10 * 10 + b // 10 * 10, a % 10 + b % 10
    long = (
        f"The tens are {a // 10 * 10} + {b // 10 * 10} = {tens}. The ones are {a % 10} + {b % 10} = {ones}. "
        f"Together {tens} + {ones} = {{}}."
    )
    return f"{a} + {b} = {{}}.", long, f"a = {a}\nb = {b}\nprint(a + b)"


def _subtract(rng: random.Random) -> Task:
    a = rng.randint(12, 79)
    b = rng.randint(2, a - 1)
    return Task("subtract", f"What is {a} minus {b}?", str(a - b), *_difference(a, b))


def _difference(a: int, b: int) -> tuple[str, str, str]:
    tens, ones = b // 10 * 10, b % 10
    left = a - tens
    long = f"First take {tens}: {a} - {tens} = {left}. Then take {ones}: {left} - {ones} = {{}}."
    return f"{a} - {b} = {{}}.", long, f"a = {a}\nb = {b}\nprint(a - b)"


def _compare(rng: random.Random) -> Task:
    a, b = rng.sample(range(10, 100), 2)
    of_a, of_b = (f"{one} has {one // 10} tens and {one % 10} ones." for one in (a, b))
    short, code = f"Of {a} and {b}, {{}} is larger.", f"print(max({a}, {b}))"
    question = f"Which number is larger, {a} or {b}?"
    return Task(
        "compare", question, str(max(a, b)), short, f"{of_a} {of_b} So {{}} is larger.", code
    )


def _story(rng: random.Random) -> Task:
    name, things = rng.choice(NAMES), rng.choice(THINGS)
    a, b = rng.randint(5, 40), rng.randint(2, 30)
    if rng.random() < 0.5 or a <= b:
        asked = f"{name} has {a} {things}, gets {b} more. How many now?"
        return Task("story", asked, str(a + b), *_sum(a, b))
    asked = f"{name} has {a} {things}, loses {b}. How many are left?"
    return Task("story", asked, str(a - b), *_difference(a, b))


def _units(rng: random.Random) -> Task:
    name, part, size = rng.choice(
        (
            ("weeks", "days", 7),
            ("hours", "minutes", 60),
            ("dozens", "eggs", 12),
            ("feet", "inches", 12),
        )
    )
    many = rng.randint(2, 30)
    short = f"{many} x {size} = {{}}."
    long = f"One of the {name} has {size} {part}. There are {many} of them, and {many} x {size} = {{}}."
    code = f"size = {size}\nprint({many} * size)"
    return Task("units", f"How many {part} are {many} {name}?", str(many * size), short, long, code)


def _count(rng: random.Random) -> Task:
    word = rng.choice(WORDS)
    spelt = " ".join(f"{letter}{place}" for place, letter in enumerate(word, 1))
    short = f"{'-'.join(word)} has {{}} letters."
    code = f"print(len('{word}'))"
    long = f"Count the letters one by one: {spelt}. The last count is {{}}."
    return Task("count", f"How many letters has '{word}'?", str(len(word)), short, long, code)


def _reverse(rng: random.Random) -> Task:
    word = rng.choice([word for word in WORDS if len(word) < 6])
    turned = word[::-1]
    short = f"{'-'.join(word)} backwards is {{}}."
    letters, back = ", ".join(word), ", ".join(turned)
    long = f"The letters are {letters}. From the end they are {back}. Joined that is {{}}."
    return Task(
        "reverse", f"Write '{word}' backwards.", turned, short, long, f"print('{word}'[::-1])"
    )


def _sort(rng: random.Random) -> Task:
    words = rng.sample(WORDS, 3)
    order = sorted(words)
    begins = ", ".join(f"{word} with {word[:2]}" for word in words)
    long = f"They begin as follows: {begins}. From a to z the order is {{}}."
    code = f"words = '{' '.join(words)}'.split()\nprint(sorted(words))"
    asked = f"Sort from a to z: {', '.join(words)}."
    return Task("sort", asked, " ".join(order), "From a to z: {}.", long, code)


KINDS: tuple[Callable[[random.Random], Task], ...] = (
    _add,
    _subtract,
    _compare,
    _story,
    _units,
    _count,
    _reverse,
    _sort,
)


def tasks(seed: int) -> Iterator[Task]:
    """Yield different tasks without end, the kinds in turn; a kind that has none left is passed over."""
    rng, seen = random.Random(seed), set[str]()
    while True:
        for kind in KINDS:
            for _ in range(50):
                task = kind(rng)
                asked = task.question.partition(" ")[2]  # another name makes no other question
                if asked not in seen:
                    seen.add(asked)
                    yield task
                    break
