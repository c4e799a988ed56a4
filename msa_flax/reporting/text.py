"""Numbers as text, as the whole page shows them."""

import decimal
import math
from collections.abc import Mapping
from typing import Any


def shown(value: float | None, digits: int = 4) -> str:
    """Returns a number as text, ties rounded away from zero as the page's script does."""
    if value is None or math.isnan(value):
        return "undefined"
    unit = decimal.Decimal(1).scaleb(-digits)
    rounded = decimal.Decimal(float(value)).quantize(unit, decimal.ROUND_HALF_UP)
    return f"{rounded:f}"


def interval(entry: Mapping[str, Any]) -> str:
    """Returns "[low, high]" of an entry of metrics.json, or "" where it has none."""
    if entry.get("low") is None or entry.get("high") is None:
        return ""
    return f"[{shown(entry['low'])}, {shown(entry['high'])}]"


def with_interval(entry: Mapping[str, Any]) -> str:
    """Returns "value [low, high]" of an entry of metrics.json, or the value where it has none."""
    return f"{shown(entry['value'])} {interval(entry)}".strip()


def in_words(name: str) -> str:
    """Returns a name of a file with spaces for underscores and a capital letter."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def plain(value: Any) -> str:
    """Returns a value of a JSON file as text; of a list its first twelve members."""
    if isinstance(value, list | tuple):
        first = ", ".join(map(str, value[:12]))
        return first + (f" and {len(value) - 12} more" if len(value) > 12 else "") or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
