"""Checks before training starts: every file of every case, and the folders that will be written.

All problems of a cohort come in one error, each with case, key and file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from react_kd.cases import CLASSES, FILE_KEYS, MASK_KEYS, PET_KEYS, UNGRADED, describe, grade_of
from react_kd.file_facts import FileFacts, all_facts
from react_kd.grids import covered, extent, same_grid

logger = logging.getLogger(__name__)

LIVER_COVERAGE = 0.95  # smallest share of the liver's box that a PET must show
Case = Mapping[str, Any]
Facts = dict[tuple[str, bool], FileFacts]


def validate_cases(
    cases: Sequence[Case],
    require: Sequence[str] = ("image",),
    deep: bool = True,
    progress: bool = True,
    classes: Sequence[str] = CLASSES,
    allow_no_lesion: bool = False,
    cache: str | Path | None = None,
) -> None:
    """Check cases and raise one ValueError that lists all that is wrong.

    Args:
        cases: cases with absolute paths.
        require: keys that every case must have, e.g. ("image", "liver", "mass") for training.
        deep: read every image to the end and check its content (False: labels, keys and existence only).
        progress: show a progress bar while reading.
        classes: the grades.
        allow_no_lesion: accept a graded case whose mass mask is empty.
        cache: JSON file that remembers read files by path, size and time; default one in the cache folder.
    """
    problems = [p for case in cases for p in _key_problems(case, require, classes)]
    if not cases:
        problems.append("there must be at least one case, got none")
    if deep:
        files = [(str(case[key]), key in MASK_KEYS) for case in cases for key in _present(case)]
        facts = all_facts(files, Path(cache) if cache else _default_cache(), progress)
        problems += [p for case in cases for p in _image_problems(case, facts, classes, allow_no_lesion)]
    if problems:
        raise ValueError("\n  ".join([f"{len(problems)} problems in the data:", *problems]))


def _default_cache() -> Path:
    from medbundles.samples import cache_dir

    return cache_dir() / "react_kd" / "checked_images.json"


def _present(case: Case) -> list[str]:
    return [key for key in FILE_KEYS if case.get(key) and Path(case[key]).exists()]


def _key_problems(case: Case, require: Sequence[str], classes: Sequence[str]) -> Iterator[str]:
    for key in require:
        if case.get(key) is None:
            yield f"{describe(case)}, key {key}: required, missing"
    for key in FILE_KEYS:
        if case.get(key) and not Path(case[key]).exists():
            yield f"{describe(case)}, key {key}: no such file {case[key]}"
    try:
        grade_of(case, classes)
    except ValueError as error:
        yield str(error)


def _image_problems(case: Case, facts: Facts, classes: Sequence[str], allow_no_lesion: bool) -> Iterator[str]:
    found = {key: facts[str(case[key]), key in MASK_KEYS] for key in _present(case)}
    sound: dict[str, FileFacts] = {}
    for key, fact in found.items():
        problem = _file_problem(fact)
        if problem:
            yield f"{describe(case)}, key {key}, {case[key]}: {problem}"
        else:
            sound[key] = fact
    for key, problem in _content_problems(sound, _is_graded(case, classes) and not allow_no_lesion):
        yield f"{describe(case)}, key {key}, {case[key]}: {problem}"


def _is_graded(case: Case, classes: Sequence[str]) -> bool:
    try:
        return grade_of(case, classes) != UNGRADED
    except ValueError:  # reported with the keys
        return False


def _file_problem(fact: FileFacts) -> str:
    if fact.error:
        return fact.error
    if len(fact.shape) != 3:
        return f"must have three dimensions, got shape {fact.shape}"
    if fact.not_finite:
        return f"must be finite, holds {fact.not_finite} NaN or infinite voxels"
    return ""


def _content_problems(facts: dict[str, FileFacts], lesion_required: bool) -> Iterator[tuple[str, str]]:
    ct = facts.get("image")
    if ct and (ct.low >= 0 or ct.high - ct.low < 50):
        yield "image", f"must be a CT in HU, with air or fat below 0, got values {ct.low:g}..{ct.high:g}"
    for key in MASK_KEYS:
        mask = facts.get(key)
        if not mask:
            continue
        if ct and not same_grid(mask.shape, mask.affine, ct.shape, ct.affine):
            yield key, f"must lie on the grid of the CT, {_grid(ct)}, got {_grid(mask)}"
        if mask.labels > 1:
            yield key, f"must hold one value besides 0, got several up to {mask.high:g}"
        if mask.foreground == 0 and (key == "liver" or lesion_required):
            allowed = "" if key == "liver" else " (a graded case needs a lesion unless allow_no_lesion)"
            yield key, f"must not be empty{allowed}"
    for key in PET_KEYS:
        problem = _pet_problem(facts[key], ct, facts.get("liver")) if key in facts and ct else ""
        if problem:
            yield key, problem


def _pet_problem(pet: FileFacts, ct: FileFacts, liver: FileFacts | None) -> str:
    if pet.high <= pet.low:
        return f"must show uptake, all voxels are {pet.low:g}"
    if liver and liver.foreground:
        share, wanted, what = (
            covered(liver.box, liver.affine, pet.shape, pet.affine),
            LIVER_COVERAGE,
            "the liver",
        )
    else:
        whole = [[0, 0, 0], [n - 1 for n in ct.shape]]
        share, wanted, what = covered(whole, ct.affine, pet.shape, pet.affine), 0.05, "the CT"
    if share >= wanted:
        return ""
    return (
        f"must cover {wanted:.0%} of {what}, got {share:.0%}: PET lies at {extent(pet.shape, pet.affine)}; "
        f"CT at {extent(ct.shape, ct.affine)}"
    )


def _grid(fact: FileFacts) -> str:
    return f"{fact.shape} at {extent(fact.shape, fact.affine)}"
