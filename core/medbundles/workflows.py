"""The workflows of a bundle: which configs make one up, and the arguments that run it anywhere."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from medbundles.bundle import BundleInfo, read_object

# What monai.bundle.run and ConfigWorkflow take beside the ids of a config.
MONAI_ARGUMENTS = {"init_id", "final_id", "meta_file", "logging_file", "properties_path", "_meta_"}
FOLDERS = {"ckpt_dir", "output_dir"}


def config_files(info: BundleInfo, workflow: str, overlays: Iterable[str] = ()) -> list[Path]:
    """Config files that make up a workflow, in the order MONAI merges them.

    `training` is configs/train.json. A config without `bundle_root` is laid over train.json.
    `overlays` are names of further configs of the bundle or paths of JSON files. Raises ValueError for a
    config that is missing or no JSON object.
    """
    train = info.root / "configs" / "train.json"
    file = train if workflow == "training" else info.root / "configs" / f"{workflow}.json"
    files = [file] if file == train or "bundle_root" in _read(info, file) else [train, file]
    for overlay in overlays:
        own = info.root / "configs" / f"{overlay}.json"
        files.append(Path(overlay) if overlay.endswith(".json") and not own.is_file() else own)
    for file in files:
        _read(info, file)
    return files


def _read(info: BundleInfo, file: Path) -> dict[str, Any]:
    if not file.is_file():
        known = sorted({path.stem for path in (info.root / "configs").glob("*.json")} - {"metadata"})
        raise ValueError(f"bundle {info.name} has no config {file.stem!r}; it has {', '.join(known)}")
    return read_object(file)


def workflow_arguments(
    info: BundleInfo, workflow: str, overlays: Sequence[str] = (), /, **overrides: Any
) -> dict[str, Any]:
    """Arguments of `monai.bundle.run` that make a workflow work from any working directory.

    An installed bundle writes to ./<name>/models and ./<name>/eval, a checkout to its own folder. Raises
    ValueError for an override whose first id no config defines, since MONAI would ignore it silently.
    """
    files = config_files(info, workflow, overlays)
    ids = {_first_id(key) for file in files for key in _read(info, file)}
    _check_overrides(info, workflow, ids, overrides)
    arguments: dict[str, Any] = {
        "config_file": [str(file) for file in files],
        "run_id": "training" if workflow == "training" else "run",
        "bundle_root": str(info.root),
    }
    if info.installed:
        arguments |= _folders_here(info, training=workflow == "training")
    return arguments | overrides


def _folders_here(info: BundleInfo, training: bool) -> dict[str, str]:
    here = Path.cwd() / info.name
    folders = {"output_dir": str(here / "eval")}
    trained_here = (here / "models" / "model.pt").is_file()
    if training or trained_here or not (info.root / "models" / "model.pt").is_file():
        folders["ckpt_dir"] = str(here / "models")
    return folders


def _check_overrides(info: BundleInfo, workflow: str, ids: set[str], overrides: dict[str, Any]) -> None:
    if {"tracking", "args_file"} & overrides.keys():  # both bring ids of their own
        return
    for key in overrides:
        first = _first_id(key)
        if first not in ids | MONAI_ARGUMENTS | FOLDERS:
            near = difflib.get_close_matches(first, ids, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{info.name} {workflow} has no id {first!r} to override{hint}")


def _first_id(key: str) -> str:
    return key.lstrip("+").replace("#", "::").split("::")[0]
