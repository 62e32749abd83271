"""Simulated lesions in a real CT: tumours and tracer uptake put into the labelled chest CT of a package.

Anatomy, CT noise, liver and spleen are real (one person); lesions, their grade and both PET images are
simulated; clinical covariates are rows of a real hepatocellular table. The cohort exercises real file sizes,
spacings and organ shapes. All cases share one anatomy: nothing measured here speaks about other patients.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from medbundles.atomic import write_text
from medbundles.samples import SAMPLES, cache_dir, fetch
from numpy.typing import NDArray
from scipy import ndimage

from react_kd.convert.common import load_nifti, save_volume, write_datalist
from react_kd.lesions import (
    DEFAULT_PARAMS,
    LesionParams,
    Triple,
    acquire_pet,
    draw_lesions,
    insert_ct,
    mass_mask,
    uptake,
)

logger = logging.getLogger(__name__)
CT_SAMPLE, TABLE_SAMPLE = "chest_ct", "hepatocellular_table"
FILES = {"image": "ct", "liver": "liver", "mass": "mass", "pet_fdg": "pet_fdg", "pet_act": "pet_act"}
DEFAULT_SIZES = {"training": 24, "validation": 12, "test": 24}


@dataclass(frozen=True)
class Anatomy:
    """A real CT (X, Y, Z) in HU cropped to its liver, its affine (RAS, mm) and its organ masks."""

    ct_hu: NDArray[np.int16]
    affine: NDArray[np.float64]
    organs: dict[str, NDArray[np.bool_]]

    @property
    def spacing_mm(self) -> Triple:
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)


def real_cohort(
    root: str | Path | None = None,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    margin_mm: float = 20.0,
    workers: int | None = None,
    progress: bool = True,
) -> str:
    """Make the cohort (only what is missing of it) and return its folder with `datalist.json`.

    Args:
        root: folder; default one below the cache folder, named by what the cohort depends on.
        seed: cohort seed; a case is a pure function of seed, split and number.
        sizes: cases per split, default `DEFAULT_SIZES`; grades are balanced in each.
        margin_mm: what is kept around the liver in each direction; a large value keeps whole slices.
        workers: processes, default one per core.
        progress: show a progress bar.

    Raises ValueError when `root` holds a cohort made with other settings.
    """
    sizes = dict(DEFAULT_SIZES if sizes is None else sizes)
    plan = {"seed": seed, "sizes": sizes, "margin_mm": margin_mm, "lesions": asdict(DEFAULT_PARAMS)}
    text = json.dumps(plan, indent=1, sort_keys=True)
    if root is None:
        root = cache_dir() / "react_kd" / f"real_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    folder = Path(root).expanduser().absolute()
    _claim(folder, text)
    rows = _table(fetch(TABLE_SAMPLE) / "hepatoCellular.csv")
    splits = {
        split: [_case(folder, split, k, grade, seed, stream, rows) for k, grade in enumerate(grades)]
        for stream, (split, count) in enumerate(sizes.items())
        for grades in [
            np.random.default_rng([seed, 1000 + stream]).permutation(np.arange(count) % 3).tolist()
        ]
    }
    jobs = [
        ([seed, stream, k], case)
        for stream, cases in enumerate(splits.values())
        for k, case in enumerate(cases)
        if not all(case[key].is_file() for key in FILES)
    ]
    _make_all(jobs, fetch(CT_SAMPLE), margin_mm, workers or os.cpu_count() or 1, progress)
    provenance = {
        name: f"{SAMPLES[name].source}; {SAMPLES[name].licence}" for name in (CT_SAMPLE, TABLE_SAMPLE)
    }
    write_datalist(
        folder, "simulated lesions in a real CT (one anatomy, not patients)", splits, provenance=provenance
    )
    return str(folder)


def load_anatomy(sample: Path, margin_mm: float = 20.0) -> Anatomy:
    """Read the real CT and label map of the fetched sample, cropped to the liver and `margin_mm` around it.

    Label ids are looked up by name in structures.csv. Raises ValueError when a needed structure is missing.
    """
    with (sample / "structures.csv").open(newline="", encoding="utf-8") as stream:
        ids = {row["structure"]: int(row["id"]) for row in csv.DictReader(stream)}
    wanted = {
        "liver": ["liver"],
        "spleen": ["spleen"],
        "lung": [name for name in ids if name.startswith("lung_")],
    }
    missing = [name for names in wanted.values() for name in names if name not in ids]
    if missing:
        raise ValueError(f"{sample / 'structures.csv'} must name {missing}, names {sorted(ids)}")
    ct, labels = load_nifti(sample / "cxr.nii.gz"), load_nifti(sample / "mask.nii.gz")
    label_map = np.asarray(labels.dataobj)
    liver_box = ndimage.find_objects((label_map == ids["liver"]).astype(np.uint8))[0]
    margin = np.ceil(margin_mm / np.linalg.norm(ct.affine[:3, :3], axis=0)).astype(int)
    box = tuple(
        slice(max(b.start - m, 0), min(b.stop + m, n))
        for b, m, n in zip(liver_box, margin, label_map.shape, strict=True)
    )
    hu = np.asarray(ct.dataobj[box], dtype=np.int16)
    organs = {
        organ: np.isin(label_map[box], [ids[name] for name in names]) for organ, names in wanted.items()
    }
    affine = np.array(ct.affine, dtype=np.float64)
    affine[:3, 3] = affine[:3, :3] @ [b.start for b in box] + affine[:3, 3]
    return Anatomy(hu, affine, {"body": body_mask(hu), **organs})


def body_mask(ct_hu: NDArray) -> NDArray[np.bool_]:
    """The patient (X, Y, Z) without air and table: largest part above -300 HU, filled slice by slice."""
    tissue = ndimage.binary_opening(ct_hu > -300, iterations=2)
    if not tissue.any():
        raise ValueError("the CT must hold tissue above -300 HU, found none")
    parts, _ = ndimage.label(tissue)
    body = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return np.stack([ndimage.binary_fill_holes(body[:, :, z]) for z in range(body.shape[2])], axis=2)


def insert_case(
    anatomy: Anatomy, grade: int, seed: list[int], params: LesionParams = DEFAULT_PARAMS
) -> dict[str, tuple[NDArray, NDArray]]:
    """CT with lesions, masks and both PET images of one case: name -> (array (X, Y, Z), affine 4x4)."""
    rng = np.random.default_rng(seed)
    liver, spacing, affine = anatomy.organs["liver"], anatomy.spacing_mm, anatomy.affine
    lesions = draw_lesions(rng, liver, spacing, grade, params)
    ct = insert_ct(anatomy.ct_hu, liver, lesions, spacing, grade, rng, params)
    out: dict[str, tuple[NDArray, NDArray]] = {
        "ct": (np.round(ct).astype(np.int16), affine),
        "liver": (liver.astype(np.uint8), affine),
        "mass": (mass_mask(lesions, liver, spacing), affine),
    }
    for tracer in ("fdg", "act"):
        suv = uptake(anatomy.organs, lesions, spacing, grade, tracer, rng, params)
        out[f"pet_{tracer}"] = acquire_pet(suv, affine, rng, params)
    return out


def main(
    output: str,
    seed: int = 0,
    training: int = DEFAULT_SIZES["training"],
    validation: int = DEFAULT_SIZES["validation"],
    test: int = DEFAULT_SIZES["test"],
    margin_mm: float = 20.0,
) -> str:
    """Command: put simulated lesions into the real chest CT; writes `output`/datalist.json."""
    sizes = {"training": training, "validation": validation, "test": test}
    return real_cohort(output, seed=seed, sizes=sizes, margin_mm=margin_mm)


def _claim(folder: Path, plan: str) -> None:
    path = folder / "plan.json"
    if path.is_file() and path.read_text(encoding="utf-8") != plan:
        raise ValueError(f"{folder} holds a cohort made with other settings ({path}); choose another folder")
    write_text(path, plan)


def _table(path: Path) -> dict[int, list[dict[str, float]]]:
    """Covariates by tumour differentiation, coded 1 or 2 in the table: 2 is the less differentiated."""
    columns = {"afp": "fac_AFP", "age": "num_Age", "sex": "fac_Gender", "hepatitis": "fac_HBsAg"}
    rows: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            rows[int(row["fac_Tumordifferentiation"])].append({k: float(row[c]) for k, c in columns.items()})
    return rows


def _case(
    folder: Path,
    split: str,
    k: int,
    grade: int,
    seed: int,
    stream: int,
    rows: dict[int, list[dict[str, float]]],
) -> dict[str, Any]:
    candidates = rows[2 if grade == 2 else 1]
    clinical = candidates[np.random.default_rng([seed, stream, k, 1]).integers(len(candidates))]
    scan = f"{split}_{k:04d}"
    files = {key: folder / scan / f"{name}.nii.gz" for key, name in FILES.items()}
    return {"patient_id": scan, "scan_id": scan, **files, "label": grade, "clinical": clinical}


_anatomy: Anatomy | None = None  # one per worker process


def _load(sample: Path, margin_mm: float) -> None:
    global _anatomy
    _anatomy = load_anatomy(sample, margin_mm)


def _make(job: tuple[list[int], dict[str, Any]]) -> None:
    seed, case = job
    assert _anatomy is not None
    volumes = insert_case(_anatomy, case["label"], seed)
    for key, name in FILES.items():
        save_volume(*volumes[name], case[key])


def _make_all(
    jobs: list[tuple[list[int], dict[str, Any]]], sample: Path, margin_mm: float, workers: int, progress: bool
) -> None:
    if not jobs:
        return
    from tqdm import tqdm

    logger.info("inserting simulated lesions into the real CT: %d cases", len(jobs))
    with ProcessPoolExecutor(min(workers, len(jobs)), initializer=partial(_load, sample, margin_mm)) as pool:
        for _ in tqdm(
            pool.map(_make, jobs), total=len(jobs), desc="real CT", ncols=100, disable=not progress
        ):
            pass
