"""What `rayclean init` has seen, as tables for the terminal."""

from rich import box
from rich.markup import escape
from rich.table import Table

from rayclean.class_names import visible
from rayclean.first_look.proposed_config import ProposedConfig
from rayclean.first_look.toml_page import CLASSES_SHOWN

_COLUMNS_SHOWN = 30


def columns_table(proposal: ProposedConfig) -> Table:
    """The columns: what each holds, and what it is taken for."""
    roles = _roles(proposal)
    title = f"{' '.join(proposal.paths)}: {proposal.rows}; {', '.join(proposal.first.forms) or proposal.first.source.format}"
    table = Table(box=box.SIMPLE_HEAD, title=escape(title), title_justify="left", caption_justify="left")
    for name in ("column", "taken for", "holds", "different", "blank"):
        table.add_column(name, justify="right" if name in ("different", "blank") else "left", overflow="fold")
    profiles = sorted(proposal.profiles.values(), key=lambda each: each.name not in roles)
    for each in profiles[:_COLUMNS_SHOWN]:
        blank = f"{(each.rows - each.filled) / max(each.rows, 1):.1%}" if each.filled < each.rows else ""
        table.add_row(escape(each.name), roles.get(each.name, ""), each.kind, f"{each.different:,}", blank)
    more = len(profiles) - _COLUMNS_SHOWN + proposal.first.left_out
    if len(profiles) > _COLUMNS_SHOWN:
        table.caption = f"and {more:,} more columns"
    return table


def classes_table(proposal: ProposedConfig) -> Table:
    """The most frequent classes with their counts."""
    look = proposal.look
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{len(look.classes):,} classes",
        title_justify="left",
        caption_justify="left",
    )
    for name in ("class", "labels", "share"):
        table.add_column(name, justify="left" if name == "class" else "right", overflow="fold")
    total = max(look.labelled, 1)
    for name, count in list(look.classes.items())[:CLASSES_SHOWN]:
        table.add_row(escape(visible(name)), f"{count:,}", f"{count / total:.1%}")
    rest = list(look.classes.values())[CLASSES_SHOWN:]
    if rest:
        table.caption = f"and {len(rest):,} more with {sum(rest):,} labels ({sum(rest) / total:.1%})"
    return table


def _roles(proposal: ProposedConfig) -> dict[str, str]:
    """Column -> what the config takes it for."""
    found: dict[str, str] = {}
    dataset = proposal.values["dataset"]
    for key in ("text", "tokens", "label", "truth", "id", "group"):
        columns = dataset.get(key, [])
        for column in [columns] if isinstance(columns, str) else columns:
            found.setdefault(column, key)
    return found
