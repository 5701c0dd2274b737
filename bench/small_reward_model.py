"""A tiny reward model, trained for measurements with TRL on pairs made from rules.

Everything is real but small (a Qwen3 of two thin layers with a head of one label, a
tokenizer made from the training pairs, TRL's RewardTrainer, a saved folder), so that what reads reward
models can be tested against one whose preferences are known. Bradley-Terry loss: only differences of
rewards mean anything.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import make_preference_pairs as pair_maker

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PAIRS = {"on_topic": 1600, "finished": 500, "fluent": 500, "repeated": 600}
"""Most of the kind that cannot be judged without the question: it is learnt last."""

SPECIAL = ("<|pad|>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class Recipe:
    """What a model is trained on, how big it is and how long it is trained."""

    pairs: Mapping[str, int] = field(default_factory=lambda: PAIRS)
    hidden: int = 64
    layers: int = 2
    steps: int = 200
    batch_size: int = 32
    learning_rate: float = 4e-3
    seed: int = 0


def build_tokenizer(texts: Sequence[str]) -> Any:
    """Return a byte-level BPE tokenizer with single digits, ChatML and a padding token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    pad, _, end = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, eos_token=end, chat_template=CHATML
    )


def build_model(tokenizer: Any, recipe: Recipe) -> Any:
    """Return an untrained Qwen3 with a reward head, the same weights for a seed."""
    import torch
    from transformers import Qwen3Config, Qwen3ForSequenceClassification

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=3 * recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=recipe.hidden // 4,
        max_position_embeddings=512,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return Qwen3ForSequenceClassification(config).float().eval()


def conversation(instruction: str, answer: str) -> list[dict[str, str]]:
    """Return the two turns that a reward model reads."""
    return [
        {"role": "user", "content": instruction},
        {"role": "assistant", "content": answer},
    ]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No progress bars and no message to TRL's makers while training."""
    import datasets
    from huggingface_hub import constants

    told, bars = constants.HF_HUB_DISABLE_TELEMETRY, datasets.are_progress_bars_disabled()
    constants.HF_HUB_DISABLE_TELEMETRY = True
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = told
        if not bars:
            datasets.enable_progress_bars()


def training_settings(folder: Path, recipe: Recipe) -> Any:
    """Return TRL's settings for a small float32 training on the CPU that keeps no checkpoints."""
    from trl import RewardConfig

    return RewardConfig(
        output_dir=str(folder),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.steps // 10,
        lr_scheduler_type="cosine",
        # Without it rewards drift by any constant; the shift is what Bradley-Terry leaves open.
        center_rewards_coefficient=0.01,
        max_length=512,
        seed=recipe.seed,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def train(model: Any, tokenizer: Any, pairs: Sequence[Any], *, settings: Any) -> None:
    """Train the model in place on the pairs, as conversations."""
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl import RewardTrainer

    rows = [
        {
            "chosen": conversation(pair.instruction, pair.chosen),
            "rejected": conversation(pair.instruction, pair.rejected),
        }
        for pair in pairs
    ]
    with quiet_libraries():
        trainer = RewardTrainer(
            model=model,
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        # It prints the last log to standard output, where measurements print JSON.
        trainer.remove_callback(PrinterCallback)
        # Pairs longer than max_length would be left out without a word.
        assert len(trainer.train_dataset) == len(pairs)
        trainer.train()
    model.eval()


def rewards(model: Any, tokenizer: Any, pairs: Sequence[Any]) -> NDArray[np.float64]:
    """Return the rewards of chosen and rejected answers, (pairs, 2), by plain calls of the model."""
    import torch

    texts = [
        conversation(pair.instruction, answer)
        for pair in pairs
        for answer in (pair.chosen, pair.rejected)
    ]
    found = []
    with torch.inference_mode():
        for start in range(0, len(texts), 32):
            batch = tokenizer.apply_chat_template(
                texts[start : start + 32],
                padding=True,
                padding_side="right",
                return_tensors="pt",
                return_dict=True,
            )
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            found.append(model(**inputs).logits[:, 0].double().numpy())
    return np.concatenate(found).reshape(-1, 2)


def preferred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1.0 where the chosen answer has the higher reward, 0.5 for a tie, else 0.0: (pairs,)."""
    return (1 + np.sign(values[:, 0] - values[:, 1])) / 2


def train_reward_model(folder: Path, recipe: Recipe) -> Path:
    """Train a reward model from nothing and save it with its tokenizer as a folder."""
    pairs = pair_maker.make_pairs(pair_maker.TRAIN, recipe.pairs, seed=recipe.seed)
    texts = [text for pair in pairs for text in (pair.instruction, pair.chosen, pair.rejected)]
    tokenizer = build_tokenizer(texts)
    model = build_model(tokenizer, recipe)
    train(model, tokenizer, pairs, settings=training_settings(folder, recipe))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
