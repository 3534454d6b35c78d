"""A proposed config is checked as `load` would check it, and written whole or not at all."""

import os
import tempfile
import tomllib
from contextlib import suppress
from pathlib import Path

from rayclean.config import Config, parse_config
from rayclean.config.run_name import name_of_file
from rayclean.errors import ConfigError
from rayclean.pipeline import validate_verbs
from rayclean.verb_fingerprints import check_plugins


def checked_page(text: str, target: str) -> Config:
    """Read the text of a config as the command `load` does, with all checks that it makes before it begins.

    Args:
        text: TOML.
        target: the file that it will be, after which a run is named.

    Raises:
        RaycleanError: `load` would refuse it.
    """
    config = parse_config(tomllib.loads(text), where=target, name=name_of_file(target))
    check_plugins(config)
    validate_verbs(config, ("load",))
    return config


def refuse_existing(target: str) -> None:
    """Stop before any work if the file is there already.

    Raises:
        ConfigError: it is.
    """
    if Path(target).exists():
        raise ConfigError(f"{target} exists already; write elsewhere with --to FILE, or over it with --force")


def write_page(text: str, target: str, *, force: bool = False) -> None:
    """Write a config under its name at once; a file that is there stays as it is unless `force`.

    Raises:
        ConfigError: the file exists, or its folder cannot be written to.
    """
    path = Path(target)
    if not force:
        refuse_existing(target)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise ConfigError(
            f"--to {target}: cannot write there ({error.strerror}); choose another file"
        ) from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o666 & ~_umask())  # a temporary file is for its owner alone
        if not force:
            _claim(path)
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.remove(temporary)


def _claim(path: Path) -> None:
    """Make an empty file of that name, unless somebody made one since the last look; it is replaced at once.

    Raises:
        ConfigError: somebody did.
    """
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        raise ConfigError(
            f"{path} exists meanwhile; write elsewhere with --to FILE, or over it with --force"
        ) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
