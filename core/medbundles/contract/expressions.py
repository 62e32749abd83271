"""A lint of `$` expressions. It finds what has no place in a config; it is no sandbox."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

REFERENCE = re.compile(r"@(?:#|::)*\w+(?:(?:#|::)\w+)*")
FORBIDDEN_BUILTINS = {"eval", "exec", "open", "compile", "input", "breakpoint", "globals", "locals", "vars"}
FORBIDDEN_MODULES = {"subprocess", "importlib", "builtins", "ctypes", "pickle", "socket", "shutil", "sys"}
FORBIDDEN = FORBIDDEN_BUILTINS | FORBIDDEN_MODULES | {"getattr", "setattr", "delattr"}
# The parts of os that path logic needs; the others start processes or change files.
OS_ALLOWED = frozenset({"path", "sep", "environ", "getcwd", "cpu_count"})


def expression_problems(text: str) -> list[str]:
    """What a config's `$` string must not contain: dunder names, code execution, files, processes."""
    source = REFERENCE.sub("reference", text.removeprefix("$").strip())
    try:
        tree = ast.parse(source)
    except SyntaxError as problem:
        return [f"{text!r} is no Python expression: {problem.msg}"]
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr | ast.Import | ast.ImportFrom):
        return [f"{text!r} must be one expression or one import"]
    names = [name for node in ast.walk(tree) for name in _forbidden(node)]
    return [f"{text!r} must not use {name}" for name in dict.fromkeys(names)]


def _forbidden(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from filter(_is_forbidden, alias.name.split("."))
            if alias.name.split(".")[0] == "os" and alias.asname not in (None, "os"):
                yield f"os under the name {alias.asname}"
    elif isinstance(node, ast.ImportFrom):
        yield from filter(
            _is_forbidden, [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        )
        if node.module == "os":
            yield from (f"os.{alias.name}" for alias in node.names if alias.name not in OS_ALLOWED)
    elif isinstance(node, ast.Name) and _is_forbidden(node.id):
        yield node.id
    elif isinstance(node, ast.Attribute):
        if _is_forbidden(node.attr):
            yield node.attr
        if isinstance(node.value, ast.Name) and node.value.id == "os" and node.attr not in OS_ALLOWED:
            yield f"os.{node.attr}"


def _is_forbidden(name: str) -> bool:
    return name in FORBIDDEN or (name.startswith("__") and name.endswith("__"))
