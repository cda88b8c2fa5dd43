"""How values travel that JSON, forms and queries have no form for: dates, UUID, Decimal, dataclasses. Pure."""

import dataclasses
from datetime import date, time
from typing import Any


def as_text(value: Any) -> str | None:
    """A date, time (ISO 8601), UUID or Decimal as text; None where it is none of these."""
    if isinstance(value, date | time):
        return value.isoformat()
    from decimal import Decimal
    from uuid import UUID  # few tasks have such a value, and both take long to import

    return str(value) if isinstance(value, UUID | Decimal) else None


def as_fields(value: Any) -> Any:
    """A dataclass as a dict of its fields; anything else as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    return value


def for_json(value: Any) -> Any:
    """A value that JSON has no form for, as one that it has.

    Raises:
        TypeError: that can't be done.
    """
    text = as_text(value)
    if text is not None:
        return text
    found = as_fields(value)
    if found is not value:
        return found
    raise TypeError(f"{type(value).__name__} is not JSON")
