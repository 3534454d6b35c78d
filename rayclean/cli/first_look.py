"""The command `init`, which looks at a table and writes a config for it."""

import os
import re
import shlex
from typing import Annotated

import typer

from rayclean.cli.arguments import IdOption, LabelOption, TextOption, column_overrides
from rayclean.errors import ConfigError

_OVERRIDE = re.compile(r"[a-z_]+(\.[A-Za-z0-9_]+)*=.*", re.DOTALL)
DataArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA... [KEY=VALUE]...",
        help="Files, folders, globs or URLs, as dataset.path takes them; and what is known, like dataset.encoding=cp1250.",
    ),
]


def init_config(
    data: DataArgument,
    to: Annotated[
        str | None, typer.Option(metavar="FILE", help="File to write; by default named after the data.")
    ] = None,
    text: TextOption = None,
    label: LabelOption = None,
    id_: IdOption = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Look at a table, guess which columns mean what, say what looks odd, and write a commented config for it."""
    from rich.console import Console

    from rayclean.cli.first_look_table import classes_table, columns_table
    from rayclean.first_look.oddities import oddities
    from rayclean.first_look.page_checks import checked_page, refuse_existing, write_page
    from rayclean.first_look.proposed_config import config_file_name, propose_config
    from rayclean.first_look.toml_page import toml_page
    from rayclean.progress import print_plain

    overrides = [each for each in data if _is_override(each)]
    paths = [each for each in data if not _is_override(each)]
    if not paths:
        raise ConfigError(
            f"rayclean init {shlex.join(data)}: no data file is named; write it before the overrides, as in: "
            f"rayclean init tickets.csv {shlex.join(data)}".rstrip()
        )
    target = to or config_file_name(paths)
    if not force:
        refuse_existing(target)
    proposal = propose_config(paths, [*overrides, *column_overrides(text, label, id_)])
    page = toml_page(proposal, target)
    console = Console()
    console.print(columns_table(proposal))
    console.print(classes_table(proposal))
    found = [sentence for sentences in oddities(proposal).values() for sentence in sentences]
    for sentence in found:
        print_plain(console, f"- {sentence}")
    checked_page(page, target)
    write_page(page, target, force=force)
    print_plain(
        console,
        f"{target}: written and checked; look at it, then: {shlex.join(['rayclean', 'clean', target])}",
    )
    print_plain(console, f"what that takes: {shlex.join(['rayclean', 'estimate', target])}")


def _is_override(argument: str) -> bool:
    """Whether an argument is KEY=VALUE; a file or folder may have such a name, too."""
    return _OVERRIDE.fullmatch(argument) is not None and not os.path.exists(argument)
