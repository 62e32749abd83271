"""Evidence for the report: what was outlined and classified, as lines that the language model reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from rect_vlm.findings import FINDING_OF_LESION, FINDINGS, LESIONS, lesion_title
from rect_vlm.lesion_place import LOBES, ZONES, Chest

TAG = "[FINDING]"
NOTHING = f"{TAG} none of the localised findings was detected"
OUTLINED = 0.5  # probability of a voxel
MIN_ML = {"lung_nodule": 0.03}  # of a connected component; of the other lesions:
MIN_ML_ELSE = 0.1
# A place of its own: the lobes say nothing about it.
FIXED_PLACE = {"pericardial_effusion": "the pericardial space"}


def describe(
    masks: ArrayLike | torch.Tensor,
    regions: ArrayLike | torch.Tensor | None,
    spacing: Sequence[float],
    probabilities: ArrayLike | torch.Tensor | None = None,
    thresholds: float | Sequence[float] = 0.5,
    image: ArrayLike | torch.Tensor | None = None,
) -> list[str]:
    """One line per lesion that was outlined, with where, and per further finding that was classified.

    A lesion counts by its connected components of at least 0.1 ml (nodules 0.03 ml); each has its own place.

    Args:
        masks: (5, D, H, W) probabilities, or 0 and 1, in the order of LESIONS; axes point up, back and to the
            patient's left.
        regions: (D, H, W) ids of `regions`, of which the lobes are read; None or all zero where unknown, and
            thirds of the chest are told instead.
        spacing: mm per voxel.
        probabilities: (18,) of the findings, or 0 and 1; None tells the lesions alone.
        thresholds: above which a finding is present, one or 18.
        image: (D, H, W) HU / 1000, for the extent of the body where there are no lobes; None: the volume's.

    Raises:
        ValueError: shapes or spacing that do not fit.
    """
    shown = _array(masks)
    lobes, volume = (None if item is None else _array(item) for item in (regions, image))
    _check(shown, lobes, volume, spacing)
    chest: Chest | None = None
    lines, told = [], set()
    for lesion, mask in zip(LESIONS, shown > OUTLINED, strict=True):
        components = list(_components(mask, _min_voxels(lesion, spacing)))
        if not components:
            continue
        if lesion in FIXED_PLACE:
            where = FIXED_PLACE[lesion]
        else:
            chest = chest or Chest.of(lobes, volume, mask.shape, spacing)
            where = _where([chest.places(voxels) for voxels in components])
        lines.append(f"{TAG} {lesion_title(lesion)} detected in {where}")
        told.add(FINDING_OF_LESION[lesion])
    lines += [f"{TAG} {finding} (classifier)" for finding in _present(probabilities, thresholds, told)]
    return lines or [NOTHING]


def _components(mask: NDArray[np.bool_], least: float) -> Iterator[NDArray[np.intp]]:
    """Voxels (n, 3) of every 26-connected component of at least `least` voxels."""
    from scipy import ndimage

    if not mask.any():
        return
    # Labelling all of a large volume takes seconds, the box around what is outlined much less.
    ends = [np.flatnonzero(mask.any(axis=axes))[[0, -1]] for axes in ((1, 2), (0, 2), (0, 1))]
    corner = np.array([begin for begin, _ in ends])
    outlined = mask[tuple(slice(begin, end + 1) for begin, end in ends)]
    labels, _ = ndimage.label(outlined, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if sizes[number] >= least:
            yield np.argwhere(labels[box] == number) + [part.start for part in box] + corner


def _min_voxels(lesion: str, spacing: Sequence[float]) -> float:
    return MIN_ML.get(lesion, MIN_ML_ELSE) * 1000 / float(np.prod(spacing))


def _where(components: Sequence[dict[str, str]]) -> str:
    """The places of all components, from right to left and top to bottom; both sides are bilateral."""
    depths: dict[str, set[str]] = {}
    for places in components:
        for place, depth in places.items():
            depths.setdefault(place, set()).add(depth)
    names = [name for name in (*LOBES, *ZONES) if name in depths]
    # A place with lesions in front and in the back is neither.
    full = [f"{name} {depth}".strip() for name in names for depth in [_only(depths[name])]]
    listed = full[0] if len(full) == 1 else f"{', '.join(full[:-1])} and {full[-1]}"
    sides = {name.split()[0] for name in names}
    return f"{listed} (bilateral)" if len(sides) == 2 else listed


def _only(depths: set[str]) -> str:
    return next(iter(depths)) if len(depths) == 1 else ""


def _present(
    probabilities: ArrayLike | torch.Tensor | None, thresholds: float | Sequence[float], told: set[str]
) -> list[str]:
    if probabilities is None:
        return []
    found, least = _array(probabilities), np.asarray(thresholds, dtype=np.float64)
    if found.shape != (len(FINDINGS),) or least.shape not in ((), found.shape):
        raise ValueError(
            f"probabilities must be ({len(FINDINGS)},) and thresholds one number or as many, got "
            f"{found.shape} and {least.shape}"
        )
    return [name for name, yes in zip(FINDINGS, found > least, strict=True) if yes and name not in told]


def _array(item: ArrayLike | torch.Tensor) -> NDArray[Any]:
    if isinstance(item, torch.Tensor):
        item = item.detach().cpu()
        return (item.float() if item.is_floating_point() else item).numpy()
    return np.asarray(item)


def _check(
    masks: NDArray[Any], regions: NDArray[Any] | None, image: NDArray[Any] | None, spacing: Sequence[float]
) -> None:
    if masks.ndim != 4 or len(masks) != len(LESIONS):
        raise ValueError(f"masks must be ({len(LESIONS)}, D, H, W), got {masks.shape}")
    for name, item in (("regions", regions), ("image", image)):
        if item is not None and item.shape != masks.shape[1:]:
            raise ValueError(f"{name} must have the masks' shape {masks.shape[1:]}, got {item.shape}")
    if spacing is None or len(spacing) != 3 or min(spacing) <= 0:
        raise ValueError(f"spacing must be three positive mm per voxel, got {spacing}")
