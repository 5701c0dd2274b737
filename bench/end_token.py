"""Whether a tuned base model ends its answers: the share of held-out prompts on which it stops by itself.

A base model without a chat template is tuned on whole short answers, then asked what it was not tuned on.
The untuned model under the same template stands beside it. At temperature 1 answers are drawn as the model
was taught to give them; a small model's likeliest answers (0) also run into repetitions that never end.

    python bench/end_token.py --model FOLDER --rows ../shared/data/zoo_judged/alpaca-7b.json --output DIR
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from preceptor.config.recipe import Lora, Recipe
from preceptor.config.runtime import Runtime
from preceptor.data.responses import ResponseSource
from preceptor.engines.base import ChatRequest, Completion
from preceptor.engines.encoder import Encoder
from preceptor.engines.generation import TransformersChat
from preceptor.engines.loading import load_model, load_tokenizer
from preceptor.engines.models import LocatedModel, locate
from preceptor.engines.templates import choose_template
from preceptor.finetuning.dataset import conversations_of
from preceptor.finetuning.finetune import fine_tune
from preceptor.types import Message

Row = tuple[Message, Message]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True, help="one teacher's responses, any known layout")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--longest", type=int, default=96, help="tokens of prompt and answer")
    parser.add_argument("--train", type=int, default=256)
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--temperature", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lora", action="store_true")
    given = parser.parse_args()
    student = locate(given.model)
    rows = short_rows(student, given)
    tuned_on, held_out = rows[: given.train], rows[given.train :][: given.held_out]
    recipe = Recipe(
        learning_rate=given.learning_rate,
        epochs=given.epochs,
        batch_size=given.batch,
        per_device_batch_size=given.batch,
        max_length=2 * given.longest,
        warmup_ratio=0.1,
        gradient_checkpointing=False,
        lora=Lora() if given.lora else None,
    )
    began = time.monotonic()
    tuned = fine_tune(
        student,
        conversations_of(tuned_on),
        recipe,
        output=given.output,
        runtime=Runtime(device="cpu"),
    )
    seconds = time.monotonic() - began
    found = {
        "model": given.model,
        "rows": len(tuned_on),
        "held_out": len(held_out),
        "max_tokens": given.max_tokens,
        "steps": tuned.steps,
        "training_seconds": round(seconds, 1),
        "first_loss": tuned.first_loss,
        "last_loss": tuned.last_loss,
        "untuned": stopped(student, held_out, given),
        "tuned": stopped(locate(str(given.output)), held_out, given),
    }
    print(json.dumps(found, indent=2))


def short_rows(student: LocatedModel, given: argparse.Namespace) -> list[Row]:
    """Return the rows whose prompt and whole answer are short, in the order of the file."""
    tokenizer: Any = load_tokenizer(student)
    rows = []
    for response in ResponseSource.open([given.rows]):
        text = response.text or ""
        tokens = len(tokenizer(response.instruction.text + text)["input_ids"])
        if text.strip() and tokens <= given.longest:
            rows.append((response.instruction.messages[-1], Message("assistant", text)))
    return rows


def stopped(model: LocatedModel, rows: list[Row], given: argparse.Namespace) -> dict[str, object]:
    """Return, for each temperature, the share of answers that ended by the end token, and the first."""
    encoder = Encoder(load_tokenizer(model), choose_template("auto", model.folder), max_length=2048)
    chat = TransformersChat(load_model(model, dtype="float32", device="cpu"), encoder, batch=20)
    found: dict[str, object] = {}
    for temperature in given.temperature:
        requests = [
            ChatRequest((prompt,), temperature=temperature, max_tokens=given.max_tokens, seed=seed)
            for seed, (prompt, _) in enumerate(rows)
        ]
        answers = {one.index: one.outcome for one in chat.complete_all(requests)}
        ended = [
            isinstance(one, Completion) and one.finish_reason == "stop" for one in answers.values()
        ]
        first = answers[0]
        found[f"temperature {temperature:g}"] = {
            "stopped": sum(ended),
            "share": sum(ended) / len(rows),
            "first_answer": first.text[:200] if isinstance(first, Completion) else str(first),
        }
    return found


if __name__ == "__main__":
    main()
