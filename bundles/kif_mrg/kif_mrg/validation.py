"""Checks before training starts: every record, every image, and what must not know the held-out reports.

All problems come in one error, each with file, entry and key.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from medbundles.problems import Problems

from kif_mrg.annotation import read_annotation
from kif_mrg.annotation_file import annotation_path
from kif_mrg.conditions import CONDITIONS
from kif_mrg.image_check import find_damage
from kif_mrg.records import SPLITS, Record, Splits, describe, note_record_problems

logger = logging.getLogger(__name__)

SAMPLED_REPORTS = 500  # enough to see whether a tokenizer knows the language
MAX_UNKNOWN = 0.5  # share of unknown tokens at which a tokenizer belongs to other texts


class Memory(Protocol):
    """What the checks need to know about a report memory."""

    @property
    def study_ids(self) -> Sequence[str]: ...


class Tokenizer(Protocol):
    """What the checks need to know about a tokenizer; `hf` is the one of transformers."""

    hf: Any

    def unknown_share(self, texts: Iterable[str]) -> float: ...


def check_records(
    splits: Mapping[str, Sequence[Record]],
    memory: Memory | None = None,
    tokenizer: Tokenizer | None = None,
    conditions: Sequence[str] = CONDITIONS,
    verify_images: bool = True,
    progress: bool = True,
) -> None:
    """Check records and raise one ValueError that lists all that is wrong.

    Args:
        splits: records by "train", "val", "test".
        memory: the report memory; it may hold no study of val or test, and no record may retrieve its own.
        tokenizer: must know at least half of what the training reports are made of.
        conditions: names of the labels.
        verify_images: decode every image to its end (a set that passed is remembered until a file changes);
            False reads only the headers, for very large sets.
        progress: show a progress bar while reading images.
    """
    problems = Problems()
    note_record_problems(splits, conditions, problems)
    _note_set_problems(splits, memory, tokenizer, verify_images, progress, problems)
    problems.raise_if_any("the records")


def check_memory(splits: Mapping[str, Sequence[Record]], memory: Memory) -> None:
    """Raise ValueError when a report memory holds held-out studies or gives a record its own report."""
    problems = Problems()
    _note_leaks(splits, memory, problems)
    problems.raise_if_any("the report memory")


def read_records(
    path: str | Path, verify_images: bool = True, progress: bool = True, **reading: Any
) -> Splits:
    """Read an annotation file by `read_annotation(path, **reading)`, for training.

    What is wrong with its entries comes in one error with what is wrong with the images and between the
    records. Of a sound file no image is opened, for it may not be made yet: that is left to `check_records`.
    """
    problems = Problems()
    splits = read_annotation(path, progress=progress, problems=problems, **reading)
    if problems:
        _note_set_problems(splits, None, None, verify_images, progress, problems)
    problems.raise_if_any(str(annotation_path(path)))
    return splits


def _note_set_problems(
    splits: Mapping[str, Sequence[Record]],
    memory: Memory | None,
    tokenizer: Tokenizer | None,
    verify_images: bool,
    progress: bool,
    problems: Problems,
) -> None:
    if not any(splits.values()):
        problems.add("entries", "there must be at least one entry, got none")
    _note_repeats(splits, problems)
    _note_damage(splits, verify_images, progress, problems)
    if memory is not None:
        _note_leaks(splits, memory, problems)
    if tokenizer is not None:
        _note_unknown_words(splits, tokenizer, problems)


def _note_repeats(splits: Mapping[str, Sequence[Record]], problems: Problems) -> None:
    """Note ids used twice, studies in two splits and records filed under another split than their own."""
    ids: set[str] = set()
    studies: dict[str, str] = {}
    subjects: dict[str, str] = {}
    shared_subjects: set[str] = set()
    for split, records in splits.items():
        for record in records:
            if record.get("split", split) != split:
                problems.add("split", f"{describe(record)}, key split: must be {split}, where it is filed")
            identity = str(record.get("id"))
            if identity in ids:
                problems.add("id", f"{describe(record)}, key id: is used twice")
            ids.add(identity)
            study = _study(record)
            if studies.setdefault(study, split) != split:
                line = f"{describe(record)}, key study_id: study {study} is also in {studies[study]}"
                problems.add("study_id", line)
            subject = record.get("subject_id")
            if subject is not None and subjects.setdefault(subject, split) != split:
                shared_subjects.add(subject)
    if shared_subjects:
        some = ", ".join(sorted(shared_subjects)[:5])
        logger.warning("%d patients are in more than one split, e.g. %s", len(shared_subjects), some)


def _note_damage(
    splits: Mapping[str, Sequence[Record]], verify: bool, progress: bool, problems: Problems
) -> None:
    """Note images that are missing or damaged, or shown in two splits."""
    owners: dict[str, Record] = {}
    for records in splits.values():
        for record in records:
            for path in record.get("image_path", ()):
                owner = owners.setdefault(path, record)
                if owner.get("split") != record.get("split"):
                    line = f"{describe(record)}, key image_path, {path}: is also in {owner.get('split')}"
                    problems.add("image_path", line)
    for path, problem in find_damage(list(owners), verify, progress).items():
        problems.add("image_path", f"{describe(owners[path])}, key image_path, {path}: {problem}")


def _note_leaks(splits: Mapping[str, Sequence[Record]], memory: Memory, problems: Problems) -> None:
    """Note held-out studies in the memory, and records that would be shown their own report."""
    rows: dict[str, set[int]] = {}
    for row, study in enumerate(memory.study_ids):
        rows.setdefault(str(study), set()).add(row)
    name = getattr(memory, "path", None) or "report memory"
    for split in SPLITS[1:]:
        shared = sorted({_study(record) for record in splits.get(split, ())} & rows.keys())
        if shared:
            some = ", ".join(shared[:5])
            line = f"must hold training reports only, got {len(shared)} of {split}: {some}"
            problems.add("study_ids", f"{name}, key study_ids: {line}")
    for records in splits.values():
        for record in records:
            retrieved = record.get("retrieved") or ()
            if own := rows.get(_study(record), set()).intersection(retrieved):
                line = f"must not hold the report of its own study {_study(record)}, got row {min(own)}"
                problems.add("retrieved", f"{describe(record)}, key retrieved: {line}")
            if retrieved and not 0 <= min(retrieved) <= max(retrieved) < len(memory.study_ids):
                line = f"must be rows 0..{len(memory.study_ids) - 1} of {name}, got up to {max(retrieved)}"
                problems.add("retrieved", f"{describe(record)}, key retrieved: {line}")


def _study(record: Record) -> str:
    return str(record.get("study_id", record.get("id")))


def _note_unknown_words(
    splits: Mapping[str, Sequence[Record]], tokenizer: Tokenizer, problems: Problems
) -> None:
    records = splits.get("train") or [record for rows in splits.values() for record in rows]
    step = max(1, len(records) // SAMPLED_REPORTS)
    share = tokenizer.unknown_share(record.get("report", "") for record in records[::step])
    if share >= MAX_UNKNOWN:
        name = getattr(tokenizer.hf, "name_or_path", "") or "tokenizer"
        line = f"must know the words of the reports, {share:.0%} of their tokens are unknown"
        problems.add("tokenizer", f"{name}: {line}, as in {describe(records[0])}, key report")
