"""A few made-up studies with picture files: four kinds of chest, and a report that tells the kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from kif_mrg.records import Record
from PIL import Image

REPORTS = (
    "the heart is normal in size . the lungs are clear .",
    "the heart is enlarged . no pleural effusion .",
    "large pleural effusion on the left .",
    "nodule in the right upper lobe . no pneumothorax .",
)


def picture(kind: int, seed: int, height: int = 40, width: int = 36) -> np.ndarray:
    """8-bit (H, W): a bright square in one of the four corners, and noise."""
    array = 0.3 + 0.05 * np.random.default_rng(seed).standard_normal((height, width))
    top, left = (kind // 2) * height // 2, (kind % 2) * width // 2
    array[top : top + height // 2, left : left + width // 2] += 0.4
    return (255 * array.clip(0, 1)).astype(np.uint8)


def make_records(
    folder: Path, train: int = 16, val: int = 4, test: int = 4, images: bool = True
) -> list[Record]:
    """Records of all splits; record i of a split is of kind i % 4 and of a study of its own."""
    records: list[Record] = []
    for split, count in (("train", train), ("val", val), ("test", test)):
        for i in range(count):
            path = folder / f"{split}{i}.png"
            if images:
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture(i % 4, len(records))).save(path)
            record = Record(
                id=f"{split}{i}", study_id=f"s{split}{i}", image_path=[str(path)], report=REPORTS[i % 4],
                raw=REPORTS[i % 4], labels=[i % 4] * 17 + [i % 2], split=split,
            )  # fmt: skip
            records.append(record)
    return records


def of_split(records: list[Record], split: str) -> list[Record]:
    return [record for record in records if record["split"] == split]
