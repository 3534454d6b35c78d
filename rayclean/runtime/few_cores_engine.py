"""vLLM's engine on a machine with few cores and no GPU: its scheduler computes the network itself.

By default vLLM starts a process for its scheduler and, after it, one for the network. Each imports vLLM, for some 10 s of
the start and half a gigabyte; while the network computes, the scheduler spins on a core that the network needs. Ray Serve LLM
allows no other executor on CPUs, so the class of the engine is exchanged, by the environment variable that it has for that.
"""

import os
from typing import Any

from rayclean.runtime.threads import physical_threads

from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine  # no public name in Ray 2.60

FEW_CORES = 4
"""Cores up to which the scheduler computes. On more of them vLLM binds the network's threads to cores, for which it needs the
process."""


class FewCoresEngine(VLLMEngine):
    """Ray Serve LLM's engine, with one process instead of two where a machine has few cores."""

    def _start_async_llm_engine(self, engine_args: Any, engine_config: Any, placement_group: Any) -> Any:
        """Start the engine, whose processes inherit the environment."""
        parallel = engine_config.parallel_config
        if parallel.world_size == 1 and (cores := physical_threads()) <= FEW_CORES:
            parallel.distributed_executor_backend = "uni"
            # Ray has set it to the CPUs of the replica's own process.
            os.environ["OMP_NUM_THREADS"] = str(cores)
        return super()._start_async_llm_engine(engine_args, engine_config, placement_group)
