"""Copy a bundle out as a stand-alone folder or zip, and unpack such a zip."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from medbundles.archives import extract
from medbundles.bundle import BundleInfo

PARTS = ("LICENSE", "configs", "docs", "models", "large_files.yml", "large_files.yaml", "large_files.json")


def export(info: BundleInfo, folder: Path, zipped: bool = False) -> Path:
    """Copy a bundle to `folder`/<name>, or to <name>_v<version>.zip there, and return that path.

    Its licence, configs, docs, package and, if present, models go along; caches and results stay behind.
    Raises FileExistsError for a target that is already there.
    """
    target = folder / (f"{info.name}_v{info.metadata.get('version', '0')}.zip" if zipped else info.name)
    if target.exists():
        raise FileExistsError(f"{target} is already there")
    folder.mkdir(parents=True, exist_ok=True)
    # Gathered aside and moved when whole: a full disk leaves no half of a bundle under the final name.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as work:
        copy = _gather(info, Path(work) / info.name)
        if zipped:
            archive = shutil.make_archive(
                str(Path(work) / "bundle"), "zip", root_dir=work, base_dir=info.name
            )
            Path(archive).rename(target)
        else:
            copy.rename(target)
    return target


def _gather(info: BundleInfo, copy: Path) -> Path:
    copy.mkdir()
    leftover = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "eval")
    for part in PARTS:
        source = info.root / part
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=leftover)
        elif source.is_file():
            shutil.copyfile(source, copy / part)
    package = info.package_dir
    copied = copy.joinpath(*info.package.split("."))
    shutil.copytree(package, copied, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"))
    nested = info.root.relative_to(package) if info.root.is_relative_to(package) else None
    if nested is not None:  # the configs lie inside the package and were copied above
        for part in PARTS:
            _remove(copied / nested / part)
    return copy


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack the zip of a bundle into `folder` and return the bundle's root.

    Raises ValueError for absolute paths, "..", links, too many or too large members, and for anything but one
    bundle in one folder.
    """
    extract(archive, ["*"], "", folder)
    roots = [file.parents[1] for file in folder.glob("*/configs/metadata.json")]
    if len(roots) != 1 or len(list(folder.iterdir())) != 1:
        raise ValueError(f"{archive} must hold one folder with configs/metadata.json")
    return roots[0]
