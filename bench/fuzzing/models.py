"""The rooms of models: folders, chat templates and GGUF files that are damaged, hostile or another's."""

import json
import math
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from conftest import build_model, build_tokenizer
from fuzzing import mutate
from fuzzing.campaign import Wrong
from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.engines.base import ChatRequest
from preceptor.engines.generation import TransformersChat
from preceptor.engines.loading import load_model
from preceptor.engines.models import locate
from preceptor.engines.pace import parameters_of
from preceptor.engines.templates import FAMILY_TEMPLATES, ChatTemplate
from preceptor.scorers.likelihood import LikelihoodScorer, StudentModel
from preceptor.types import Instruction, Message, Response
from small_gguf import write_gguf

_KINDS = ("llama", "gpt2", "gemma2", "qwen3")
_JSONS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
)
_RESPONSES = [
    Response("t", Instruction.from_text("What is two plus two?"), "Two plus two is four."),
    Response(
        "t",
        Instruction((Message("system", "Be brief."), Message("user", "Write."))),
        "<|im_end|>\u732b sea",
    ),
]


def measured(folder: Path, store: Path) -> dict[bytes, tuple[float, float] | str]:
    """Return tokens and loss of each response under the model of a folder, or why there are none."""
    student = StudentModel(Student(model=str(folder)), Runtime(device="cpu", store=str(store)))
    found: dict[bytes, tuple[float, float] | str] = {}
    for batch in LikelihoodScorer(student).score(_RESPONSES):
        for score in batch:
            values: Any = score.values
            found[score.key] = score.note or (values["tokens"], values["nll"])
    for batch in LikelihoodScorer(student, "unconditional").score(_RESPONSES[:1]):
        for score in batch:
            if not score.note and not math.isfinite(float(score.values["nll"])):  # type: ignore[arg-type]
                raise Wrong(f"a loss that is no number: {score}")
    parameters_of(student.located)
    _compare(student, found)
    return found


