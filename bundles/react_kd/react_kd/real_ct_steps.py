"""Steps of the real-CT walk-through: each measures one thing on the case and draws it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
import torch
from matplotlib.figure import Figure
from medbundles.region_graph import cosine_edges, region_nodes
from monai.data import MetaTensor
from nibabel.processing import resample_from_to
from numpy.typing import NDArray
from scipy import ndimage

from react_kd.dose_simulation import simulate_dose_levels
from react_kd.figures import region_graph_panel
from react_kd.networks import Student
from react_kd.real_ct_case import CT_PET, NAME, RealCase
from react_kd.real_ct_figures import Tile, low_dose_panel, tiles_panel
from react_kd.regions import LIVER_PARTS, MAX_TUMOURS, occupancy, region_count
from react_kd.scanner import stable_seed

NOISE_SLICES = 8
# Slots 1 ... 4 of region_labels: quadrants about the centroid, x to the patient's right, y to the front.
PARTS = ("left back", "left front", "right back", "right front")
REGION_NAMES = [f"liver, {part}" for part in PARTS] + [f"tumour {i + 1}" for i in range(MAX_TUMOURS)]
Numbers = dict[str, Any]
Sample = dict[str, Any]


def low_dose(case: RealCase, photons: Sequence[float], seed: int) -> tuple[list[Numbers], Figure]:
    """Simulate the dose levels on slices about the lesion; a row for the full dose and one per level.

    `mean_hu` and `sd_hu` are of the healthy liver away from its border; `noise_hu` is the photon noise alone,
    the standard deviation of the difference of two scans over sqrt(2).
    """
    depth = case.array("ct").shape[2]
    first = min(max(case.fullest_slice - NOISE_SLICES // 2, 0), max(depth - NOISE_SLICES, 0))
    slab, here = slice(first, first + NOISE_SLICES), case.fullest_slice - first
    ct = case.array("ct")[:, :, slab].astype(np.float32)
    healthy = (case.array("liver")[:, :, slab] > 0) & (case.array("mass")[:, :, slab] == 0)
    inside = ndimage.binary_erosion(healthy, np.ones((3, 3, 1)), iterations=4)
    twice = [(level, stable_seed(seed, CT_PET, level, k)) for level in photons for k in (0, 1)]
    scans = simulate_dose_levels(ct, case.spacing, [p for p, _ in twice], [s for _, s in twice])
    rows: list[Numbers] = [{"photons": None, **_level(ct, inside), "noise_hu": None}]
    for level, one, other in zip(photons, scans[::2], scans[1::2], strict=True):
        noise = float((one - other)[inside].std() / np.sqrt(2))
        rows.append({"photons": level, **_level(one, inside), "noise_hu": noise})
    names = ["full dose", *(f"{level:,.0f} photons".replace(",", " ") for level in photons)]
    views = dict(zip(names, [ct[:, :, here], *(scan[:, :, here] for scan in scans[::2])], strict=True))
    subtitle = (
        f"{NAME}, slice {case.fullest_slice}. Above: mean ± sd of the healthy liver in {inside.sum()} voxels "
        f"of {ct.shape[2]} slices. Below: the noise that the photons add, from two scans each."
    )
    figure = low_dose_panel(
        views, rows, ct[:, :, here] > -300, case.spacing, title="Low-dose CT, simulated", subtitle=subtitle
    )
    return rows, figure


def preprocessed(case: RealCase, sample: Sample, levels: Sequence[float | None]) -> tuple[Numbers, Figure]:
    """Draw the files and the arrays made of them, in the slice of the arrays that holds most of the mass.

    `sample` is that of `transforms.preprocessing` with keep_meta and the dose levels `levels`.
    """
    image = sample["image"]
    affine, ct = np.asarray(image.affine, dtype=float), case.volumes["ct"]
    deep = int(sample["mass"][0].sum(dim=(0, 1)).argmax())
    middle = nib.affines.apply_affine(affine, [*(n / 2 for n in image.shape[1:3]), deep])
    z = round(float(nib.affines.apply_affine(np.linalg.inv(ct.affine), middle)[2]))
    near = ndimage.find_objects((case.array("liver") > 0).astype(np.uint8))[0][:2]
    masks = {"liver": case.axial("liver", z)[near], "mass": case.axial("mass", z)[near]}
    tiles = [Tile("CT file, HU", case.axial("ct", z)[near], case.spacing, **masks)]
    for key, name in (("pet_fdg", "FDG-PET"), ("pet_act", "acetate-PET")):
        suv = case.axial(key, z)[near]
        limits = 0.0, float(np.ceil(suv.max()))
        tiles.append(Tile(f"{name} file, SUV", suv, case.spacing, limits, "gray_r", **masks))
    tiles += _network_tiles(sample, levels, deep, nib.affines.voxel_sizes(affine)[:2].tolist())
    size = "×".join(map(str, image.shape[1:]))
    subtitle = (
        f"{NAME}. Slice {z} of the files (orange: liver, cyan: mass), and slice {deep} of the arrays of "
        f"{size} voxels made of them, which are zero outside liver and mass."
    )
    figure = tiles_panel(tiles, 4, title="Preprocessing as in training", subtitle=subtitle)
    shapes = {key: list(sample[key].shape) for key in ("image", "pet", "dose", "liver", "mass", "regions")}
    return {"shapes": shapes, "voxel_mm": nib.affines.voxel_sizes(affine).tolist(), "slice": z}, figure


def region_graph(case: RealCase, sample: Sample, student: Student, trained: bool) -> tuple[Numbers, Figure]:
    """Nodes and cosine edges of the student's feature map of CT and PET, drawn over the CT."""
    image = torch.cat([sample[key].as_tensor() for key in ("image", "pet")])[None]  # (1, 3, X, Y, Z)
    with torch.no_grad():
        features = student.encode(image)["features"]
    share = occupancy(sample["regions"][None], features.shape[2:], region_count())
    nodes, present = region_nodes(features, share)
    held = np.flatnonzero(present[0].numpy())
    names = [REGION_NAMES[slot] for slot in held]
    edges = cosine_edges(nodes, present)[0].numpy()[np.ix_(held, held)]
    kind = "a trained student" if trained else "an untrained student: only the nodes mean something"
    subtitle = f"{NAME}; regions as the network gets them. Features of {kind}."
    ct, labels, first = _regions_on_ct(case, sample["regions"])
    figure = region_graph_panel(
        np.asarray(ct.dataobj),
        np.stack([labels == slot + 1 for slot in held]),
        names,
        edges,
        spacing=[float(size) for size in ct.header.get_zooms()],
        subtitle=f"{subtitle} Slice 0 is slice {first} of the file.",
    )
    numbers = {
        "trained": trained,
        "feature_shape": list(features.shape),
        "liver_nodes": int(present[0, :LIVER_PARTS].sum()),
        "tumour_nodes": int(present[0, LIVER_PARTS:].sum()),
        "names": names,
        "edges": edges.tolist(),
    }
    return numbers, figure


