"""Filling a template: the HTML file holds all that it shows and asks the network for nothing."""

import base64
import hashlib
import importlib.resources
import json
from collections.abc import Sequence
from typing import Any

import jinja2

from msa_flax.files import NOTICE
from msa_flax.reporting.text import shown

TEMPLATES = importlib.resources.files("msa_flax.reporting") / "templates"


def fill(name: str, *, scripts: Sequence[str], data: Any, **values: Any) -> str:
    """Returns a page as HTML.

    Args:
        name: of the template.
        scripts: of the page, files beside the template, run in this order after Plotly's.
        data: what the scripts need, as JSON.
        values: what the template shows.
    """
    from plotly.offline import get_plotlyjs

    script, plotly = "".join(map(_text, scripts)), str(get_plotlyjs())
    return (
        _environment()
        .get_template(name)
        .render(
            notice=NOTICE,
            data=embedded(data),
            css=_text("report.css"),
            script=script,
            plotly=plotly,
            policy=_policy(script, plotly),
            **values,
        )
    )


def fill_text(name: str, **values: Any) -> str:
    """Returns a template filled without escaping: for text that is no HTML."""
    plain = _environment().overlay(autoescape=False)
    return plain.get_template(name).render(notice=NOTICE, **values)


def embedded(values: Any) -> str:
    """Returns values as JSON that cannot end the script element it is put into.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = shown
    return environment


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _policy(*scripts: str) -> str:
    """Returns a content security policy under which these scripts run, and nothing is loaded."""
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
