"""Reads annotation files in R2Gen's format (Chen et al., EMNLP 2020) and its relatives; no image is opened.

An entry has the keys id, report and image_path (a path per view) and optionally study_id, subject_id, split,
labels (14 in CheXbert order, 18 in the order of CONDITIONS, or one per condition) and retrieved (or
PromptMRG's clip_indices).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medbundles.problems import Problems
from medbundles.text.cleaning import Style, clean_report, first_words
from medbundles.text.labeler import CHEXPERT_CONDITIONS, label_reports

from kif_mrg.annotation_file import annotation_path, load_entries
from kif_mrg.conditions import CONDITIONS, IGNORE
from kif_mrg.mimic_labels import attach_mimic_labels, read_mimic_labels
from kif_mrg.records import SPLITS, Record, Splits, note_record_problems, study_of, subject_of

__all__ = ["Record", "Splits", "attach_mimic_labels", "read_annotation", "read_mimic_labels"]

logger = logging.getLogger(__name__)

LABELLED_AT_ONCE = 1000  # reports between two steps of the progress bar


def read_annotation(
    path: str | Path,
    split: str | None = None,
    image_dir: str | Path | None = None,
    style: Style = "iu",
    max_words: int | None = None,
    conditions: Sequence[str] = CONDITIONS,
    mimic_labels: str | Path | None = None,
    whole_as: str | None = None,
    progress: bool = True,
    problems: Problems | None = None,
) -> Splits:
    """Read an annotation file as {"train": [...], "val": [...], "test": [...]}.

    Args:
        path: the JSON file, or the folder of an annotation.json.
        split: keep this split only and leave the others empty.
        image_dir: what relative image paths are relative to; default the folder `images` beside the file if
            there is one, else the file's own folder.
        style: cleaning of the reports, see `clean_report`; PromptMRG uses "mimic" for every data set.
        max_words: cut the cleaned reports, references included, after so many words (PromptMRG: 100).
        conditions: names of the labels. One that an entry has no label for becomes IGNORE; entries without
            labels are labelled by the rule labeler.
        mimic_labels: label table of MIMIC-CXR-JPG, which goes before the labels in the file.
        whole_as: put every entry into this split, whatever the file says. Without it, entries of a flat list
            that name no split are test entries, as PromptMRG uses Indiana University X-Ray.
        progress: show a progress bar while labelling.
        problems: gets what is wrong instead of the ValueError, for a caller that looks for more.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: everything that is wrong with the entries, in one message with file, entry and key.
    """
    for name, value in (("split", split), ("whole_as", whole_as)):
        if value is not None and value not in SPLITS:
            raise ValueError(f"{name} must be one of {', '.join(SPLITS)} or None, got {value!r}")
    found = Problems() if problems is None else problems
    path = annotation_path(path)
    reader = _Reader(path, image_dir or _image_dir(path), style, max_words, conditions)
    for said, entry in load_entries(path, found):
        kept = whole_as or said
        if split is None or kept == split:
            reader.add(entry, kept)
    reader.label_by_rules(progress)
    if mimic_labels is not None:
        _use_table(reader.splits, mimic_labels, conditions)
    note_record_problems(reader.splits, conditions, found)
    if problems is None:
        found.raise_if_any(str(path))
    return reader.splits


@dataclass
class _Reader:
    """Turns well-formed entries into records."""

    path: Path
    image_dir: str | Path
    style: Style
    max_words: int | None
    conditions: Sequence[str]
    splits: Splits = field(default_factory=lambda: {name: [] for name in SPLITS})

    def __post_init__(self) -> None:
        self._file = str(self.path)
        self._folder = os.path.abspath(os.path.expanduser(self.image_dir))
        self._cleaned: dict[str, str] = {}  # MIMIC repeats the report of a study for each of its images
        self._unlabelled: list[Record] = []
        self._columns = {
            len(names): [names.index(name) if name in names else None for name in self.conditions]
            for names in (CHEXPERT_CONDITIONS, CONDITIONS)
        }

    def add(self, entry: dict[str, Any], split: str) -> None:
        """Read one entry; an empty report or wrong labels stay as they are, for `record_problems` to find."""
        images = [entry["image_path"]] if isinstance(entry["image_path"], str) else entry["image_path"]
        first = images[0] if images else ""
        record: Record = {
            "id": str(entry["id"]),
            "study_id": study_of(entry, first),
            "image_path": [os.path.join(self._folder, image) for image in images],
            "report": self._clean(entry["report"]),
            "raw": entry["report"],
            "labels": self._labels(entry.get("labels") or ()),
            "split": split,
            "annotation": self._file,
        }
        if (subject := subject_of(entry, first)) is not None:
            record["subject_id"] = subject
        if (retrieved := entry.get("retrieved", entry.get("clip_indices"))) is not None:
            record["retrieved"] = retrieved
        if entry.get("labels") is None:
            self._unlabelled.append(record)
        self.splits.setdefault(split, []).append(record)

    def label_by_rules(self, progress: bool) -> None:
        """Label the reports that came without labels by the rule labeler, each text once."""
        if not self._unlabelled:
            return
        from tqdm import tqdm

        logger.info("%s: %d entries without labels are labelled by rules", self.path, len(self._unlabelled))
        texts = list(dict.fromkeys(record["raw"] for record in self._unlabelled))
        blocks = range(0, len(texts), LABELLED_AT_ONCE)
        labels: dict[str, list[int]] = {}
        for start in tqdm(blocks, "labelling reports", disable=not progress or len(blocks) < 2):
            block = texts[start : start + LABELLED_AT_ONCE]
            labels.update(zip(block, label_reports(block).tolist(), strict=True))
        for record in self._unlabelled:
            record["labels"] = self._labels(labels[record["raw"]])

    def _clean(self, report: str) -> str:
        if report not in self._cleaned:
            cleaned = clean_report(report, self.style)
            self._cleaned[report] = (
                cleaned if self.max_words is None else first_words(cleaned, self.max_words)
            )
        return self._cleaned[report]

    def _labels(self, labels: Sequence[Any]) -> list[Any]:
        values = [IGNORE if value is None else value for value in labels]
        columns = self._columns.get(len(values))
        if columns is None:
            return values
        return [IGNORE if column is None else values[column] for column in columns]


def _image_dir(path: Path) -> Path:
    images = path.parent / "images"
    return images if images.is_dir() else path.parent


def _use_table(splits: Splits, path: str | Path, conditions: Sequence[str]) -> None:
    table = read_mimic_labels(path)
    records = [record for rows in splits.values() for record in rows]
    attached = attach_mimic_labels(records, table, conditions)
    if records and not attached:
        raise ValueError(
            f"{path} must hold studies of the annotation, none of its {len(table)} studies matches"
        )
    logger.info("%d of %d entries take their labels from %s", attached, len(records), path)
