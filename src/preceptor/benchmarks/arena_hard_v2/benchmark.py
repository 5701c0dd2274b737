"""Arena-Hard v2.0: 500 hard prompts against o3-mini, and 250 of creative writing against Gemini 2.0 Flash.

The two are scored apart, as its leaderboard does, so each is a benchmark. Games and their weights are those
of v0.1; a prompt one of whose games has no verdict is left out whole. Scores are without style control, which
needs the answers' formatting. Source: `lmarena/arena-hard-auto`, `show_result.py` (April 2025).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from preceptor.benchmarks.arena_hard.benchmark import Games
from preceptor.benchmarks.arena_hard.score import Edition

_FOLDER = "data/arena-hard-v2.0"

HARD = Edition(
    name="arena_hard_v2",
    title="Arena-Hard v2.0",
    measure="AH2",
    folder=_FOLDER,
    prompts=500,
    baseline="o3-mini-2025-01-31",
    id_field="uid",
    category="hard_prompt",
)
"""The hard prompts."""

CREATIVE = Edition(
    name="arena_hard_v2_creative",
    title="Arena-Hard v2.0, creative writing",
    measure="AH2_creative",
    folder=_FOLDER,
    prompts=250,
    baseline="gemini-2.0-flash-001",
    id_field="uid",
    category="creative_writing",
)
"""The prompts of creative writing."""


@dataclass(frozen=True)
class ArenaHardV2(Games):
    """The hard prompts of v2.0 with any judge."""

    edition: ClassVar[Edition] = HARD
    name: ClassVar[str] = HARD.name
    title: ClassVar[str] = HARD.title
    measures: ClassVar[Mapping[str, str]] = {HARD.measure: "score"}
    facts: ClassVar[tuple[str, ...]] = ("AH2_published_low", "AH2_published_high")


@dataclass(frozen=True)
class ArenaHardV2Creative(Games):
    """Creative writing of v2.0 with any judge."""

    edition: ClassVar[Edition] = CREATIVE
    name: ClassVar[str] = CREATIVE.name
    title: ClassVar[str] = CREATIVE.title
    measures: ClassVar[Mapping[str, str]] = {CREATIVE.measure: "score"}
    facts: ClassVar[tuple[str, ...]] = ("AH2_creative_published_low", "AH2_creative_published_high")
