"""The layouts of exported data: what a row looks like, and how training tools read it.

A layout is one short function from a conversation and a response to the columns that hold them; who wrote
the response and what was measured of it stand beside them in every layout.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from preceptor.errors import DataError, require
from preceptor.types import Instruction, Message

Row = dict[str, Any]
Shape = Callable[[Sequence[Message], str], Row]
"""Gives a conversation and a response their columns, or raises `Unfit`."""

_SHAREGPT_ROLES = {
    **{"system": "system", "developer": "system"},
    **{"user": "human", "assistant": "gpt"},
}

KINDS = {
    "messages": "role_content",
    "conversations": "from_value",
    "instruction": "string",
    "input": "string",
    "output": "string",
    "system": "string",
    "history": "string_pairs",
    "prompt": "role_content",
    "chosen": "role_content",
    "rejected": "role_content",
    "teacher": "string",
    "sample": "int64",
    "chosen_teacher": "string",
    "rejected_teacher": "string",
}
"""Every column a layout can have, in order, and its kind; those of numbers follow."""

EMPTY_TEXT = "empty response"
CALLS = "calls of tools, which no layout holds"
OTHER_TURNS = "other turns before the two responses"
"""Why a pair is none where instructions are matched by something else than their content."""


def features(columns: Mapping[str, str]) -> Any:
    """Return the `datasets.Features` of columns by their kind, which also give Parquet its schema."""
    require("datasets", purpose="An export")
    from datasets import Features, Value

    text = Value("string")
    listed = {
        "role_content": [{"role": text, "content": text}],
        "from_value": [{"from": text, "value": text}],
        "string_pairs": [[text]],
    }
    return Features({name: listed.get(kind) or Value(kind) for name, kind in columns.items()})


@dataclass(frozen=True)
class Example:
    """One chosen response, and what was measured of it (reward, loss, car, tokens, ...)."""

    instruction: Instruction
    text: str
    teacher: str
    sample: int = 0
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    tool_calls: str = ""


@dataclass(frozen=True)
class Pair:
    """A better and a worse response to one instruction, for preference tuning.

    `alike` says that the same turns stand before both.
    """

    instruction: Instruction
    chosen: str
    rejected: str
    chosen_teacher: str
    rejected_teacher: str
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    alike: bool = True
    tool_calls: str = ""


class Unfit(Exception):
    """Why a layout cannot hold a conversation; counted, never a crash."""


class Entry(NamedTuple):
    """A row, and the teacher whose text it holds by what that counts under (rows, chosen, ...)."""

    row: Row
    teachers: Mapping[str, str]


def example_entry(example: Example, shape: Shape) -> Entry | str:
    """Return the row of an example, or why there is none.

    Raises:
        DataError: a number is named as a column of a layout.
    """
    if example.tool_calls or example.instruction.calls:
        return CALLS
    if not example.text.strip():
        return EMPTY_TEXT
    try:
        row = shape(example.instruction.messages, example.text)
    except Unfit as reason:
        return str(reason)
    row |= {"teacher": example.teacher, "sample": int(example.sample), **_numbers(example.numbers)}
    return Entry(row, {"rows": example.teacher})


def pair_entry(pair: Pair) -> Entry | str:
    """Return the row of a pair, or why there is none.

    Raises:
        DataError: a number is named as a column of a layout.
    """
    if pair.tool_calls or pair.instruction.calls:
        return CALLS
    if not pair.alike:
        return OTHER_TURNS
    if not pair.chosen.strip() or not pair.rejected.strip():
        return EMPTY_TEXT
    if pair.chosen == pair.rejected:
        return "same text twice"
    row = {
        "prompt": [turn.as_dict() for turn in pair.instruction.messages],
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
        "chosen_teacher": pair.chosen_teacher,
        "rejected_teacher": pair.rejected_teacher,
        **_numbers(pair.numbers),
    }
    return Entry(row, {"chosen": pair.chosen_teacher, "rejected": pair.rejected_teacher})


def _numbers(numbers: Mapping[str, float | None]) -> dict[str, float | None]:
    taken = [name for name in numbers if name in KINDS]
    if taken:
        raise DataError(f"A number is named '{taken[0]}', as a column of the data. Rename it.")
    return {
        name: None if value is None or not math.isfinite(value) else float(value)
        for name, value in numbers.items()
    }


def _messages(turns: Sequence[Message], text: str) -> Row:
    return {"messages": [turn.as_dict() for turn in (*turns, Message("assistant", text))]}


def _sharegpt(turns: Sequence[Message], text: str) -> Row:
    messages = (*turns, Message("assistant", text))
    return {
        "conversations": [
            {"from": _SHAREGPT_ROLES[turn.role], "value": turn.content} for turn in messages
        ]
    }


def _alpaca(turns: Sequence[Message], text: str) -> Row:
    """Return the row that LLaMA-Factory's data/README.md documents; earlier turns are `history`."""
    system, turns = (turns[0].content, turns[1:]) if turns[0].role == "system" else ("", turns)
    if [turn.role for turn in turns] != ["user", *["assistant", "user"] * (len(turns) // 2)]:
        raise Unfit("turns that do not alternate")
    row: Row = {"instruction": turns[-1].content, "input": "", "output": text}
    if system.strip():
        row["system"] = system
    if len(turns) > 1:
        messages = [turn.content for turn in turns[:-1]]
        row["history"] = [list(pair) for pair in zip(messages[::2], messages[1::2], strict=True)]
    return row


SHAPES: Mapping[str, Shape] = {
    "messages": _messages,
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
}
"""The layouts of single responses by name."""


_LOAD = 'rows = load_dataset("path/of/this/folder", split="train")'
_SFT_TURNS = "rows = rows.map(turns, remove_columns=rows.column_names)"
_SFT = ("from datasets import load_dataset", "from trl import SFTTrainer", "", _LOAD)
TRAINING: Mapping[str, tuple[str, ...]] = {
    "messages": (
        *_SFT,
        'turns = lambda row: {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}',
        _SFT_TURNS,
    ),
    "sharegpt": (
        *_SFT,
        'roles = {"system": "system", "human": "user", "gpt": "assistant"}',
        "def turns(row):",
        '    messages = [{"role": roles[t["from"]], "content": t["value"]} for t in row["conversations"]]',
        '    return {"prompt": messages[:-1], "completion": messages[-1:]}',
        _SFT_TURNS,
    ),
    "alpaca": (
        *_SFT,
        "def turns(row):",
        '    messages = [("system", row["system"])] if row.get("system") else []',
        '    for user, assistant in row.get("history") or []:',
        '        messages += [("user", user), ("assistant", assistant)]',
        '    messages += [("user", row["instruction"]), ("assistant", row["output"])]',
        '    messages = [{"role": role, "content": text} for role, text in messages]',
        '    return {"prompt": messages[:-1], "completion": messages[-1:]}',
        _SFT_TURNS,
    ),
    "pairs": (
        "from datasets import load_dataset",
        "from trl import DPOTrainer",
        "",
        _LOAD,
        'rows = rows.select_columns(["prompt", "chosen", "rejected"])',
    ),
}
"""Python that loads the rows of a layout for TRL, up to where the trainer is made."""

# LLaMA-Factory: data/README.md ("OpenAI Format", "Sharegpt Format", "Alpaca Format"); Axolotl:
# docs/dataset-formats/conversation.qmd ("chat_template") and inst_tune.qmd ("alpaca").
OTHER_TOOLS: Mapping[str, str] = {
    "messages": "Axolotl reads it with `type: chat_template`; LLaMA-Factory with `formatting: "
    "sharegpt`, the column `messages` and the tags of its OpenAI format.",
    "sharegpt": "Axolotl reads it with `type: chat_template`, `field_messages: conversations` and "
    "`message_property_mappings` of `role: from` and `content: value`; LLaMA-Factory with "
    "`formatting: sharegpt`.",
    "alpaca": "LLaMA-Factory reads it with `formatting: alpaca` (name the columns `system` and "
    "`history` in its `dataset_info.json` where they exist); Axolotl's `type: alpaca` reads "
    "neither of the two.",
    "pairs": "Prompt and answers are lists of messages: TRL's conversational preference format.",
}
"""How other tools read a layout, in Markdown."""
