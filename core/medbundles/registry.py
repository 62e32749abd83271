"""Find bundles and load them as MONAI workflows; finding never imports a bundle's code."""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbundles.bundle import BundleInfo, make_importable, read_bundle, read_object, version_problems
from medbundles.workflows import workflow_arguments

if TYPE_CHECKING:
    from monai.bundle import ConfigWorkflow

__all__ = ["BundleInfo", "discover", "get", "load", "locate", "prepare"]

GROUP = "medbundles.bundles"
METADATA = Path("configs") / "metadata.json"
logger = logging.getLogger(__name__)


def discover() -> dict[str, BundleInfo]:
    """Every bundle of the repository or distribution, of the entry points and of MEDBUNDLES_PATH, by name.

    A bundle that cannot be used is listed with its `error`, and so is a name that two folders claim; neither
    hides the others.
    """
    found: dict[str, BundleInfo] = {}
    for info in (*_own_bundles(), *_entry_points(), *_search_path()):
        first = found.setdefault(info.name, info)
        if first.root != info.root:
            places = f"{first.root} ({first.source}) and {info.root} ({info.source})"
            found[info.name] = replace(first, error=f"two bundles are called {info.name}: {places}")
    return dict(sorted(found.items()))


def get(name: str) -> BundleInfo:
    """The bundle called `name`; ValueError naming the nearest one, or why this one cannot be used."""
    found = discover()
    if name not in found:
        near = difflib.get_close_matches(name, found, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no bundle named {name!r}{hint} (known: {', '.join(found) or 'none'})")
    if error := found[name].error:
        raise ValueError(f"bundle {name} cannot be used: {error}")
    return found[name]


def locate(target: str | Path) -> BundleInfo:
    """The bundle of that name or else in that folder; one that nobody installed has `source` "path"."""
    root = Path(target).resolve()
    found = discover()
    if str(target) in found or not (root / METADATA).is_file():
        return get(str(target))
    known = [info for info in found.values() if info.root == root and not info.error]
    return known[0] if known else read_bundle(root, "path")


def prepare(info: BundleInfo) -> None:
    """Make a bundle importable; ValueError unless its versions and its package fit this process."""
    if problems := version_problems(info.metadata):
        raise ValueError(f"bundle {info.name} does not fit this environment: {'; '.join(problems)}")
    make_importable(info)


def load(name: str, workflow: str = "inference", **overrides: Any) -> ConfigWorkflow:
    """MONAI's ConfigWorkflow of a bundle, not yet initialised, with the bundle's package importable.

    `workflow` is "training" or the name of a config, `overrides` are its ids or arguments of ConfigWorkflow.
    Never downloads. Raises ValueError for an unknown bundle or workflow, for versions that are not satisfied
    here, and when the bundle's package is already loaded from another folder.
    """
    info = get(name)
    prepare(info)
    from monai.bundle import ConfigWorkflow

    arguments = workflow_arguments(info, workflow, **overrides)
    trains = any("train" in read_object(Path(file)) for file in arguments["config_file"])
    return ConfigWorkflow(workflow_type="train" if trains else "inference", **arguments)


def _own_bundles() -> Iterator[BundleInfo]:
    package = Path(__file__).resolve().parent
    checkout = package.parent.name == "core" and (package.parents[1] / "bundles").is_dir()
    folder, source = (
        (package.parents[1] / "bundles", "repository") if checkout else (package / "bundles", "distribution")
    )
    yield from _bundles_in(folder, source)


def _bundles_in(folder: Path, source: str) -> Iterator[BundleInfo]:
    for file in sorted(folder.glob(f"*/{METADATA.as_posix()}")):
        yield read_bundle(file.resolve().parents[1], source)


def _search_path() -> Iterator[BundleInfo]:
    for entry in filter(None, os.environ.get("MEDBUNDLES_PATH", "").split(os.pathsep)):
        folder = Path(entry).expanduser().resolve()
        if (folder / METADATA).is_file():
            yield read_bundle(folder, "MEDBUNDLES_PATH")
        elif folder.is_dir():
            yield from _bundles_in(folder, "MEDBUNDLES_PATH")
        else:
            logger.warning("MEDBUNDLES_PATH names %s, which is no folder", folder)


def _entry_points() -> Iterator[BundleInfo]:
    for point in importlib.metadata.entry_points(group=GROUP):
        source = f"entry point of {point.dist.name if point.dist else 'an unknown distribution'}"
        folders = _package_folders(point.module)
        roots = [root for folder in folders for root in (folder, folder / "bundle", folder.parent)]
        root = next((root.resolve() for root in roots if (root / METADATA).is_file()), None)
        if root is not None:
            yield read_bundle(root, source, point.name, point.module)
            continue
        place = folders[0] if folders else Path(*point.module.split("."))
        problem = f"has no {METADATA.as_posix()}" if folders else "is not installed"
        error = f"the package {point.module} of its entry point {problem}"
        yield BundleInfo(point.name, place, point.module, source, {}, error)


def _package_folders(package: str) -> list[Path]:
    """Folders of a possibly dotted package, found without importing its parents."""
    top, *rest = package.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module in sys.modules without a spec
        return []
    locations = (spec.submodule_search_locations if spec else None) or []
    return [folder for place in locations if (folder := Path(place).joinpath(*rest)).is_dir()]
