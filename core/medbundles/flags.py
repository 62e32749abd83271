"""Flags of a config: `--resume false` on the command line arrives as the text "false", which is true."""

from __future__ import annotations

from typing import Any

TEXTS = {"true": True, "false": False}


def flag(name: str, value: Any) -> bool:
    """The value of a flag, for configs: `"resume": "$flag('resume', @resume)"`.

    Args:
        name: of the flag, for the error.
        value: a bool, or "true" or "false" in any case, as a command line gives it.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in TEXTS:
        return TEXTS[value.lower()]
    raise ValueError(f"{name} must be true or false, got {value!r}")
