"""Write answers with vLLM in this process: many at once, each handed over as it finishes.

vLLM gets token ids and every setting from us. Its own reading of chat templates and of the
model's generation config is left out, so that a teacher is asked here as it is anywhere else. Its sums
depend on what shares a batch, so sampled answers are repeated in distribution and not letter by letter.
"""

import gc
import json
import logging
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np

from preceptor.engines.base import ChatRequest, Completion, Failure, Finished
from preceptor.engines.encoder import Encoder
from preceptor.engines.generation import ending_tokens, first_stop, prompt_of, stream_seed
from preceptor.engines.models import LocatedModel
from preceptor.errors import ModelError, require

logger = logging.getLogger(__name__)


class VllmChat:
    """The located model run by vLLM in `dtype`, answering in `encoder`'s template.

    The weights are split over `gpus` devices (`tensor_parallel_size`), of each of which vLLM takes the share
    `memory_share` of the memory.
    Prompt and answer together have at most the encoder's `max_length` tokens. Temperature 0 is greedy;
    above it vLLM's own streams are seeded by (seed, digest of the messages, number of the answer), and
    seed None is fresh each time. `alternatives` and `choices` of a request are not used. The model is
    loaded at the first request.

    Raises:
        MissingPackage: vllm is not installed.
    """

    def __init__(
        self,
        located: LocatedModel,
        *,
        encoder: Encoder,
        dtype: str,
        gpus: int = 1,
        memory_share: float = 0.9,
    ) -> None:
        require("vllm", purpose="Running a model with vLLM")
        self.located = located
        self.encoder = encoder
        self.dtype = dtype
        self.gpus = gpus
        self.memory_share = memory_share
        self.ends = ending_tokens(_own_ends(located), encoder)

    @cached_property
    def _engine(self) -> Any:
        model = load_vllm(
            self.located,
            dtype=self.dtype,
            max_model_len=self.encoder.max_length,
            tensor_parallel_size=self.gpus,
            gpu_memory_utilization=self.memory_share,
        )
        return model.llm_engine

    def release(self) -> None:
        """Free the GPU's memory; the model is loaded again where it is needed again."""
        engine = self.__dict__.pop("_engine", None)
        if engine is None:
            return
        import torch

        engine.engine_core.shutdown()
        del engine
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def complete(self, request: ChatRequest) -> Completion | Failure:
        """Return the answer to one request, or why there is none."""
        return next(self.complete_all([request])).outcome

    def complete_all(self, requests: Iterable[ChatRequest]) -> Generator[Finished, None, None]:
        """Yield every request's outcome once, refusals first, each of the others as it finishes.

        A prompt that leaves no room within `max_length` is refused; one that leaves less than `max_tokens`
        gets what fits. Closing the generator early ends the requests under way.

        Raises:
            ModelError: vLLM cannot load the model.
        """
        requests = list(requests)
        prompts: dict[int, tuple[int, ...]] = {}
        for index, request in enumerate(requests):
            found = prompt_of(self.encoder, request)
            if isinstance(found, Failure):
                yield Finished(index, found)
            else:
                prompts[index] = found
        running: set[str] = set()
        try:
            for index, prompt in prompts.items():
                running |= self._add(index, requests[index], prompt)
            parts: dict[int, dict[int, Completion | Failure]] = {index: {} for index in prompts}
            for name, output in self._finished_of(running):
                index, number = map(int, name.split("-"))
                parts[index][number] = self._read(requests[index], output)
                if len(parts[index]) == requests[index].count:
                    yield Finished(index, _joined(parts.pop(index)))
        finally:
            if running:
                self._engine.abort_request(sorted(running))

    def _add(self, index: int, request: ChatRequest, prompt: tuple[int, ...]) -> set[str]:
        """Hand a request to vLLM, one for each answer wanted; return their names."""
        vllm: Any = import_module("vllm")
        final: Any = import_module("vllm.sampling_params").RequestOutputKind.FINAL_ONLY
        names = [f"{index}-{number}" for number in range(request.count)]
        room = self.encoder.max_length - len(prompt)
        for number, name in enumerate(names):
            settings = sampling_settings(request, number, room=room, ends=self.ends)
            self._engine.add_request(
                name,
                {"type": "token", "prompt_token_ids": list(prompt)},
                vllm.SamplingParams(output_kind=final, **settings),
            )
        return set(names)

    def _finished_of(self, running: set[str]) -> Iterator[tuple[str, Any]]:
        """Yield name and output of each answer as it finishes, and take it out of those running."""
        while running:
            for output in self._engine.step():
                if output.finished and output.request_id in running:
                    running.remove(output.request_id)
                    yield output.request_id, output

    def _read(self, request: ChatRequest, output: Any) -> Completion | Failure:
        answer = output.outputs[0]
        if answer.finish_reason not in ("stop", "length"):
            return Failure("server error", f"vLLM ended the answer with: {answer.finish_reason}")
        # Where one token completes two of the stop texts, vLLM need not cut at the earlier.
        text = answer.text[: first_stop(answer.text, request.stop)]
        ended = bool(answer.token_ids) and answer.token_ids[-1] in self.ends
        return Completion(
            text,
            answer.finish_reason,
            tokens=len(answer.token_ids) - ended,
            prompt_tokens=len(output.prompt_token_ids),
        )


def load_vllm(located: LocatedModel, **settings: Any) -> Any:
    """Return a `vllm.LLM` that follows no settings of the model's own; ModelError where it cannot."""
    # It logs to stdout unless told before it is imported, which is where results go.
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    vllm: Any = import_module("vllm")
    try:
        return vllm.LLM(
            model=located.source,
            tokenizer=str(located.folder),
            revision=located.revision,
            trust_remote_code=False,
            generation_config="vllm",
            **settings,
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ModelError(f"vLLM cannot load '{located.name}': {error}") from error


def sampling_settings(
    request: ChatRequest, number: int, *, room: int, ends: frozenset[int]
) -> Mapping[str, Any]:
    """Return the keywords of vLLM's SamplingParams for answer `number` to a request.

    `room` is how many tokens the prompt leaves. Every answer is a request of its own: vLLM's `n` would
    seed them by their sum with the seed, so that neighbouring seeds share answers.
    """
    seed = stream_seed(request, number)
    return {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": min(request.max_tokens, room),
        "stop": [stop for stop in request.stop if stop],
        "stop_token_ids": sorted(ends),
        "seed": None if seed is None else int(np.random.default_rng(seed).integers(2**31)),
        "skip_special_tokens": True,
        "spaces_between_special_tokens": False,
    }


def _own_ends(located: LocatedModel) -> list[int]:
    """Return the ending tokens that the model's files name."""
    ends: list[int] = []
    for name in ("generation_config.json", "config.json"):
        path = located.folder / name
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            ends.extend(found if isinstance(found, list) else [found])
    return [end for end in ends if isinstance(end, int)]


def _joined(parts: Mapping[int, Completion | Failure]) -> Completion | Failure:
    """Return the answers to one request as one outcome, in their order."""
    answers = []
    for _, part in sorted(parts.items()):
        if isinstance(part, Failure):
            return part
        answers.append(part)
    first = answers[0]
    return Completion(
        first.text,
        first.finish_reason,
        tokens=first.tokens,
        prompt_tokens=first.prompt_tokens,
        others=tuple(answers[1:]),
    )
