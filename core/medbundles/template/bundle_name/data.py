"""The data of the bundle: a folder of images and labels, simulated on first use when the user has none."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from medbundles.atomic import replacing
from medbundles.samples import cache_dir
from monai.data import create_test_image_3d


def toy_cohort(cases: int = 12, size: int = 24, seed: int = 0) -> str:
    """Folder of simulated volumes, `size` voxels a side, in images/ and labels/, fixed by `seed`."""
    folder = cache_dir() / "bundle_name" / f"toy_{cases}_{size}_{seed}"
    for index in range(cases):
        image_file = folder / "images" / f"case_{index:03d}.nii.gz"
        label_file = folder / "labels" / image_file.name
        if not (image_file.is_file() and label_file.is_file()):
            image, label = toy_volume(size, seed + index)
            _write(image_file, image.astype(np.float32))
            _write(label_file, label.astype(np.uint8))
    return str(folder)


def toy_volume(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and label (size, size, size) of three noisy bright balls."""
    random = np.random.RandomState(seed)
    return create_test_image_3d(
        size,
        size,
        size,
        num_objs=3,
        rad_max=5,
        rad_min=3,
        noise_max=0.5,
        num_seg_classes=1,
        random_state=random,
    )


def _write(file: Path, voxels: np.ndarray) -> None:
    with replacing(file) as temporary:
        nib.save(nib.Nifti1Image(voxels, affine=np.diag([1.5, 1.5, 2.0, 1.0])), temporary)


def training_cases(folder: str) -> list[dict[str, str]]:
    """Three of four labelled cases of `folder`, as {"image": file, "label": file}."""
    return [case for index, case in enumerate(labelled_cases(folder)) if index % 4]


def validation_cases(folder: str) -> list[dict[str, str]]:
    """Every fourth labelled case of `folder`; no case is in both parts."""
    return labelled_cases(folder)[::4]


def labelled_cases(folder: str) -> list[dict[str, str]]:
    """Cases of `folder` by file name; ValueError unless labels/ has the file of every image in images/."""
    cases = image_cases(folder)
    labels = [Path(folder) / "labels" / Path(case["image"]).name for case in cases]
    if missing := [label.name for label in labels if not label.is_file()]:
        raise ValueError(f"{folder}/labels must have a file for every image, missing: {', '.join(missing)}")
    return [{**case, "label": str(label)} for case, label in zip(cases, labels, strict=True)]


def image_cases(folder: str) -> list[dict[str, str]]:
    """Images of `folder` by file name, as {"image": file}; ValueError when images/ holds no NIfTI file."""
    images = sorted((Path(folder) / "images").glob("*.nii.gz"))
    if not images:
        raise ValueError(f"{folder}/images must hold .nii.gz files, found none")
    return [{"image": str(image)} for image in images]
