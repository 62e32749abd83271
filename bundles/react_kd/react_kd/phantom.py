"""The simulated liver cohort: upper abdomens with graded lesions, CT in HU, two PET tracers in SUV.

Everything is a pure function of (cohort seed, split, case number), so a cohort can be made in parallel,
resumed after
a kill, and made again elsewhere to the same voxel. It is simulated: no figure on it says anything about
patients.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from medbundles.atomic import write_text
from numpy.typing import NDArray
from scipy import ndimage

from react_kd.cases import CLASSES
from react_kd.lesions import (
    DEFAULT_PARAMS,
    LesionParams,
    acquire_pet,
    draw_lesions,
    insert_ct,
    mass_mask,
    uptake,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnatomyParams:
    """Geometry in mm and mean CT values in HU of the simulated upper abdomen (portal-venous phase)."""

    shape: tuple[int, int, int] = (96, 80, 32)  # voxels, RAS order
    spacing_mm: tuple[float, float, float] = (4.0, 4.0, 6.0)
    liver_hu: float = 105.0
    liver_hu_sd: float = 8.0  # between patients
    spleen_hu: float = 120.0
    soft_hu: float = 45.0
    fat_hu: float = -95.0
    lung_hu: float = -820.0
    bone_hu: float = 350.0
    noise_hu: float = 14.0  # standard deviation of the CT noise
    size_cv: float = 0.07  # patient-to-patient variation of every organ's size


DEFAULT_ANATOMY = AnatomyParams()


@dataclass(frozen=True)
class CohortSizes:
    """Number of scans per split; `second_scan` is the share of patients with two scans."""

    training: int = 72
    training_ungraded: int = 24
    training_ungraded_ct: int = 24
    validation: int = 36
    test: int = 90
    external_ct: int = 0
    second_scan: float = 0.15


def simulated_cohort(
    root: str | Path | None = None,
    seed: int = 0,
    sizes: Mapping[str, float] | None = None,
    generate: bool = False,
) -> str:
    """Return the folder of a simulated cohort with its `datalist.json`; `ensure` makes the images.

    Args:
        root: folder; default one below the cache folder, named by what the cohort depends on.
        seed: cohort seed.
        sizes: changes to CohortSizes by field name.
        generate: make the images now (otherwise `ensure(folder)` makes those that are missing).
    """
    counts = CohortSizes(**(sizes or {}))  # type: ignore[arg-type]
    plan = {
        "seed": seed,
        "sizes": asdict(counts),
        "anatomy": asdict(AnatomyParams()),
        "lesions": asdict(LesionParams()),
    }
    if root is None:
        from medbundles.samples import cache_dir

        digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]
        root = cache_dir() / "react_kd" / f"simulated_{digest}"
    folder = Path(root)
    datalist = folder / "datalist.json"
    if datalist.is_file():
        _check_same(datalist, plan)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(datalist, json.dumps(_datalist(seed, counts, plan), indent=1))
    if generate:
        ensure(folder)
    return str(folder)


def _check_same(datalist: Path, plan: dict[str, Any]) -> None:
    made = json.loads(datalist.read_text()).get("simulation", {})
    wanted = json.loads(json.dumps(plan))
    differing = [key for key, value in wanted.items() if made.get(key) != value]
    if differing:
        raise ValueError(
            f"{datalist.parent} holds a cohort with other {', '.join(differing)}; choose another folder"
        )


def ensure(folder: str | Path, workers: int | None = None, progress: bool = True) -> None:
    """Make the images of a simulated cohort that are not there yet; does nothing for any other folder."""
    folder = Path(folder)
    if not (folder / "datalist.json").is_file():
        return
    datalist = json.loads((folder / "datalist.json").read_text())
    if "simulation" not in datalist:
        return
    cases = [
        case for split in ("training", "validation", "test", "external") for case in datalist.get(split, [])
    ]
    missing = [case for case in cases if not (folder / case["scan_id"] / "done").is_file()]
    if not missing:
        return
    from tqdm import tqdm

    logger.info("making %d simulated cases in %s", len(missing), folder)
    jobs = [(str(folder), case, datalist["simulation"]) for case in missing]
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        for _ in tqdm(
            pool.map(_make, jobs), total=len(jobs), desc="simulated cohort", ncols=110, disable=not progress
        ):
            pass


def anatomy(
    rng: np.random.Generator, params: AnatomyParams
) -> tuple[NDArray[np.float32], dict[str, NDArray]]:
    """A CT (X, Y, Z) in HU without noise and lesions, and its organ masks, for one random patient.

    RAS: x grows to the patient's right, where the liver lies, y to the front, z to the head.
    """
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(params.shape, params.spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    scale = rng.normal(1.0, params.size_cv, size=8)

    def ellipsoid(center: tuple[float, float, float], radii: tuple[float, float, float], k: int) -> NDArray:
        terms = [((a - c) / (r * scale[k])) ** 2 for a, c, r in zip((x, y, z), center, radii, strict=True)]
        return (terms[0] + terms[1] + terms[2]) < 1.0

    def cylinder(center: tuple[float, float], radii: tuple[float, float], k: int) -> NDArray:
        plane = ((x - center[0]) / (radii[0] * scale[k])) ** 2 + (
            (y - center[1]) / (radii[1] * scale[k])
        ) ** 2
        return np.broadcast_to(plane < 1.0, params.shape)

    body = cylinder((0, 0), (165, 120), 0)
    inside = cylinder((0, 0), (147, 102), 0)
    liver = (ellipsoid((70, 4, -8), (66, 70, 70), 1) | ellipsoid((12, 40, 8), (68, 40, 40), 2)) & inside
    spleen = ellipsoid((-98, -38, 8), (32, 44, 46), 3) & inside & ~liver
    lungs = (ellipsoid((-70, -5, 130), (72, 82, 78), 4) | ellipsoid((70, -5, 130), (72, 82, 78), 4)) & inside
    lungs &= ~(liver | spleen)
    spine = cylinder((0, -72), (20, 18), 5) & inside
    aorta = cylinder((-16, -42), (11, 11), 6) & ~(liver | spleen)
    ct = np.full(params.shape, -1000.0, dtype=np.float32)
    liver_hu = rng.normal(params.liver_hu, params.liver_hu_sd)
    layers = [
        (body, params.fat_hu),
        (inside, params.soft_hu),
        (lungs, params.lung_hu),
        (spine, params.bone_hu),
    ]
    layers += [(aorta, 150.0), (spleen, params.spleen_hu), (liver, liver_hu)]
    for mask, value in layers:
        ct[mask] = value
    return ct, {"body": body, "lung": lungs, "liver": liver, "spleen": spleen}


def simulate_case(
    seed: list[int],
    grade: int,
    anatomy_params: AnatomyParams = DEFAULT_ANATOMY,
    params: LesionParams = DEFAULT_PARAMS,
) -> dict[str, tuple[NDArray, NDArray]]:
    """CT, masks and both PET images of one patient: name -> (array (X, Y, Z), affine 4x4)."""
    rng = np.random.default_rng(seed)
    clean, organs = anatomy(rng, anatomy_params)
    spacing = anatomy_params.spacing_mm
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * s for n, s in zip(anatomy_params.shape, spacing, strict=True)]
    lesions = draw_lesions(rng, organs["liver"], spacing, grade, params)
    ct = insert_ct(clean, organs["liver"], lesions, spacing, grade, rng, params)
    ct = ndimage.gaussian_filter(ct, [1.5 / s for s in spacing])  # point spread of the scanner, sigma 1.5 mm
    ct += ndimage.gaussian_filter(rng.standard_normal(ct.shape), 0.5) * anatomy_params.noise_hu / 0.55
    out = {
        "ct": (np.clip(np.round(ct), -1024, 3071).astype(np.int16), affine),
        "liver": ((organs["liver"]).astype(np.uint8), affine),
        "mass": (mass_mask(lesions, organs["liver"], spacing), affine),
    }
    for tracer in ("fdg", "act"):
        suv = uptake(organs, lesions, spacing, grade, tracer, rng, params)
        out[f"pet_{tracer}"] = acquire_pet(suv, affine, rng, params)
    return out


def _datalist(seed: int, sizes: CohortSizes, plan: dict[str, Any]) -> dict[str, Any]:
    """Balanced grades in every split; the truth of an ungraded case is kept out of `label`."""
    splits: dict[str, list[dict[str, Any]]] = {"training": [], "validation": [], "test": [], "external": []}
    parts = [
        ("training", "t", sizes.training, True, True),
        ("training", "u", sizes.training_ungraded, False, True),
        ("training", "c", sizes.training_ungraded_ct, False, False),
        ("validation", "v", sizes.validation, True, True),
        ("test", "e", sizes.test, True, True),
        ("external", "x", sizes.external_ct, True, False),
    ]
    for stream, (split, letter, count, graded, with_pet) in enumerate(parts):
        rng = np.random.default_rng([seed, 1000 + stream])
        grades = rng.permutation(np.arange(count) % len(CLASSES))
        patient = -1
        for k in range(count):
            # A second scan belongs to the patient before it, and has that patient's grade.
            again = k > 0 and k % 2 == 1 and rng.random() < 2 * sizes.second_scan
            grade = int(grades[k - 1] if again else grades[k])
            grades[k] = grade
            patient += 0 if again else 1
            splits[split].append(_case(letter, patient, k, grade, graded, with_pet, [seed, stream, k]))
    return {
        "name": "simulated liver cohort (not patients)",
        "classes": list(CLASSES),
        **{name: cases for name, cases in splits.items() if cases},
        "simulation": {
            **plan,
            "cases": {c["scan_id"]: c.pop("_make") for cases in splits.values() for c in cases},
        },
    }


def _case(
    letter: str, patient: int, k: int, grade: int, graded: bool, with_pet: bool, seed: list[int]
) -> dict[str, Any]:
    scan = f"{letter}{k:04d}"
    names = {"image": "ct", "liver": "liver", "mass": "mass"}
    if with_pet:
        names |= {"pet_fdg": "pet_fdg", "pet_act": "pet_act"}
    case: dict[str, Any] = {"patient_id": f"{letter}p{patient:04d}", "scan_id": scan}
    case |= {key: f"{scan}/{name}.nii.gz" for key, name in names.items()}
    if graded:
        case["label"] = grade
    return case | {"_make": {"seed": seed, "grade": grade}}


def _make(job: tuple[str, dict[str, Any], dict[str, Any]]) -> None:
    import nibabel as nib

    root, case, simulation = job
    folder = Path(root) / case["scan_id"]
    folder.mkdir(parents=True, exist_ok=True)
    how = simulation["cases"][case["scan_id"]]
    volumes = simulate_case(how["seed"], how["grade"])
    wanted = {Path(case[key]).name for key in ("image", "liver", "mass", "pet_fdg", "pet_act") if key in case}
    for name, (array, affine) in volumes.items():
        if f"{name}.nii.gz" in wanted:
            image = nib.Nifti1Image(array, affine)
            image.header.set_xyzt_units("mm")
            if array.dtype.kind == "f":
                image.set_data_dtype(np.int16)  # scaled, as scanners store PET
            nib.save(image, folder / f"{name}.nii.gz")
    (folder / "done").touch()


def main(output: str, seed: int = 0, **sizes: float) -> str:
    """Command: make a simulated cohort in `output`; sizes as in CohortSizes, e.g. `--training 30`."""
    return simulated_cohort(output, seed=seed, sizes=sizes, generate=True)
