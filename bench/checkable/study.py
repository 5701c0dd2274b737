"""The study files of the closed loop: TOML, whose strings, numbers and arrays are JSON's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METRICS = (
    "car",
    "reward",
    "loss",
    "likelihood",
    "information",
    "rsr",
    "length",
    "brier",
    "rank_1",
    "lark_rho",
    "scas",
    "aslec_drop",
)
"""Directions are those that the metrics' classes declare."""


@dataclass(frozen=True)
class Design:
    """What is trained and asked; `max_tokens` are those of an answer."""

    rows: int = 400
    questions: int = 300
    epochs: int = 1
    batch_size: int = 4
    learning_rate: float = 3e-4
    max_tokens: int = 64
    seeds: int = 1
    seed: int = 0

    def train(self, **more: Any) -> dict[str, Any]:
        """Return the table `[train]`: adapters, since they cost a third less here than all weights."""
        return {
            "rows": self.rows,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "per_device_batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "warmup_ratio": 0.05,
            "max_length": 256,
            "save_steps": 25,
            "gradient_checkpointing": False,
            "seeds": self.seeds,
            "seed": self.seed,
            "lora": {"rank": 16},
            **more,
        }


def write_study(path: Path, files: Sequence[Path], students: Sequence[str], **more: Any) -> Path:
    """Write a study of these teachers and students; `more` are its further tables."""
    tables = {
        "metrics": list(METRICS),
        "by": "car",
        "data": {"responses": [str(file) for file in files]},
        "students": [
            {"model": model, "chat_template": "plain", "max_length": 256} for model in students
        ],
        "reward": {"kind": "reference"},
        "runtime": {"device": "cpu", "batch_size": 50, "store": str(path.parent / "store")},
        **more,
    }
    path.write_text("\n".join(_lines("", tables)) + "\n", encoding="utf-8")
    return path


def _lines(name: str, table: Mapping[str, Any]) -> list[str]:
    """Return a table's plain fields, then the tables in it."""
    found = [f"[{name}]"] if name else []
    inner = {}
    for key, value in table.items():
        if isinstance(value, dict) or (isinstance(value, list) and isinstance(value[0], dict)):
            inner[f"{name}.{key}" if name else key] = value
        else:
            found.append(f"{key} = {json.dumps(value)}")
    for key, value in inner.items():
        if isinstance(value, dict):
            found += _lines(key, value)
        else:
            found += [line for one in value for line in (f"[[{key}]]", *_lines("", one))]
    return found
