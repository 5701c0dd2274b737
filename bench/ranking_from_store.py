"""Time and memory of `preceptor rank` where every score is stored: 20 teachers x 100,000 instructions.

Responses are written as JSON Lines files and scores put straight into a store, all in a temporary
folder and by a process of its own; then the command runs twice as a user would run it. The first run reads
the files, twice: once for the response table, which is kept in a cache folder beside them, and once for the
words of 200 instructions' responses, which are stored. The second reads neither again. Seconds, memory and
whether both gave the same ranking are printed as one line of JSON for each. The limits are 60 s and 4 GB.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

import numpy as np

from preceptor.config.student import Student
from preceptor.scorers.length import LengthScorer
from preceptor.scorers.likelihood import LikelihoodScorer, StudentModel
from preceptor.store.store import ScorePartition, Store
from preceptor.types import Instruction, Score, response_key

LIMIT_SECONDS, LIMIT_BYTES = 60.0, 4e9
APPENDED_ROWS = 50_000
SEED = 7
WORDS = ("the", "sea", "is", "wide", "and", "deep", "while", "small", "boats", "sail", "home")


def save_student(folder: Path, *, width: int = 16, layers: int = 1) -> None:
    """Save a Llama, of a few thousand weights by default, with a tokenizer of whole words."""
    import tokenizers
    import torch
    import transformers

    torch.manual_seed(SEED)
    names = ["<unk>", "<bos>", "<eos>", *WORDS]
    entries = {word: place for place, word in enumerate(names)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(entries, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special)
    config = transformers.LlamaConfig(
        vocab_size=len(names),
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


def likelihoods(tokens: np.ndarray, rng: np.random.Generator) -> list[dict[str, float]]:
    """Return stored columns of the likelihood scorer for responses of these many tokens."""
    nll, rank, entropy = tokens * rng.lognormal(sigma=0.3, size=(3, len(tokens)))
    columns = (tokens, nll, rank, entropy, np.zeros(len(tokens)))
    names = ("tokens", "nll", "rank", "entropy", "truncated")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def write_part(
    file: TextIO,
    partitions: tuple[ScorePartition, ScorePartition],
    *,
    label: str,
    part: range,
    rng: np.random.Generator,
) -> None:
    """Write the rows of one teacher for some instructions, and store their scores."""
    tokens = rng.integers(5, 15, len(part))
    rewards = rng.normal(1.0, 0.5, len(part)).round(4).tolist()
    picked = rng.integers(0, len(WORDS), (len(part), 15))
    keys, lengths = [], []
    for place, number in enumerate(part):
        prompt = f"Question {number}: what is the number {number} good for?"
        text = " ".join([label, *(WORDS[word] for word in picked[place, : tokens[place]])])
        row = {"instruction": prompt, "output": text, "reward": rewards[place]}
        file.write(json.dumps(row) + "\n")
        keys.append(response_key(Instruction.from_text(prompt).given_id, text))
        lengths.append({"length": float(tokens[place]), "characters": float(len(text))})
    for partition, values in zip(partitions, (lengths, likelihoods(tokens, rng)), strict=True):
        partition.append([Score(key, value) for key, value in zip(keys, values, strict=True)])


def prepare(folder: Path, teachers: int, instructions: int) -> None:
    save_student(folder / "tiny")
    student = StudentModel(Student(model=str(folder / "tiny")))
    store = Store(folder / "store")
    partitions = (
        store.scores(LengthScorer().identity()),
        store.scores(LikelihoodScorer(student).identity()),
    )
    for teacher in range(teachers):
        rng = np.random.default_rng([SEED, teacher])
        with (folder / f"teacher-{teacher:02d}.jsonl").open("w") as file:
            for start in range(0, instructions, APPENDED_ROWS):
                part = range(start, min(start + APPENDED_ROWS, instructions))
                write_part(file, partitions, label=f"t{teacher}", part=part, rng=rng)


def rank(folder: Path, ranking: Path) -> dict[str, object]:
    """Run the command once; return its seconds, processor seconds, peak bytes and winner."""
    files = sorted(str(file) for file in folder.glob("teacher-*.jsonl"))
    command = [sys.executable, "-m", "preceptor", "rank", *files, "--student", str(folder / "tiny")]
    command += ["--reward-column", "reward", "--store", str(folder / "store"), "--device", "cpu"]
    command += ["--json", str(ranking)]
    own = {**os.environ, "PRECEPTOR_CACHE": str(folder / "cache")}
    began = time.perf_counter()
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=own)
        # Not RUSAGE_CHILDREN, which would also count the process that prepared.
        _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if os.waitstatus_to_exitcode(status):
        raise SystemExit((folder / "said.txt").read_text())
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    best = json.loads(ranking.read_text())[0]["teachers"][0]
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_megabytes": round(peak / 1e6),
        "within_limits": seconds < LIMIT_SECONDS and peak < LIMIT_BYTES,
        "compared": best["n"],
        "winner": best["teacher"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teachers", type=int, default=20)
    parser.add_argument("--instructions", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="keep the data here, and use what is there")
    parser.add_argument("--prepare", action="store_true", help="only write the data to --folder")
    given = parser.parse_args()
    if given.prepare:
        prepare(given.folder, given.teachers, given.instructions)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if not (folder / "tiny").exists():
            folder.mkdir(exist_ok=True)
            sizes = [f"--teachers={given.teachers}", f"--instructions={given.instructions}"]
            command = [sys.executable, __file__, "--prepare", f"--folder={folder}", *sizes]
            subprocess.run(command, check=True)
        rows = {"rows": given.teachers * given.instructions}
        first, second = folder / "first.json", folder / "second.json"
        print(json.dumps({**rows, "run": "first", **rank(folder, first)}), flush=True)
        found = {"run": "second", **rank(folder, second)}
        print(json.dumps({**rows, **found, "same": first.read_text() == second.read_text()}))


if __name__ == "__main__":
    main()
