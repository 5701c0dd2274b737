"""A model of a study that is run in this process: found at once, read and loaded only when it is needed."""

import logging
import pickle
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from preceptor.config.base import ModelTable
from preceptor.config.runtime import Runtime
from preceptor.config.student import Reading
from preceptor.engines.models import LocatedModel, context_length, locate
from preceptor.engines.templates import ChatTemplate, choose_template
from preceptor.errors import require

if TYPE_CHECKING:
    from preceptor.engines.encoder import Encoder

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

logger = logging.getLogger(__name__)

_UNKNOWN_CONTEXT = 4096

_ARRIVED: "WeakValueDictionary[tuple[type[LocalModel], bytes], LocalModel]" = WeakValueDictionary()


def _one_of(kind: "type[LocalModel]", state: bytes) -> "LocalModel":
    """Return the model of this process that came as this before, or a new one."""
    found = _ARRIVED.get((kind, state))
    if found is None:
        found = object.__new__(kind)
        found.__dict__.update(pickle.loads(state))
        _ARRIVED[kind, state] = found
    return found


class LocalModel:
    """The model that `table` names; `runtime` says where it runs, and what the data type `auto` means."""

    reading = Reading()
    """Which turns, and what of them, count as a response."""

    served = False
    """Whether another process runs it: no weights are loaded here, and `auto` is its data type."""

    def __init__(self, table: ModelTable, runtime: Runtime) -> None:
        self.asked = table
        self.runtime = runtime

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as what was asked for, with the data type; the copy finds and loads its own model.

        Where another process has the same model already, the copy is that one: it is loaded once.
        """
        own = vars(self).items()
        state = {
            k: v for k, v in own if not isinstance(getattr(type(self), k, None), cached_property)
        }
        state["dtype"] = self.dtype
        return _one_of, (type(self), pickle.dumps(state))

    @cached_property
    def located(self) -> LocatedModel:
        """Where the model lies, and its identity."""
        return locate(self.asked.model, revision=self.asked.revision)

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template its prompts are rendered with."""
        return choose_template(self.asked.chat_template, self.located.folder)

    @cached_property
    def max_length(self) -> int:
        """The bound on prompt and response together: as asked, or the model's context if shorter.

        4,096 where neither says it.
        """
        asked, context = self.asked.max_length, context_length(self.located)
        return min(asked or context or _UNKNOWN_CONTEXT, context or asked or _UNKNOWN_CONTEXT)

    def preflight(self) -> None:
        """Check that its tokenizer can be loaded; MissingPackage otherwise."""
        require("transformers", purpose=f"Running '{self.asked.model}' here")

    @cached_property
    def memory(self) -> int:
        """Bytes of its weights when it is loaded; 1 where unknown, 0 where it is served.

        What takes none is computed by the driver of a cluster: a model whose size the Hub does not tell, as
        without a network, must not be.
        """
        if self.served:
            return 0
        from preceptor.engines.pace import parameters_of

        return (parameters_of(self.located) or 0) * _BYTES.get(self.dtype, 4) or 1

    @cached_property
    def encoder(self) -> "Encoder":
        """The tokenizer under the template."""
        from preceptor.engines.encoder import Encoder
        from preceptor.engines.loading import load_tokenizer

        return Encoder(
            load_tokenizer(self.located),
            self.template,
            max_length=self.max_length,
            reading=self.reading,
        )

    @cached_property
    def dtype(self) -> str:
        """The data type of the computation; `auto` goes on in the one that the store's numbers have.

        A study that is moved from a CPU to a GPU would else pay for all of them again, and one run would be
        compared in float32 with another in bfloat16.
        """
        if self.served:
            return self.asked.dtype
        here = self.runtime.resolved_dtype(self.asked.dtype)
        stored = self._stored_dtypes() if self.asked.dtype == "auto" else set()
        if not stored or here in stored:
            return here
        found = min(stored)
        logger.warning(
            "%s runs in %s, as for the numbers in the store '%s'; its dtype 'auto' would be %s on this "
            "device. For that, give --dtype %s: all is computed again.",
            self.located.name,
            found,
            self.runtime.store,
            here,
            here,
        )
        return found

    def _stored_dtypes(self) -> set[str]:
        from preceptor.store.store import Store

        specs = (one.identity.spec for one in Store(self.runtime.store).partitions())
        return {
            str(spec["dtype"])
            for spec in specs
            if spec.get("dtype", "auto") != "auto"
            and spec.get("model") == dict(self.located.identity)
        }
