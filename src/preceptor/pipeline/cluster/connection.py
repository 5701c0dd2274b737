"""The cluster itself: connecting to one or starting one, what it has, and the actors on it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from preceptor.config.runtime import Runtime
from preceptor.errors import StudyError, require
from preceptor.pipeline.cluster.worker import Worker

_MOST_CORES = 8
_OBJECT_STORE_BYTES = 200 * 2**20
"""Texts on their way to actors are all that it holds."""


@dataclass
class Hand:
    """One actor, and the node that it runs on once it has said so."""

    actor: Any
    node: str | None = None


class Connection:
    """The Ray cluster that a runtime names, found or started when it is first used."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.hands: list[Hand] = []

    @cached_property
    def ray(self) -> Any:
        """The library, connected.

        Raises:
            MissingPackage: it is not installed.
            StudyError: no cluster answers at the address, or it cannot be used.
        """
        require("ray", purpose="executor = 'ray'")
        import ray

        if not ray.is_initialized():
            self._connect(ray)
        return ray

    def _connect(self, ray: Any) -> None:
        address = self.runtime.address
        quiet = {"log_to_driver": False, "configure_logging": False}
        if address != "local":
            try:
                ray.init(address=address, **quiet)
                return
            # An address that is none, another version there, a client that is not installed: Ray has no
            # class of its own for these.
            except (ConnectionError, ImportError, RuntimeError, ValueError) as error:
                if address != "auto" or not isinstance(error, ConnectionError):
                    raise StudyError(
                        f"No Ray cluster can be used at {address} ({error}). Start one with 'ray start "
                        "--head', or leave address out to have one started on this machine."
                    ) from error
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            address="local",
            num_cpus=self._own_cores(),
            num_gpus=None if self._on_gpu else 0,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            **quiet,
        )

    def _own_cores(self) -> int | None:
        """Return the cores of a cluster that is started here; None is all."""
        workers, cores = self.runtime.workers, self.runtime.worker_cores
        return max(workers * cores, os.cpu_count() or 1) if workers and cores else None

    @property
    def _on_gpu(self) -> bool:
        return self.runtime.resolved_device().startswith("cuda")

    @cached_property
    def need(self) -> Mapping[str, int]:
        """What one actor takes of a node. Ray gives all of it on one node, and shows it no other GPU."""
        most = max((int(one.get("CPU", 0)) for one in self._nodes()), default=1)
        cores = self.runtime.worker_cores or (1 if self._on_gpu else max(1, min(_MOST_CORES, most)))
        return {"CPU": cores, "GPU": (self.runtime.gpus or 1) if self._on_gpu else 0}

    def _nodes(self) -> list[Mapping[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    @cached_property
    def size(self) -> int:
        """How many actors there are to be.

        Raises:
            StudyError: no node has what one actor needs, or its GPUs would stand idle.
        """
        nodes, need = self._nodes(), self.need
        total = {name: sum(int(one.get(name, 0)) for one in nodes) for name in need}
        if total["GPU"] and not need["GPU"] and self.runtime.device == "auto":
            raise StudyError(
                f"The cluster has {total['GPU']} GPUs and this machine none, which decides the data type of "
                "auto: say where models run with device = 'cuda' (or 'cpu')."
            )
        room = sum(
            min(int(node.get(name, 0)) // much for name, much in need.items() if much)
            for node in nodes
        )
        if not room:
            raise StudyError(
                f"A worker needs {need['CPU']} CPU cores and {need['GPU']} GPUs of one node, and no node of "
                f"the cluster has them; together they have {total['CPU']} and {total['GPU']}. Change device, "
                "worker_cores or gpus."
            )
        return self.runtime.workers or room

    def hire(self) -> Hand:
        """Return a new actor, which Ray starts as soon as a node has room for it."""
        threads = {"OMP_NUM_THREADS": str(self.need["CPU"])}
        environment = dict(self.runtime.runtime_env)
        environment["env_vars"] = {**threads, **environment.get("env_vars", {})}
        kind = self.ray.remote(Worker).options(
            num_cpus=self.need["CPU"],
            num_gpus=self.need["GPU"],
            max_restarts=0,
            max_task_retries=0,
            runtime_env=environment,
        )
        hand = Hand(kind.remote(os.getcwd()))
        self.hands.append(hand)
        return hand

    def dismiss(self, hand: Hand) -> None:
        """Have an actor end at once."""
        self.ray.kill(hand.actor)
        self.hands.remove(hand)

    def is_alive(self, node: str | None) -> bool:
        """Whether a node is still there: what it takes along when it goes is nobody's fault."""
        return any(one["NodeID"] == node and one["Alive"] for one in self.ray.nodes())