def _compare(student: StudentModel, found: dict[bytes, tuple[float, float] | str]) -> None:
    """Check losses against transformers' own model of the same folder and the same tokens."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(student.located.folder, dtype=torch.float32).eval()
    for response in _RESPONSES:
        numbers = found[response.key]
        if isinstance(numbers, str):
            continue
        pair = student.encoder.encode(response.instruction.messages, response.text or "")
        with torch.inference_mode():
            logits = model(torch.tensor([pair.prompt + pair.response])).logits[0].double()
        logs = logits.log_softmax(-1)[len(pair.prompt) - 1 : -1]
        loss = -float(logs.gather(1, torch.tensor(pair.response)[:, None]).sum())
        if abs(loss - numbers[1]) > 1e-3 * max(1.0, abs(loss)):
            raise Wrong(f"a loss of {numbers[1]}, and {loss} by transformers itself")


class Folders:
    """A model's folder with one file changed: measured and asked, or refused."""

    count = 300

    def __init__(self, folder: Path) -> None:
        os.environ["PRECEPTOR_CACHE"] = str(folder / "cache")
        self.folder = folder
        tokenizer = build_tokenizer(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
        tokenizer.chat_template = FAMILY_TEMPLATES["chatml"]
        for kind in _KINDS:
            build_model(kind).save_pretrained(folder / kind)
            tokenizer.save_pretrained(folder / kind)
            (folder / kind / "special_tokens_map.json").write_text(
                '{"bos_token": {"content": "<bos>"}}'
            )

    def case(self, chance: Random, number: int) -> str:
        """Change a copy and use it."""
        folder = self.folder / "case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder / chance.choice(_KINDS), folder)
        change = chance.choice(
            (
                values,
                values,
                values,
                values,
                damaged,
                damaged,
                weights,
                weights,
                other_files,
                template,
            )
        )
        change(folder, chance)
        measured(folder, self.folder / "store")
        if chance.random() < 0.3:
            located = locate(str(folder))
            student = StudentModel(
                Student(model=str(folder)), Runtime(device="cpu", store=str(self.folder / "s"))
            )
            chat = TransformersChat(
                load_model(located, dtype="float32", device="cpu"), student.encoder
            )
            chat.complete(ChatRequest((Message("user", "Hi"),), max_tokens=4))
        return change.__name__


def _leaf(value: Any, chance: Random) -> tuple[Any, Any]:
    """Return a container within a JSON value, and a place in it."""
    inside = value
    while True:
        places = list(inside) if isinstance(inside, dict) else range(len(inside))
        place = chance.choice(places)
        if not isinstance(inside[place], dict | list) or not inside[place] or chance.random() < 0.2:
            return inside, place
        inside = inside[place]


def values(folder: Path, chance: Random) -> None:
    """Another value, or none, somewhere in one of the JSON files."""
    path = folder / chance.choice(_JSONS)
    held = json.loads(path.read_text())
    for _ in range(chance.randint(1, 2)):
        inside, place = _leaf(held, chance)
        if chance.random() < 0.2:
            del inside[place]
        else:
            inside[place] = (
                mutate.value(chance) if chance.random() < 0.6 else chance.choice(mutate.NUMBERS)
            )
        if not held:
            break
    path.write_bytes(mutate.dumped(held).encode("utf-8", "surrogatepass"))


def damaged(folder: Path, chance: Random) -> None:
    """Damaged bytes of any file, weights as well."""
    path = chance.choice(sorted(folder.iterdir()))
    data = path.read_bytes()
    how = chance.choice((*mutate.BREAKS, "changed"))
    path.write_bytes(
        mutate.damaged(data, chance) if how == "changed" else mutate.broken(data, how, chance)
    )


def weights(folder: Path, chance: Random) -> None:
    """Another header, other numbers, or an index of other files."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    match chance.randrange(5):
        case 0:
            inside, place = _leaf(header, chance)
            inside[place] = mutate.value(chance)
        case 1:
            name = chance.choice([one for one in header if one != "__metadata__"])
            header[name]["dtype"] = chance.choice(
                ("F16", "BF16", "I8", "F64", "BOOL", "F8_E4M3", "X")
            )
        case 2:
            place = chance.randrange(len(body) // 4) * 4
            body = (
                body[:place]
                + struct.pack("<f", chance.choice((math.nan, math.inf, 1e38, 0.0)))
                + body[place + 4 :]
            )
        case 3:
            size = chance.choice((0, 1, 2**63, 2**64 - 1, size + 1, 10**8))
        case _:
            target = chance.choice(
                ("../model.safetensors", "gone.safetensors", "/etc/passwd", "", "model.safetensors")
            )
            index = {
                "metadata": {},
                "weight_map": {name: target for name in header if name != "__metadata__"},
            }
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
            if chance.random() < 0.5:
                path.rename(folder / "model-00001-of-00001.safetensors")
                return
    raw = mutate.dumped(header).encode("utf-8", "surrogatepass")
    length = len(raw) if size < len(data) and size > 2 else size
    path.write_bytes(struct.pack("<Q", length) + raw + body)


def other_files(folder: Path, chance: Random) -> None:
    """Files that should not be there, or are something else."""
    name = chance.choice(
        (
            *_JSONS,
            "adapter_config.json",
            "added_tokens.json",
            "chat_template.json",
            "merges.txt",
            "vocab.json",
            "tokenizer.model",
            "processor_config.json",
            "modules.json",
        )
    )
    path = folder / name
    path.unlink(missing_ok=True)
    match chance.randrange(5):
        case 0:
            path.mkdir()
        case 1:
            path.symlink_to(path.name)
        case 2:
            path.write_bytes(mutate.dumped(mutate.value(chance)).encode("utf-8", "surrogatepass"))
        case 3:
            path.write_bytes(chance.choice((b"", b"\0" * 100, b"\xff\xfe", b"[" * 100_000)))
        case _:
            code = {
                "AutoConfig": "x.X",
                "AutoModelForCausalLM": "x.X",
                "AutoTokenizer": ["x.X", "x.X"],
            }
            path.write_text(
                json.dumps(
                    {"auto_map": code, "base_model_name_or_path": "a/b", "peft_type": "LORA"}
                )
            )
            (folder / "x.py").write_text("raise SystemExit(3)")


def template(folder: Path, chance: Random) -> None:
    """A chat template that is hostile."""
    (folder / "chat_template.jinja").write_bytes(
        hostile_template(chance).encode("utf-8", "surrogatepass")
    )


_EVIL = Path(__file__).with_name("templates.txt").read_text().splitlines()


def hostile_template(chance: Random) -> str:
    """Return a template of a family with something hostile in it, or with damaged text."""
    source = chance.choice(list(FAMILY_TEMPLATES.values()))
    if chance.random() < 0.6:
        cut = chance.randrange(len(source))
        cut = source.rfind("{%", 0, cut) if chance.random() < 0.7 else cut
        return source[: max(0, cut)] + chance.choice(_EVIL) + source[max(0, cut) :]
    if chance.random() < 0.1:
        return chance.choice(("{% if 1 %}", "{{ (", "{% for a in b %}")) * chance.choice(
            (10, 150, 5000)
        )
    return mutate.damaged(source.encode(), chance).decode("utf-8", "surrogateescape")


class Templates:
    """Chat templates that loop, grow, fail or look where they should not."""

    count = 200
    messages = (
        Message("system", "S \u732b"),
        Message("user", "U {{ 7 * 7 }}"),
        Message("assistant", "A"),
        Message("user", "V"),
    )

    def __init__(self, folder: Path) -> None:
        self.special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "", "unk_token": ""}

    def case(self, chance: Random, number: int) -> str:
        """Render conversations with one, as for an identity and for its ending."""
        given = ChatTemplate("own", hostile_template(chance), self.special)
        texts = [given.render(self.messages, generation=generation) for generation in (True, False)]
        given.identity()
        given.end_of_turn  # noqa: B018
        if any(
            len(text) > 30_000_000 or "<module" in text or "<built-in" in text for text in texts
        ):
            raise Wrong(f"rendered {texts[0][:300]!r} of {given.source[:300]!r}")
        if any("49" in text for text in texts) and "49" not in given.source:
            raise Wrong(f"what a message holds was carried out: {texts[0][:300]!r}")
        return "template"


class GgufFiles:
    """GGUF files with another header or other bytes, or cut: converted to what they hold, or refused."""

    count = 200

    def __init__(self, folder: Path) -> None:
        os.environ["PRECEPTOR_CACHE"] = str(folder / "cache")
        self.folder = folder
        tokenizer = build_tokenizer(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
        self.data = write_gguf(folder / "whole.gguf", tokenizer).read_bytes()
        self.known = self._weights(folder / "whole.gguf")
        self.header = self.data.index(b"output_norm.weight") + 64

    def case(self, chance: Random, number: int) -> str:
        """Convert a changed file; weights that were left alone are as they were."""
        path = self.folder / "case.gguf"
        kind: Callable[[Random], bytes] = chance.choice(
            (self.field, self.field, self.bytes_in_header, self.tensor, self.cut)
        )
        path.write_bytes(kind(chance))
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        try:
            found = self._weights(path)
        finally:
            left = [one.name for one in (self.folder / "cache" / "gguf").glob(".converting-*")]
            if left:
                raise Wrong(f"left behind: {left}")
        changed = [
            name for name, tensor in self.known.items() if not _same(found.get(name), tensor)
        ]
        if kind == self.tensor and len(changed) > 1:
            raise Wrong(f"one tensor was changed in the file, and {changed} in the model")
        measured(path, self.folder / "store")
        return kind.__name__

    def _weights(self, path: Path) -> dict[str, Any]:
        from safetensors.torch import load_file

        return load_file(locate(str(path)).folder / "model.safetensors")

    def field(self, chance: Random) -> bytes:
        """A number of the header: counts, lengths, types, sizes."""
        data = bytearray(self.data)
        place = chance.choice((4, 8, 16, chance.randrange(24, self.header)))
        width = chance.choice((4, 8))
        number = chance.choice(
            (0, 1, 2, 3, 8, 13, 255, 2**31, 2**32 - 1, 2**63, 2**64 - 1, chance.randrange(2**64))
        )
        data[place : place + width] = (number % 2 ** (8 * width)).to_bytes(width, "little")
        return bytes(data)

    def bytes_in_header(self, chance: Random) -> bytes:
        """Damaged bytes before the tensors."""
        return mutate.damaged(self.data[: self.header], chance, most=2) + self.data[self.header :]

    def tensor(self, chance: Random) -> bytes:
        """One byte of the weights."""
        place = chance.randrange(len(self.data) - 20_000, len(self.data))
        return (
            self.data[:place]
            + bytes([self.data[place] ^ (1 << chance.randrange(8))])
            + self.data[place + 1 :]
        )

    def cut(self, chance: Random) -> bytes:
        """A file that breaks off, or goes on."""
        return mutate.broken(
            self.data,
            chance.choice(("cut", "emptied", "longer", "without its start", "with zeros")),
            chance,
        )


def _same(one: Any, other: Any) -> bool:
    import torch

    return (
        one is not None
        and one.shape == other.shape
        and torch.equal(one.nan_to_num(), other.nan_to_num())
    )