def _level(scan: NDArray, inside: NDArray[np.bool_]) -> dict[str, float]:
    return {"mean_hu": float(scan[inside].mean()), "sd_hu": float(scan[inside].std())}


def _network_tiles(
    sample: Sample, levels: Sequence[float | None], z: int, pixel_mm: Sequence[float]
) -> list[Tile]:
    """Regions, the student's CT and PET, and the teacher's CT at the lowest dose, in slice z."""
    fewest = min(range(len(levels)), key=lambda i: levels[i] or np.inf)
    volumes = {
        "network: CT": (sample["image"][0], "gray"),
        "network: FDG": (sample["pet"][0], "gray_r"),
        "network: acetate": (sample["pet"][1], "gray_r"),
        f"teacher: {levels[fewest] or np.inf:.0f} photons": (sample["dose"][fewest], "gray"),
    }
    regions, mass = (np.asarray(sample[key][0, :, :, z], dtype=float) for key in ("regions", "mass"))
    last = float(sample["regions"].max())
    tiles = [Tile(f"regions (from {LIVER_PARTS + 1}: tumour)", regions, pixel_mm, (0.0, last), "viridis")]
    for title, (volume, cmap) in volumes.items():
        plane = np.asarray(volume[:, :, z], dtype=float)
        # The voxels on the border hold part of the neighbours and would take up the range.
        top = float(np.ceil(10 * np.quantile(np.abs(plane[regions > 0]), 0.95)) / 10)
        tiles.append(Tile(title, plane, pixel_mm, (-top, top), cmap, mass=mass))
    return tiles


def _regions_on_ct(case: RealCase, regions: MetaTensor) -> tuple[nib.Nifti1Image, NDArray, int]:
    """CT about the liver, region labels (X, Y, Z) on its grid, and its first slice.

    Every second pixel of a fine CT: a mask per region of all of it would need gigabytes.
    """
    box = ndimage.find_objects((case.array("liver") > 0).astype(np.uint8))[0]
    step, margin = (2 if case.spacing[0] < 2 else 1), round(40 / case.spacing[0])
    x, y = (slice(max(side.start - margin, 0), side.stop + margin, step) for side in box[:2])
    ct = case.volumes["ct"].slicer[x, y, box[2]]
    labels = nib.Nifti1Image(np.asarray(regions[0], dtype=np.uint8), np.asarray(regions.affine, dtype=float))
    return ct, np.asarray(resample_from_to(labels, ct, order=0).dataobj), box[2].start
