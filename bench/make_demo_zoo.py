"""Re-create the demo's real outputs: the answers of two small models to the demo's instructions.

All instructions go through a model as one batch, padded on the left, in float32 on
the CPU, from one seed, and what comes out is written unedited; so a skeptic with the same model
folders can make the texts again. The written teachers are not made here: they give the
instructions.

Usage:
    python bench/make_demo_zoo.py --smollm2 FOLDER --gemma FOLDER [--seed 0] [--only NAME]

The folders hold transformers checkpoints; src/preceptor/demo/README.md says how they are made from
GGUF files. Existing files of the same teachers are replaced.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_NEW_TOKENS = 200
INSTRUCTIONS_FROM = "written-explainer.jsonl"
STOP = "\n\nQuestion:"
"""Where a few-shot continuation ends: the base model would go on to invent the next question."""

EXAMPLES = (
    ("What is 6 + 8?", "6 + 8 = 14.\nAnswer: 14"),
    (
        "Which of these is a fruit?\nA) Carrot\nB) Onion\nC) Banana\nD) Cabbage\n"
        "Give the letter of the correct option.",
        "A banana is a fruit, and the others are vegetables. The answer is C.",
    ),
    ("What is the capital of Spain?", "The capital of Spain is Madrid."),
)
"""The few-shot prompt of the base model; none of them is an instruction of the demo."""


@dataclass(frozen=True)
class Recipe:
    """How one teacher answers: which folder, which prompt, greedy (None) or at a temperature."""

    name: str
    model: str
    chat: bool
    temperature: float | None


RECIPES = (
    Recipe("smollm2-135m-greedy", "smollm2", chat=True, temperature=None),
    Recipe("smollm2-135m-sampled", "smollm2", chat=True, temperature=1.0),
    Recipe("gemma-3-270m-fewshot", "gemma", chat=False, temperature=None),
)


def few_shot_prompt(instruction: str) -> str:
    """Return the plain prompt that shows a base model three answered questions, then this one."""
    shown = "\n\n".join(f"Question: {asked}\nReply:\n{reply}" for asked, reply in EXAMPLES)
    return f"{shown}\n\nQuestion: {instruction}\nReply:\n"


def prompt_texts(tokenizer: Any, recipe: Recipe, instructions: Sequence[str]) -> list[str]:
    """Return the prompts as text, each with exactly the BOS that its format has."""
    if not recipe.chat:
        return [tokenizer.bos_token + few_shot_prompt(text) for text in instructions]
    turns = [[{"role": "user", "content": text}] for text in instructions]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


def sampling_options(tokenizer: Any, recipe: Recipe) -> dict[str, Any]:
    """Return the arguments of `generate` that the recipe fixes."""
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": MAX_NEW_TOKENS}
    if recipe.temperature is not None:
        # top_k=0 switches off transformers' default cut at 50: temperature alone is at work.
        sampled = {"do_sample": True, "temperature": recipe.temperature, "top_k": 0, "top_p": 1.0}
        options.update(sampled)
    if not recipe.chat:
        options.update(stop_strings=[STOP], tokenizer=tokenizer)
    return options


def read_completion(tokenizer: Any, recipe: Recipe, produced: Any) -> tuple[str, str]:
    """Return the text of the produced ids [T], unedited, and why it ended ("stop" or "length")."""
    text = tokenizer.decode(produced, skip_special_tokens=True)
    ended = tokenizer.eos_token_id in produced.tolist()
    if not recipe.chat and STOP in text:
        text, ended = text.split(STOP, 1)[0], True
    return text, "stop" if ended else "length"


def make_teacher(
    recipe: Recipe, folder: Path, *, rows: Sequence[Mapping[str, Any]], zoo: Path, seed: int
) -> None:
    """Write one teacher's file, a row per instruction in the order of the written teachers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    texts = prompt_texts(tokenizer, recipe, [row["instruction"] for row in rows])
    batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    torch.manual_seed(seed)
    with torch.inference_mode():
        ids = model.generate(**batch, **sampling_options(tokenizer, recipe))
    with (zoo / f"{recipe.name}.jsonl").open("w", encoding="utf-8") as file:
        for row, produced in zip(rows, ids[:, batch["input_ids"].shape[1] :], strict=True):
            text, reason = read_completion(tokenizer, recipe, produced)
            made = {"output": text, "generator": recipe.name, "finish_reason": reason}
            file.write(json.dumps({**row, **made}, ensure_ascii=False) + "\n")


def main() -> None:
    """Parse the arguments and make the teachers asked for."""
    zoo = Path(__file__).parents[1] / "src" / "preceptor" / "demo" / "zoo"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smollm2", type=Path, required=True, help="SmolLM2-135M-Instruct folder")
    parser.add_argument("--gemma", type=Path, required=True, help="gemma-3-270m (base) folder")
    parser.add_argument("--zoo", type=Path, default=zoo, help="folder of the JSONL files")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampled teacher")
    parser.add_argument("--only", choices=[recipe.name for recipe in RECIPES], help="one teacher")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(asked.threads)
    with (zoo / INSTRUCTIONS_FROM).open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for recipe in RECIPES:
        if asked.only in (None, recipe.name):
            folder = getattr(asked, recipe.model)
            make_teacher(recipe, folder, rows=rows, zoo=asked.zoo, seed=asked.seed)
            print(f"wrote {recipe.name}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
