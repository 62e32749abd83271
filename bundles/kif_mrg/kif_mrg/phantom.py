"""The simulated radiograph cohort: chest X-rays as PNG files with reports and labels in R2Gen's format.

Every case is a pure function of (cohort seed, split, case number), so a case does not depend on how many
there are, and a cohort can be resumed after a kill. It is simulated: no figure on it says anything about
patients.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from medbundles.atomic import replacing, write_text

from kif_mrg.phantom_facts import DEFAULT_RATES, Facts, draw_facts, fact_labels
from kif_mrg.phantom_picture import draw_picture
from kif_mrg.phantom_report import write_report

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
DEFAULT_SIZES = {"train": 384, "val": 100, "test": 100}
ANNOTATION, SIMULATION, IMAGES = "annotation.json", "simulation.json", "images"
SIMULATED = "The images and reports are simulated: no number here says anything about patients."
VERSION = 1  # of pictures and sentences: a cohort in the cache made by another version is not used


def simulated_cohort(
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    folder: str | Path | None = None,
    image_size: int = 96,
) -> str:
    """Return the folder of a simulated cohort with its `annotation.json`; `ensure` makes the images.

    Args:
        seed: cohort seed.
        sizes: number of cases of "train", "val" and "test"; default 384, 100 and 100.
        folder: where to put it; default one below the cache folder, named by what the cohort depends on.
        image_size: height and width of the images in pixels.

    Raises:
        ValueError: an unknown split, or `folder` holds another cohort or other data.
    """
    counts = {**DEFAULT_SIZES, **(sizes or {})}
    if unknown := sorted(set(counts) - set(SPLITS)):
        raise ValueError(f"sizes must be given for {', '.join(SPLITS)}, got {', '.join(unknown)}")
    plan = {"version": VERSION, "seed": seed, "sizes": counts, "image_size": image_size}
    plan["rates"] = json.loads(json.dumps(asdict(DEFAULT_RATES)))
    if folder is None:
        from medbundles.samples import cache_dir

        digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]
        folder = cache_dir() / "kif_mrg" / f"simulated_{digest}"
    folder = Path(folder)
    if (folder / ANNOTATION).is_file():
        _check_same(folder, plan)
    else:
        _write_tables(folder, plan)
    return str(folder)


def case_facts(seed: int, split: str, number: int) -> Facts:
    """What case `number` of a split shows."""
    return draw_facts(_rng(seed, split, number, "facts"))


def ensure(folder: str | Path, progress: bool = True) -> None:
    """Make the images of a simulated cohort that are not there yet; does nothing for any other folder."""
    folder = Path(folder)
    if not is_simulated(folder):
        return
    simulation = json.loads((folder / SIMULATION).read_text(encoding="utf-8"))
    plan, cases = simulation["plan"], simulation["cases"]
    missing = [case for case in cases if not (folder / IMAGES / _image_path(case["id"])).is_file()]
    if not missing:
        return
    from PIL import Image
    from tqdm import tqdm

    logger.info("making %d simulated radiographs in %s", len(missing), folder)
    for case in tqdm(missing, desc="simulated cohort", ncols=110, disable=not progress):
        place = (plan["seed"], case["split"], case["number"])
        picture = draw_picture(case_facts(*place), _rng(*place, "picture"), plan["image_size"])
        with replacing(folder / IMAGES / _image_path(case["id"])) as temporary:
            Image.fromarray(picture).save(temporary, format="PNG")


def is_simulated(place: str | Path) -> bool:
    """Whether a folder, or the annotation file in it, is that of a simulated cohort."""
    place = Path(place).expanduser()
    folder = place if place.is_dir() else place.parent
    return (folder / SIMULATION).is_file()


def main(output: str, seed: int = 0, image_size: int = 96, **sizes: int) -> str:
    """Command: make a simulated cohort in `output`; sizes by split, e.g. `--train 30 --val 10`."""
    folder = simulated_cohort(seed, sizes, output, image_size)
    ensure(folder)
    return folder


def _rng(seed: int, split: str, number: int, stream: str) -> np.random.Generator:
    return np.random.default_rng(
        [seed, SPLITS.index(split), number, ("facts", "report", "picture").index(stream)]
    )


def _image_path(case_id: str) -> str:
    return f"{case_id}/0.png"


def _write_tables(folder: Path, plan: dict[str, Any]) -> None:
    # Under torchrun every process may be at it, with the same content and hidden temporary files.
    own = (ANNOTATION, SIMULATION, IMAGES)
    if folder.is_dir() and any(path.name not in own and path.name[0] != "." for path in folder.iterdir()):
        raise ValueError(f"a simulated cohort needs an empty folder, {folder} holds other files")
    annotation: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    cases = []
    for split in SPLITS:
        for number in range(plan["sizes"][split]):
            facts = case_facts(plan["seed"], split, number)
            case_id = f"{split}{number:05d}"
            annotation[split].append(
                {
                    "id": case_id,
                    "study_id": f"study_{case_id}",
                    "report": write_report(facts, _rng(plan["seed"], split, number, "report")),
                    "image_path": [_image_path(case_id)],
                    "split": split,
                    "labels": fact_labels(facts),
                }
            )
            cases.append({"id": case_id, "split": split, "number": number, "facts": asdict(facts)})
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)  # where a reader of the annotation looks for them
    # The annotation comes last: a folder that has it is complete but for the images.
    write_text(folder / SIMULATION, json.dumps({"plan": plan, "cases": cases}, indent=1))
    write_text(folder / ANNOTATION, json.dumps(annotation, indent=1))


def _check_same(folder: Path, plan: dict[str, Any]) -> None:
    made: dict[str, Any] = {}
    if (folder / SIMULATION).is_file():
        made = json.loads((folder / SIMULATION).read_text(encoding="utf-8"))["plan"]
    if differing := [key for key, value in plan.items() if made.get(key) != value]:
        raise ValueError(f"{folder} holds data with other {', '.join(differing)}; choose another folder")
