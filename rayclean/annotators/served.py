"""The annotator that brings its own language model: vLLM behind Ray Serve, queried like any OpenAI-compatible
endpoint.

This file only says which model is served and how (`ServedAnnotator.server`); `rayclean.runtime.serve.hosted`
starts the server around the work, and hands out the same annotator with the address filled in. The server lists the model as
`name@content` (`model_source.py`), so that the client's check of `/models` also proves that the right weights
answer.
"""

from typing import Any, Self

from pydantic import model_validator

from rayclean.annotators.model_server import ModelServer, ServerOptions
from rayclean.annotators.model_source import model_name
from rayclean.annotators.openai import OpenAIAnnotator

SPARE_TOKENS = 32
"""Tokens kept free after a prompt, for the longest label word."""


class ServedAnnotator(OpenAIAnnotator):
    """Asks a language model that rayclean starts and stops itself."""

    class Config(OpenAIAnnotator.Config):
        """Options of the annotator `openai`, with a model that is served here and its server."""

        model: str = "smollm2-135m"
        """`smollm2-135m` (built-in), a Hugging Face folder, a .gguf file, or a hub id."""
        revision: str | None = None
        """Hub ids only: branch, tag or commit; answers are kept under the commit that it names."""
        server: ServerOptions = ServerOptions()
        """How the model is served."""

        @model_validator(mode="after")
        def _prompt_fits(self) -> Self:
            if (
                self.form == "label_words"
                and self.max_prompt_tokens + SPARE_TOKENS > self.server.max_model_len
            ):
                raise ValueError(
                    f"server.max_model_len must be at least max_prompt_tokens + {SPARE_TOKENS} "
                    f"({self.max_prompt_tokens + SPARE_TOKENS}), got {self.server.max_model_len}"
                )
            return self

        def identity(self) -> dict[str, Any]:
            """The model by name and content in place of `model` and `revision`, and no sizes or addresses."""
            options = super().identity()
            del options["revision"]
            return options | {
                "model": model_name(self.model, self.revision),
                "server": self.server.identity(),
            }

    config: Config

    def identity(self) -> dict[str, Any]:
        """As for any endpoint, and the options of the engine that change its answers."""
        return super().identity() | {"server": self.config.server.identity()}

    def server(self) -> ModelServer:
        """The model that is served, and how."""
        return ModelServer(self.config.model, self.config.revision, self.config.server)

    def check(self) -> None:
        """Refuse a model that does not exist and equal label words; the address comes later."""
        model_name(self.config.model, self.config.revision)
        self.check_words()

    @property
    def model_name(self) -> str:
        """The model's identity `name@content`, as the server lists it and the ledger keeps it."""
        return model_name(self.config.model, self.config.revision)

    def at(self, base_url: str, tokenizer: str) -> Self:
        """The same annotator (same identity, same keys), connected to a running server.

        Args:
            base_url: the server's address, with `/v1`.
            tokenizer: folder or hub id of the served model's tokenizer.
        """
        config = self.config.model_copy(update={"base_url": base_url, "tokenizer": tokenizer})
        connected = type(self)(config, self.labels, self.seed)
        connected.task = self.task
        return connected
