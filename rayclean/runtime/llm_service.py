"""A language model that stays, for many runs: what `serveConfigV2` of a RayService or `serve deploy` names.

    applications:
      - name: annotator
        import_path: rayclean.runtime.llm_service:app
        args: {model: smollm2-135m, server: {replicas: 2, gpu: true}}

Runs ask it with `annotator.name = "openai"`. It lists the model as `name@content`, like a model that a run
serves itself.
"""

from typing import Any

from rayclean.annotators.model_server import ServerOptions
from rayclean.annotators.model_source import model_name
from rayclean.plugins import Options
from rayclean.runtime import llm_app
from rayclean.runtime.cluster import gpu_count


class LlmService(Options):
    """Arguments of the application: those of the annotator `served` that say what is served and how."""

    model: str = "smollm2-135m"
    """Built-in name, Hugging Face folder, .gguf file or hub id."""
    revision: str | None = None
    """Hub ids only."""
    server: ServerOptions = ServerOptions()


def app(args: LlmService) -> Any:
    """The application; Ray Serve calls it on the cluster, which may still be without the nodes that it will
    run on: the replicas wait for them.

    Raises:
        ConfigError: there is no such model.
    """
    use_gpu = gpu_count() > 0 if args.server.gpu is None else args.server.gpu
    name = model_name(args.model, args.revision)
    return llm_app.build(name, args.model, args.server, use_gpu)
