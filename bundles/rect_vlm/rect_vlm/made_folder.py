"""Folders that are made once and then shared by all processes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from medbundles.atomic import plain_permissions


def make_once(target: Path, write: Callable[[Path], None]) -> Path:
    """Return `target`, which appears whole or not at all; `write` fills the folder that becomes it."""
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as work:
        whole = Path(work) / "model"
        write(whole)
        plain_permissions(whole)
        try:
            whole.rename(target)
        except OSError:
            # Another process may have made the same one meanwhile.
            if not target.is_dir():
                raise
    return target
