"""Where the language model of a saved model is: beside it, anywhere, or inside, when it is a tiny one."""

from __future__ import annotations

import shutil
from pathlib import Path

from medbundles.atomic import plain_permissions

INSIDE = "language_model"  # folder in that of the saved model
HERE, BESIDE = "./", "../"
MADE_LLMS = ("tiny", "smollm2")  # no folders, but what llm.load_llm makes
MOST_BYTES = 32 * 2**20  # of a language model that is saved along: one made on the spot has 2 MB


def keep_llm(folder: Path, llm_name: str) -> str:
    """How config.json in `folder` names a language model, so that both can be moved.

    A small one is copied into the folder; one beside the folder is named from there; any other folder by its
    absolute path, and a hub id stays what it is.
    """
    source = Path(llm_name).expanduser()
    if llm_name in MADE_LLMS or not source.is_dir():
        return llm_name
    source, place = source.resolve(), folder.expanduser().resolve()
    if sum(file.stat().st_size for file in source.rglob("*") if file.is_file()) <= MOST_BYTES:
        _copy(source, place / INSIDE)
        return HERE + INSIDE
    around = place.parent
    return BESIDE + source.relative_to(around).as_posix() if source.is_relative_to(around) else str(source)


def find_llm(folder: Path, llm_name: str) -> str:
    """The language model that config.json in `folder` names; what it names from there as an absolute path."""
    return str((folder / llm_name).resolve()) if llm_name.startswith((HERE, BESIDE)) else llm_name


def _copy(source: Path, target: Path) -> None:
    if source == target:
        return
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    plain_permissions(target)
