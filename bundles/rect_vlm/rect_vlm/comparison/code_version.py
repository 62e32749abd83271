"""A digest of the code that a result depends on: of its statements, not of comments and docstrings."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Collection, Iterator
from importlib.util import find_spec
from pathlib import Path

# Draw and write what is measured elsewhere.
PRESENTATION = frozenset({"rect_vlm.training_report", "medbundles.report", "medbundles.figures"})


def code_digest(roots: Collection[str], leave_out: Collection[str] = PRESENTATION) -> str:
    """Changes with the statements of the modules `roots`, and of all modules of their packages they import.

    Also with the JSON files at the top of these packages. Imports are read, not run; also those inside
    functions count.

    Args:
        roots: names of modules.
        leave_out: modules that are not followed.

    Raises:
        ValueError: a root that is no module.
    """
    packages = {name: _folder(name) for name in sorted({root.split(".")[0] for root in roots})}
    found: dict[str, str] = {}
    left = list(roots)
    while left:
        name = left.pop()
        package = name.split(".")[0]
        if name in found or name in leave_out or package not in packages:
            continue
        file = _file(packages[package], name)
        if file is not None:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            left += _imported(tree)
            found[name] = ast.dump(_without_docstrings(tree))
    if missing := sorted(set(roots) - set(found) - set(leave_out)):
        raise ValueError(f"no module {', '.join(missing)}")
    sums = hashlib.sha256()
    for name, text in sorted(found.items()):
        sums.update(f"{name}\n{text}\n".encode())
    for folder in packages.values():
        for file in sorted(folder.glob("*.json")):
            sums.update(file.read_bytes())
    return sums.hexdigest()[:16]


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"no package {package}")
    return Path(next(iter(spec.submodule_search_locations)))


def _file(folder: Path, name: str) -> Path | None:
    """The file of a module; None for a name that is none, such as that of a function in one."""
    place = folder.joinpath(*name.split(".")[1:])
    candidates = (place / "__init__.py", place.with_suffix(".py"))
    return next((file for file in candidates if file.is_file()), None)


def _imported(tree: ast.Module) -> Iterator[str]:
    """Names that may be modules: `from a import b` gives a and a.b, and every module its package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return tree
