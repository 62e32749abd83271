"""Write a new bundle: a complete small one that verifies and trains as it is."""

from __future__ import annotations

import keyword
import sys
from pathlib import Path

from medbundles.bundle import NAME

TEMPLATE = Path(__file__).resolve().parent / "template"
PLACEHOLDER = "bundle_name"


def scaffold(name: str, folder: Path) -> Path:
    """Write the bundle `name` into `folder`/`name` and return that path.

    Raises ValueError for a name that cannot be that of a package, FileExistsError for a folder that is there.
    """
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or name == "scripts":
        raise ValueError(f"a bundle name must match {NAME.pattern} and be no Python keyword, got {name!r}")
    if name in sys.stdlib_module_names:
        raise ValueError(f"a bundle name must not be that of a Python module, got {name!r}")
    root = folder / name
    if root.exists():
        raise FileExistsError(f"{root} is already there")
    for source in sorted(TEMPLATE.rglob("*")):
        if source.is_file() and "__pycache__" not in source.parts:
            target = root / str(source.relative_to(TEMPLATE)).replace(PLACEHOLDER, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source.read_text("utf-8").replace(PLACEHOLDER, name), "utf-8")
    (root / "models").mkdir()
    return root
