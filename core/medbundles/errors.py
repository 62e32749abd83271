"""Errors a user can act on, found inside the ones that frameworks wrap around them."""

from __future__ import annotations


def without_wrappers(error: BaseException) -> BaseException:
    """The error that a component raised: MONAI wraps it in RuntimeErrors about config entries."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def one_line(error: BaseException) -> str:
    """An error without its wrappers as "Kind: message" in one line."""
    error = without_wrappers(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
