"""Real chest X-ray reports without images: the Indiana University collection, cleaned and split by study.

Demner-Fushman et al., JAMIA 2016, doi 10.1093/jamia/ocv080; the reports are CC BY-NC-ND 4.0. Words removed to
protect patients read `xxxx`.
"""

from __future__ import annotations

import hashlib
import logging
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from medbundles.samples import fetch
from medbundles.text.cleaning import clean_report

logger = logging.getLogger(__name__)

ARCHIVE = "NLMCXR_reports.tgz"
SECTIONS = ("FINDINGS", "IMPRESSION")


class TextRecord(TypedDict):
    """One cleaned report without an image."""

    id: str
    study_id: str
    report: str


@dataclass(frozen=True)
class CorpusSplit:
    """Reports of disjoint studies; `repeats` texts of val and test were dropped as copies of earlier ones."""

    train: list[TextRecord]
    val: list[TextRecord]
    test: list[TextRecord]
    repeats: int


def iu_reports(folder: Path | None = None) -> list[TextRecord]:
    """Findings and impression of every report of the collection that has either, cleaned, in order of id.

    Args:
        folder: where NLMCXR_reports.tgz lies; default the sample `chest_xray_reports`, fetched on first use.

    Raises:
        ValueError: no such archive, a report that is not XML or has no id, or an archive without reports.
    """
    archive = (fetch("chest_xray_reports") if folder is None else Path(folder)) / ARCHIVE
    if not archive.is_file():
        raise ValueError(f"the folder must hold {ARCHIVE}, found none in {archive.parent}")
    records = []
    with tarfile.open(archive) as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.name.endswith(".xml") else None
            if stream is not None and (record := _record(stream.read(), f"{archive}: {member.name}")):
                records.append(record)
    if not records:
        raise ValueError(f"{archive} must hold reports with {' or '.join(SECTIONS)}, found none")
    return sorted(records, key=lambda record: (len(record["id"]), record["id"]))


def _record(xml: bytes, where: str) -> TextRecord | None:
    try:
        root = ET.fromstring(xml)
    except ET.ParseError as error:
        raise ValueError(f"{where} must be XML: {error}") from error
    name = root.find("uId")
    if name is None or "id" not in name.attrib:
        raise ValueError(f"{where} must hold <uId id=...>, found none")
    texts = {part.get("Label"): (part.text or "").strip(" .\n") for part in root.iter("AbstractText")}
    report = ". ".join(texts[section] for section in SECTIONS if texts.get(section))
    if not report:
        return None
    return {"id": name.attrib["id"], "study_id": name.attrib["id"], "report": clean_report(f"{report}.")}


def split_by_study(
    records: Sequence[TextRecord], val: float = 0.1, test: float = 0.1, seed: int = 0
) -> CorpusSplit:
    """Split by study, each study by a hash of its id, and drop from val and test the texts seen before.

    A report of a new study can still be word for word one of another: what is held out is then not new.

    Raises:
        ValueError: the shares leave nothing to train on, or a split comes out empty.
    """
    if min(val, test) <= 0 or val + test >= 1:
        raise ValueError(f"val and test must be above 0 and together below 1, got {val=} {test=}")
    splits: dict[str, list[TextRecord]] = {"train": [], "val": [], "test": []}
    for record in records:
        digest = hashlib.sha256(f"{seed}:{record['study_id']}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        splits["val" if place < val else "test" if place < val + test else "train"].append(record)
    seen = {record["report"] for record in splits["train"]}
    repeats = 0
    for name in ("val", "test"):
        fresh = [record for record in splits[name] if record["report"] not in seen]
        repeats += len(splits[name]) - len(fresh)
        seen |= {record["report"] for record in fresh}
        splits[name] = fresh
    if empty := [name for name, found in splits.items() if not found]:
        raise ValueError(f"{len(records)} reports leave no report in {', '.join(empty)}; give more")
    logger.info(
        "%d training, %d validation and %d test reports; %d held-out reports dropped as copies of others",
        *(len(splits[name]) for name in splits),
        repeats,
    )
    return CorpusSplit(**splits, repeats=repeats)
