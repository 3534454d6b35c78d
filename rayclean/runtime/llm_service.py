"""A long-lived language model for many runs, to be named in `serveConfigV2` of a RayService or by `serve
deploy`.

    applications:
      - name: annotator
        import_path: rayclean.runtime.llm_service:app
        args: {model: smollm2-135m, server: {replicas: 2, gpu: true}}

Runs query it with `annotator.name = "openai"`. It lists the model as `name@content`, as the annotator
`served` does.
"""

from typing import Any

from rayclean.annotators.model_server import ServerOptions
from rayclean.annotators.model_source import model_name
from rayclean.plugins import Options
from rayclean.runtime import llm_app
from rayclean.runtime.cluster import gpu_count


class LlmService(Options):
    """Arguments of the application, with the meaning that they have for the annotator `served`."""

    model: str = "smollm2-135m"
    """Built-in name, Hugging Face folder, .gguf file or hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    server: ServerOptions = ServerOptions()


def app(args: LlmService) -> Any:
    """Build the application; Ray Serve calls this on the cluster, and replicas wait until there are nodes for
    them.

    Raises:
        ConfigError: there is no such model.
    """
    use_gpu = gpu_count() > 0 if args.server.gpu is None else args.server.gpu
    name = model_name(args.model, args.revision)
    return llm_app.build(name, args.model, args.server, use_gpu)
