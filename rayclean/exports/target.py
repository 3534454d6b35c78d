"""Where an export goes: the target appears last and as a whole.

A file appears by a rename, a folder as a whole on a disk, and on an object store file by file with `_rayclean_export.json` at
the end. Until then `_rayclean_unfinished.json` says whose it is, so that the same command goes on after a crash, and that it is
not whole.
"""

import os
import posixpath
import shutil
import tempfile
from functools import partial
from typing import Any

from rayclean.config.export_section import ExportConfig
from rayclean.datasets.sources import UNFINISHED_EXPORT
from rayclean.errors import ConfigError
from rayclean.exports.parts import part_name
from rayclean.exports.plan import ExportPlan, is_folder, writer_of
from rayclean.folder import Folder, filesystem

MANIFEST_FILE = "_rayclean_export.json"
"""File in an exported folder that says where it comes from; it is written last. Readers of data leave out names that begin so."""


def check_target(options: ExportConfig, run: str) -> None:
    """Stop at a target that cannot be written.

    Args:
        options: of the export.
        run: URL of the run that is exported; what an export of its own has left unfinished is replaced.

    Raises:
        ConfigError: it is there already, or a part of its path is a file.
    """
    fs, path = filesystem(options.to)
    if not fs.exists(path) or (fs.isdir(path) and not fs.ls(path, detail=False)):
        return
    target = Folder(options.to)
    unfinished = is_folder(options) and target.exists(UNFINISHED_EXPORT)
    if unfinished and target.read_json(UNFINISHED_EXPORT) == {"run": run}:
        return
    if options.overwrite:
        if is_folder(options) and not unfinished and not target.exists(MANIFEST_FILE):
            raise ConfigError(
                f"export.to = {options.to!r} is there already, and is no folder that rayclean exported: it is not replaced. Name "
                "another one"
            )
        return
    raise ConfigError(
        f"export.to = {options.to!r} is there already; name another place, or replace it with export.overwrite=true "
        "(--overwrite)"
    )


def put_in_place(
    plan: ExportPlan,
    options: ExportConfig,
    parts: Folder,
    counts: list[dict[str, Any]],
    about: dict[str, Any],
) -> None:
    """Join the parts of every output, and let the target appear."""
    fs, target = filesystem(options.to)
    target = target.rstrip("/")
    names: dict[int, list[str]] = {number: [] for number in range(len(plan.outputs))}
    for each in counts:
        for number in each["outputs"]:
            names[number].append(part_name(each["name"], number))
    above = Folder(posixpath.dirname(options.to.rstrip("/")) or ".")
    if not plan.is_folder:
        (output,) = plan.outputs
        above.write_file(partial(writer_of(output).join, parts, names[0]), posixpath.basename(target))
        return
    if above.is_local:
        os.makedirs(above.path(), exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{posixpath.basename(target)}.", dir=above.path() if above.is_local else None
    ) as work:
        built = os.path.join(work, "built")
        for number, output in enumerate(plan.outputs):
            path = os.path.join(built, output.name) if output.name else built
            os.makedirs(os.path.dirname(path), exist_ok=True)
            writer_of(output).join(parts, names[number], path)
        os.makedirs(built, exist_ok=True)
        manifest = Folder(built)
        if above.is_local:
            manifest.write_json(about, MANIFEST_FILE)
            _replace(built, target, os.path.join(work, "before"))
            return
        folder = Folder(options.to)
        folder.write_json({"run": about["run"]}, UNFINISHED_EXPORT)
        if before := [path for path in fs.find(target) if posixpath.basename(path) != UNFINISHED_EXPORT]:
            fs.rm(before)
        fs.put(f"{built}/", f"{target}/", recursive=True)
        folder.write_json(about, MANIFEST_FILE)
        folder.remove(UNFINISHED_EXPORT)


def _replace(built: str, target: str, before: str) -> None:
    """Put a folder in the place of another one, which may be empty or an earlier export."""
    if os.path.isdir(target):
        os.replace(target, before)
    os.replace(built, target)
    shutil.rmtree(before, ignore_errors=True)
