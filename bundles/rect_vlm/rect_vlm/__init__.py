"""ReCT-VLM: findings, lesion masks and reports of chest CT by one vision-language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rect_vlm.model import ReCTVLM

__all__ = ["ReCTVLM"]


def __getattr__(name: str) -> Any:
    # A config that names one module of the package should not have to load them all.
    if name == "ReCTVLM":
        from rect_vlm.model import ReCTVLM

        return ReCTVLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
