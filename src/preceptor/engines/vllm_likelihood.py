"""Likelihoods with vLLM in this process: loss and rank of given tokens, over one GPU or several.

vLLM reads prompts in chunks and forms, for each token of a chunk, numbers over the whole vocabulary; chunks
are such that these take at most two gigabytes. A token's rank counts the tokens at least as likely.
"""

import gc
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, Self

import numpy as np

from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.engines.base import NOTHING, Extra, Measured, Numbers, TokenizedPair
from preceptor.engines.models import LocatedModel, context_length, vocabulary_of
from preceptor.engines.vllm import load_vllm
from preceptor.errors import require
from preceptor.types import NoteKind

_CHUNK_BYTES = 2 * 10**9
_UNKNOWN_VOCABULARY = 256_000
_BYTES_PER_ENTRY = 12  # logits, their logarithms of probabilities and a comparison, in float32
_LEAST_CHUNK, _MOST_CHUNK = 256, 8192
_AT_ONCE = 256
"""Pairs that are handed over, and stored, together."""
_TOKENS_AT_ONCE = 2**19
"""Tokens that are: vLLM gives an object of about 400 bytes for each."""


class VllmLikelihood:
    """Loss and rank from the `prompt_logprobs` of a loaded `vllm.LLM`."""

    measures: ClassVar[tuple[str, ...]] = ("nll", "rank")
    takes_device = True

    @staticmethod
    def preflight(_student: Student, _runtime: Runtime) -> None:
        """Check that vllm is installed; MissingPackage otherwise."""
        require("vllm", purpose="A student run by vLLM")

    @classmethod
    def load(cls, located: LocatedModel, student: Student, runtime: Runtime) -> Self:
        """Return the engine, spread over `runtime.gpus` devices.

        Raises:
            MissingPackage: vllm is not installed.
            ModelError: vLLM cannot load the model.
        """
        cls.preflight(student, runtime)
        lengths = [one for one in (student.max_length, context_length(located)) if one]
        model = load_vllm(
            located,
            dtype=runtime.resolved_dtype(student.dtype),
            max_model_len=min(lengths, default=None),
            tensor_parallel_size=runtime.gpus or 1,
            max_num_batched_tokens=runtime.max_batch_tokens or chunk_tokens(located),
            enable_chunked_prefill=True,
            enable_prefix_caching=False,  # what is cached has no log-probabilities
        )
        return cls(model)

    def __init__(self, model: Any) -> None:
        self._model = model

    @staticmethod
    def memory_note(located: LocatedModel, runtime: Runtime) -> str:
        """Say what bounds the memory of log-probabilities, for plans."""
        chunk = runtime.max_batch_tokens or chunk_tokens(located)
        size = chunk * bytes_of_token(located) / 1e9
        return f"log-probabilities of {chunk:,} tokens at a time, up to {size:.1f} GB"

    def measure(
        self, pairs: Sequence[TokenizedPair], extra: Extra = NOTHING
    ) -> Iterator[list[Measured]]:
        """Yield every pair's columns once; a pair that leaves vLLM no room has a note."""
        vllm: Any = import_module("vllm")
        wanted = vllm.SamplingParams(
            max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False
        )
        # One token is always answered, and needs a place.
        most = self._model.llm_engine.model_config.max_model_len - 1
        fits = [i for i, pair in enumerate(pairs) if len(pair.prompt) + len(pair.response) <= most]
        unfit = sorted(set(range(len(pairs))) - set(fits))
        if unfit:
            note = NoteKind.NO_ROOM.note("for the token that vLLM always answers")
            yield [Measured(index, _nothing(pairs[index]), note=note) for index in unfit]
        for part in _parts(pairs, fits):
            prompts = [{"prompt_token_ids": [*pairs[i].prompt, *pairs[i].response]} for i in part]
            outputs = self._model.generate(prompts, wanted, use_tqdm=False)
            yield [
                Measured(index, _columns(pairs[index], output.prompt_logprobs))
                for index, output in zip(part, outputs, strict=True)
            ]

    def release(self) -> None:
        """Free the GPUs' memory."""
        model, self._model = self._model, None
        model.llm_engine.engine_core.shutdown()
        del model
        gc.collect()


def _parts(pairs: Sequence[TokenizedPair], places: Sequence[int]) -> Iterator[list[int]]:
    """Cut the places of pairs into parts that are handed over together."""
    part: list[int] = []
    tokens = 0
    for place in places:
        length = len(pairs[place].prompt) + len(pairs[place].response)
        if part and (len(part) == _AT_ONCE or tokens + length > _TOKENS_AT_ONCE):
            yield part
            part, tokens = [], 0
        part.append(place)
        tokens += length
    if part:
        yield part


def chunk_tokens(located: LocatedModel) -> int:
    """Return the tokens of a chunk, a power of two."""
    fitting = _CHUNK_BYTES // bytes_of_token(located)
    power = 1 << max(0, int(fitting).bit_length() - 1)
    return min(_MOST_CHUNK, max(_LEAST_CHUNK, power))


def bytes_of_token(located: LocatedModel) -> int:
    """Return the bytes that vLLM takes for the log-probabilities of one token of a chunk."""
    return (vocabulary_of(located) or _UNKNOWN_VOCABULARY) * _BYTES_PER_ENTRY


def _columns(
    pair: TokenizedPair, entries: Sequence[Mapping[int, Any] | None]
) -> dict[str, Numbers]:
    first = len(pair.prompt)
    found = [
        (entry or {})[token] for token, entry in zip(pair.response, entries[first:], strict=True)
    ]
    # Not max(0.0, ...), which makes a zero of NaN.
    nll = np.maximum(0, -np.array([one.logprob for one in found], np.float32))
    ranks = np.array([one.rank for one in found], np.float32)
    return {"nll": nll, "rank": np.where(np.isnan(nll), np.float32(np.nan), ranks)}


def _nothing(pair: TokenizedPair) -> dict[str, Numbers]:
    return dict.fromkeys(VllmLikelihood.measures, np.full(len(pair.response), np.nan, np.float32))
