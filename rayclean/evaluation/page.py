"""Self-contained HTML pages: templates, the plotting library and numbers as people read them."""

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from rayclean.evaluation.formatting import (
    format_count,
    format_figure,
    format_money,
    format_percent,
    format_seconds,
)

FILTERS: dict[str, Callable[..., str]] = {
    "percent": format_percent,
    "number": format_count,
    "span": format_seconds,
    "money": format_money,
    "share": format_figure,
}
"""How templates write numbers."""


def render_page(
    template: str,
    values: Mapping[str, Any],
    *,
    package: str = "rayclean.evaluation",
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> str:
    """An HTML page that needs no network; everything that comes from data is escaped.

    Args:
        template: file in `templates/` of the package, or of `rayclean.evaluation`, where the style sheet is.
        values: content of the page; `nonce` and `plotlyjs` are added.
        package: package of the template.
        functions: functions that the template may call, by name.
    """
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader(name) for name in dict.fromkeys((package, "rayclean.evaluation"))]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    environment.globals |= functions or {}
    nonce = secrets.token_urlsafe(16)
    return environment.get_template(template).render(**values, plotlyjs=get_plotlyjs(), nonce=nonce)
