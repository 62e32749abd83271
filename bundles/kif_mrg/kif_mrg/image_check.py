"""Finds the images of a set that cannot be read, in threads, and remembers a set in which there are none."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medbundles.atomic import write_text
from medbundles.samples import cache_dir

from kif_mrg.images import image_problem

logger = logging.getLogger(__name__)

VERSION = 1  # raise when a sound image may become an unsound one
MAX_THREADS = 8
MAX_BLOCK = 256  # files a thread takes at once: 270,000 single tasks would cost more than the headers


def find_damage(paths: Sequence[str], decode: bool = True, progress: bool = True) -> dict[str, str]:
    """Return {path: what is wrong} of the images that are missing, damaged, cut short or empty.

    Args:
        paths: the files, each once.
        decode: read every image to its end; False reads the headers only.
        progress: show a progress bar.
    """
    stamps = _in_threads(_stamp, paths, "looking for images", progress)
    passed = _mark(paths, stamps, decode)
    if all(stamps) and passed.is_file():
        return {}
    answers = _in_threads(lambda path: image_problem(path, decode), paths, "checking images", progress)
    damage = {path: answer for path, answer in zip(paths, answers, strict=True) if answer}
    if not damage:
        try:
            write_text(passed, f"{len(paths)} images\n")
        except OSError as error:
            logger.warning("the images will be checked again at the next start: %s", error)
    return damage


def _in_threads(
    function: Callable[[str], str], paths: Sequence[str], title: str, progress: bool
) -> list[str]:
    from tqdm import tqdm

    size = max(1, min(MAX_BLOCK, len(paths) // 100))
    blocks = [paths[start : start + size] for start in range(0, len(paths), size)]
    answers: list[str] = []
    with (
        ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool,
        tqdm(total=len(paths), desc=title, unit="file", disable=not progress) as bar,
    ):
        for found in pool.map(lambda block: [function(path) for path in block], blocks):
            answers += found
            bar.update(len(found))
    return answers


def _stamp(path: str) -> str:
    try:
        facts = os.stat(path)
    except OSError:  # image_problem says what is wrong
        return ""
    return f"{facts.st_size} {facts.st_mtime_ns}"


def _mark(paths: Sequence[str], stamps: Sequence[str], decode: bool) -> Path:
    """File whose presence says that exactly these images, as they are now, were found sound."""
    digest = hashlib.sha256(f"{VERSION} {decode}\n".encode())
    for line in sorted(f"{path} {stamp}\n" for path, stamp in zip(paths, stamps, strict=True)):
        digest.update(line.encode(errors="surrogateescape"))
    return cache_dir() / "kif_mrg" / "checked_images" / digest.hexdigest()[:32]
