"""One bundle: where it lies, what its metadata ask for, and how its package is imported."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from medbundles import __version__

LIBRARIES = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}
NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class BundleInfo:
    """A bundle as its files describe it; nothing of its code has been imported.

    `source` says who brought it: "repository", "distribution", an entry point, MEDBUNDLES_PATH, or "path" for
    a folder that nobody installed. `error` says why it cannot be used.
    """

    name: str
    root: Path
    package: str
    source: str
    metadata: dict[str, Any]
    error: str | None = None

    @property
    def trusted(self) -> bool:
        """Whether its code may run unasked: it was installed, or its folder named in MEDBUNDLES_PATH."""
        return self.source != "path"

    @property
    def package_dir(self) -> Path:
        """Folder of the bundle's Python package; ValueError when there is none."""
        parts = self.package.split(".")
        places = [self.root.joinpath(*parts), self.root, self.root.parent]
        here = Path(__file__).resolve().parent
        if self.root.is_relative_to(here / "bundles"):  # a wheel keeps the package beside medbundles
            places.append(here.parent.joinpath(*parts))
        for place in places:
            if place.name == parts[-1] and (place / "__init__.py").is_file():
                return place
        raise ValueError(f"the code must be a package of its own, {places[0] / '__init__.py'} is missing")

    @property
    def installed(self) -> bool:
        """Whether the files belong to an installed distribution, where runs must not write."""
        return any(self.package_dir.parents[self.package.count(".")].glob("*.dist-info"))


def read_bundle(root: Path, source: str, name: str | None = None, package: str | None = None) -> BundleInfo:
    """Describe the bundle at `root` from its configs/metadata.json; a fault becomes its `error`."""
    metadata: dict[str, Any] = {}
    error = None
    try:
        metadata = read_object(root / "configs" / "metadata.json")
    except (OSError, ValueError) as problem:
        error = f"cannot read its metadata: {problem}"
    stated = metadata.get("name")
    if name is not None and stated is not None and stated != name:
        error = f"the entry point calls the bundle {name!r}, its metadata {stated!r}"
    name = name or (stated if isinstance(stated, str) and NAME.fullmatch(stated) else root.name)
    if not NAME.fullmatch(name):
        error = f"a bundle name must match {NAME.pattern}, got {name!r}"
    return BundleInfo(name, root, package or name, source, metadata, error)


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file; ValueError naming the file when it holds anything else or repeats a key."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except ValueError as problem:
        raise ValueError(f"{file} is no valid JSON: {problem}") from problem
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold an object, got {type(content).__name__}")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if repeated := sorted({key for key in keys if keys.count(key) > 1}):
        raise ValueError(f"the key {repeated[0]!r} stands there twice")
    return dict(pairs)


def version_problems(metadata: dict[str, Any]) -> list[str]:
    """Every version the metadata asks for that this environment lacks; a bare version is a minimum."""
    packages = metadata.get("required_packages_version")
    wanted = {LIBRARIES[key]: metadata[key] for key in LIBRARIES if key in metadata}
    wanted |= packages if isinstance(packages, dict) else {}
    problems = []
    for distribution, wish in wanted.items():
        try:
            have = __version__ if distribution == "medbundles" else importlib.metadata.version(distribution)
            if not _specifier(str(wish)).contains(Version(have), prereleases=True):
                problems.append(f"{distribution} {wish} is required, {have} is installed")
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{distribution} {wish} is required, it is not installed")
        except (InvalidVersion, InvalidSpecifier):
            problems.append(f"{distribution}: {wish!r} is no version")
    return problems


def _specifier(wish: str) -> SpecifierSet:
    return SpecifierSet(wish if wish[:1] in "<>=!~" else f">={Version(wish)}")


def make_importable(info: BundleInfo) -> None:
    """Make `import <info.package>` find this bundle's code.

    Raises ValueError when another folder is already loaded under that name: bundles must never share classes.
    """
    folder = info.package_dir
    loaded = sys.modules.get(info.package)
    if loaded is not None:
        origin = Path(loaded.__file__).parent.resolve() if loaded.__file__ else None
        if origin != folder:
            raise ValueError(
                f"bundle {info.name} needs the package {info.package} from {folder}, "
                f"but {origin or 'another module'} is already loaded under that name; use a new process"
            )
    elif _origin(info.package) != folder:
        sys.path.insert(0, str(folder.parents[info.package.count(".")]))
        importlib.invalidate_caches()
        if _origin(info.package) != folder:
            raise ValueError(f"import {info.package} must find {folder}, but finds {_origin(info.package)}")


def _origin(package: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # the parent of a dotted name
        return None
    return Path(spec.origin).resolve().parent if spec and spec.origin and spec.has_location else None
