"""Where the paper disagrees with itself, as data.

The one idea: the tables hold what is printed, so whoever uses a number can look here for what is wrong or
ambiguous about it. Errata of numbers are held to the checks in both directions (`checks.faults`); those of
definitions and wording are judgements, each with its reason. They stand in `errata.toml` beside this module.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["inconsistent", "rounded inputs", "half digit", "definition", "wording"]


@dataclass(frozen=True)
class Erratum:
    """One place where the paper disagrees with itself.

    `kind` is "inconsistent" (no rounding explains it), "rounded inputs" (rounding can), "half digit" (the
    recomputed number lies exactly between two, either is right), "definition" (a number is not what the
    text calls it) or "wording". `row` and `column` are as printed; a row of text names its section. `printed`
    and `recomputed` are text, with every digit.
    """

    kind: Kind
    table: int
    row: str
    column: str
    printed: str
    recomputed: str
    explanation: str


ERRATA: tuple[Erratum, ...] = tuple(
    Erratum(**fields)
    for fields in tomllib.loads(
        Path(__file__).with_name("errata.toml").read_text(encoding="utf-8")
    )["erratum"]
)
"""Every erratum: contradictions first, then definitions and wording, then rounding."""
