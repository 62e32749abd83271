"""Checks of the config files that execute nothing: JSON, `_target_`s, `$` expressions, ids and references."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medbundles.bundle import BundleInfo, read_object
from medbundles.contract.expressions import expression_problems
from medbundles.workflows import config_files

TRUSTED_PACKAGES = ("monai", "torch", "ignite", "numpy", "medbundles")


def config_problems(info: BundleInfo) -> list[str]:
    """Everything wrong with the configs that can be seen without evaluating them."""
    found = []
    for file in workflow_configs(info):
        try:
            content = read_object(file)
        except ValueError as problem:
            found.append(str(problem).replace(str(file), f"configs/{file.name}:"))
            continue
        lines = [*_target_lint(info, content), *_expression_lint(info, content), *_id_problems(file, content)]
        found += [f"configs/{file.name}: {line}" for line in lines]
    return found + [line for file in workflow_configs(info) for line in _merged_problems(info, file)]


def workflow_configs(info: BundleInfo) -> list[Path]:
    """The bundle's config files without the metadata."""
    return [file for file in sorted((info.root / "configs").glob("*.json")) if file.name != "metadata.json"]


def strings(content: Any, id: str = "") -> Iterator[tuple[str, str]]:
    """(id, text) of every string in a config, ids joined by "::"."""
    if isinstance(content, str):
        yield id, content
    elif isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            yield from strings(value, f"{id}::{key}" if id else str(key))


def targets(content: Any) -> Iterator[tuple[str, str]]:
    """(id, target) of every component of a config."""
    for id, text in strings(content):
        if id.split("::")[-1] == "_target_":
            yield id.removesuffix("_target_").removesuffix("::") or "top level", text


def executed(info: BundleInfo) -> list[str]:
    """What the configs would call or evaluate: every `_target_` and `$` expression, each once."""
    contents = [read_object(file) for file in workflow_configs(info)]
    calls = {target for content in contents for _, target in targets(content)}
    expressions = {text for content in contents for _, text in strings(content) if text.startswith("$")}
    return sorted(calls) + sorted(expressions)


def _target_lint(info: BundleInfo, content: dict[str, Any]) -> Iterator[str]:
    allowed = (*TRUSTED_PACKAGES, info.package)
    for id, target in targets(content):
        if not re.fullmatch(r"[A-Za-z_][\w.]*", target):
            yield f"{id}: _target_ must be a dotted name, got {target!r}"
        elif "." in target and not any(target.startswith(f"{package}.") for package in allowed):
            yield f"{id}: _target_ must begin with one of {', '.join(allowed)}, got {target!r}"


def _expression_lint(info: BundleInfo, content: dict[str, Any]) -> Iterator[str]:
    from monai.bundle import ConfigParser

    for id, text in strings(content):
        if text.startswith("$"):
            yield from (f"{id}: {problem}" for problem in expression_problems(text))
        elif text.startswith("%"):
            path, _ = ConfigParser.split_path_id(text[1:])
            if path and not (info.root / path).resolve().is_relative_to(info.root):
                yield f"{id}: a macro must stay inside the bundle, got {text!r}"


def _id_problems(file: Path, content: dict[str, Any]) -> Iterator[str]:
    if "initialize" in content:
        yield "initialize: MONAI evaluates it before the bundle can be imported; move it to the run list"
    required = {"train": ("bundle_root", "training"), "inference": ("bundle_root",)}
    for id in required.get(file.stem, ()):
        if id not in content:
            yield f"the id {id!r} is required"


def _merged_problems(info: BundleInfo, file: Path) -> Iterator[str]:
    """References to ids that no config of the workflow defines."""
    from monai.bundle import ConfigParser, ReferenceResolver

    try:
        parser = ConfigParser(
            ConfigParser.load_config_files([str(part) for part in config_files(info, file.stem)])
        )
    except (ValueError, KeyError, TypeError) as problem:
        if file.stem not in ("train", "inference"):  # those were named above
            yield f"configs/{file.name}: cannot be merged: {problem}"
        return
    parser.set(info.metadata, "_meta_")
    if "run" not in parser:
        yield f"configs/{file.name}: the id 'run' is required"
    for id, text in strings({key: value for key, value in parser.get().items() if key != "_meta_"}):
        text = ConfigParser.resolve_relative_ids(id, text)
        for reference in ReferenceResolver.match_refs_pattern(text):
            if reference not in parser:
                yield f"configs/{file.name}: {id}: nothing is called {reference!r}"
