"""The engines that measure likelihoods, by the name that `Student.engine` chooses.

A further one is a class that keeps to `Likelihood`: here by its name, or in another package by an entry point
of the group `preceptor.likelihood_engines`. A class is imported when its name is asked for; PyTorch and other
large libraries belong into its methods, because what an engine gives is asked when a run is planned.
"""

from preceptor.config.plugins import Registry
from preceptor.engines.base import Likelihood

LIKELIHOOD_ENGINES: Registry[type[Likelihood]] = Registry(
    "likelihood_engines",
    "likelihood engine",
    {
        "transformers": "preceptor.engines.packed.likelihood:TransformersLikelihood",
        "vllm": "preceptor.engines.vllm_likelihood:VllmLikelihood",
        "served": "preceptor.engines.served_likelihood:ServedLikelihood",
        "echo": "preceptor.engines.served_likelihood:EchoLikelihood",
    },
)
