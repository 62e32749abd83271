"""The case of the real-CT walk-through: simulated lesions in a real CT, as files and as RAS volumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from numpy.typing import NDArray

from react_kd.convert.common import save_volume, write_datalist
from react_kd.real_cohort import CT_SAMPLE, FILES, Anatomy, insert_case

NAME = "simulated lesions in a real CT"
CT_PET, CT_ALONE, NO_MASKS = (f"simulated_lesions_{end}" for end in ("ct_pet", "ct", "ct_no_masks"))
GRADE = 1


@dataclass(frozen=True)
class RealCase:
    """The case as files by datalist key, and its volumes by file name, turned to RAS."""

    files: dict[str, Path]
    volumes: dict[str, nib.Nifti1Image]

    def array(self, name: str) -> NDArray:
        """The volume (X, Y, Z) called ct, liver, mass, pet_fdg or pet_act."""
        return np.asarray(self.volumes[name].dataobj)

    @property
    def spacing(self) -> list[float]:
        """Voxel size of the CT, mm."""
        return [float(size) for size in self.volumes["ct"].header.get_zooms()]

    @property
    def fullest_slice(self) -> int:
        """The axial slice with the most of the mass."""
        return int(self.array("mass").sum(axis=(0, 1)).argmax())

    def axial(self, name: str, z: int) -> NDArray:
        """Slice z (X, Y) of the CT's grid; PET is interpolated to it."""
        if name in ("ct", "liver", "mass"):
            return self.array(name)[:, :, z]
        ct = self.volumes["ct"]
        grid = (*ct.shape[:2], 1), ct.affine @ nib.affines.from_matvec(np.eye(3), (0, 0, z))
        return np.asarray(resample_from_to(self.volumes[name], grid, order=1).dataobj)[:, :, 0]


def make_case(anatomy: Anatomy, folder: Path, seed: int, source: str) -> RealCase:
    """Insert lesions of grade `GRADE`; write `folder`/case and a datalist of three cases made of its files.

    They are CT and PET with masks, CT with masks, and CT without masks. `source` says where the CT is from.
    """
    made = insert_case(anatomy, GRADE, [seed, 0, 0])
    files = {key: folder / "case" / f"{name}.nii.gz" for key, name in FILES.items()}
    for key, name in FILES.items():
        save_volume(*made[name], files[key])
    keys = {CT_PET: tuple(FILES), CT_ALONE: ("image", "liver", "mass"), NO_MASKS: ("image",)}
    cases = [
        {"patient_id": "real_ct", "scan_id": scan, "label": GRADE, **{key: files[key] for key in own}}
        for scan, own in keys.items()
    ]
    write_datalist(folder, NAME, {"test": cases}, provenance={CT_SAMPLE: source})
    turned = {name: nib.as_closest_canonical(nib.Nifti1Image(*made[name])) for name in FILES.values()}
    return RealCase(files, turned)
