"""Commands of this bundle: `medbundles tool kif_mrg NAME`, with the arguments of the function behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kif_mrg import phantom, pretraining
from kif_mrg.memory import build_memory

COMMANDS: dict[str, Callable[..., Any]] = {
    "phantom": phantom.main,
    "build_memory": build_memory,
    "pretrain_decoder": pretraining.main,
}
