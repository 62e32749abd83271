"""One real CT through the whole method: fewer photons, preprocessing, region graph, inference.

The CT, its liver and its noise are real (one person); the lesions and both PET images are simulated. It shows
that real files pass, and how they look on the way; no grade given here means anything.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from medbundles.atomic import write_text
from medbundles.region_graph import cosine_edges, region_nodes
from medbundles.registry import get, load
from medbundles.report import HtmlReport, save_figure
from medbundles.samples import SAMPLES, fetch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from nibabel.processing import resample_from_to
from numpy.typing import NDArray
from scipy import ndimage

from react_kd.convert.common import save_volume, write_datalist
from react_kd.dose_simulation import simulate_dose_levels
from react_kd.inference import load_student
from react_kd.real_cohort import CT_SAMPLE, FILES, Anatomy, insert_case, load_anatomy
from react_kd.regions import LIVER_PARTS, MAX_TUMOURS, occupancy, region_count
from react_kd.scanner import stable_seed

logger = logging.getLogger(__name__)
NAME = "simulated lesions in a real CT"
CT_PET, CT_ALONE, NO_MASKS = (f"simulated_lesions_{end}" for end in ("ct_pet", "ct", "ct_no_masks"))
WHOLE_MM = 1000.0  # a margin about the liver that keeps the whole CT
GRADE = 1
NOISE_SLICES = 8
# Slots 1 ... 4 of region_labels: quadrants about the centroid, x to the patient's right, y to the front.
PARTS = ("left back", "left front", "right back", "right front")
Numbers = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """The case as files, and its volumes turned to RAS for measuring and drawing."""

    files: dict[str, Path]
    volumes: dict[str, nib.Nifti1Image]

    def array(self, name: str) -> NDArray:
        return np.asarray(self.volumes[name].dataobj)

    @property
    def spacing(self) -> list[float]:
        return [float(size) for size in self.volumes["ct"].header.get_zooms()]

    @property
    def slice(self) -> int:
        """The axial slice with the most of the mass."""
        return int(self.array("mass").sum(axis=(0, 1)).argmax())

    def axial(self, name: str, z: int) -> NDArray:
        """Slice z (X, Y) of the CT's grid; PET is interpolated to it."""
        if name in ("ct", "liver", "mass"):
            return self.array(name)[:, :, z]
        ct = self.volumes["ct"]
        grid = (*ct.shape[:2], 1), ct.affine @ nib.affines.from_matvec(np.eye(3), (0, 0, z))
        return np.asarray(resample_from_to(self.volumes[name], grid, order=1).dataobj)[:, :, 0]


def main(
    output: str, checkpoint: str = "", photons: float | str | Sequence[float] = "50000,10000,1000", seed: int = 0
) -> str:
    """Command: take the real chest CT with simulated lesions through every step; writes `output`/real_ct.html.

    Args:
        output: folder for the files of the case, pictures, numbers and the report.
        checkpoint: a trained student of configs/inference.json; without one, inference is left out and the
            region graph is that of an untrained student.
        photons: photons per ray, several as "50000,1000".
        seed: of the lesions, the photon noise and an untrained student.
    """
    parts = photons.split(",") if isinstance(photons, str) else np.atleast_1d(cast(Any, photons)).tolist()
    levels = sorted({float(part) for part in parts}, reverse=True)
    anatomy = load_anatomy(fetch(CT_SAMPLE), WHOLE_MM)
    return str(walk_through(anatomy, output, checkpoint, levels, seed))


def walk_through(
    anatomy: Anatomy, output: str | Path, checkpoint: str | Path, photons: Sequence[float], seed: int = 0
) -> Path:
    """Every step of `main` on this anatomy; returns the path of the report.

    Raises:
        FileNotFoundError: a checkpoint is named and not there; before anything is computed.
    """
    folder = Path(output).expanduser().absolute()
    parser = ConfigParser()
    parser.read_config(str(get("react_kd").root / "configs" / "train.json"))
    student = _student(parser, checkpoint, seed)
    source = f"{SAMPLES[CT_SAMPLE].source}; licence {SAMPLES[CT_SAMPLE].licence}"
    case = make_case(anatomy, folder, seed, source)
    numbers: Numbers = {"name": NAME, "source": source, "seed": seed, "grid": list(case.array("ct").shape)}
    numbers["spacing_mm"] = case.spacing
    report = HtmlReport("REACT-KD on a real CT", f"{NAME}. CT: {source}.")
    report.paragraph("Real: CT and liver, of one person. Simulated: lesions, both PET images and the grade.")
    numbers["low_dose"] = low_dose(case, photons, seed, folder, report)
    parser["preprocess"]["keep_meta"] = True  # where the network's grid lies; changes no value
    sample = parser.get_parsed_content("preprocess")({"scan_id": CT_PET, "label": GRADE, **case.files})
    numbers["preprocessing"] = preprocessed(case, sample, parser["dose_levels"], folder, report)
    numbers["region_graph"] = region_graph(case, sample, student, bool(checkpoint), folder, report)
    if checkpoint:
        numbers["inference"] = infer(folder, checkpoint, report)
    else:
        logger.warning("no trained student given (checkpoint=...): inference and its pictures are left out")
        report.paragraph("No trained student was given: inference was left out.")
    write_text(folder / "real_ct.json", json.dumps(numbers, indent=1) + "\n")
    return report.save(folder / "real_ct.html")


def make_case(anatomy: Anatomy, folder: Path, seed: int, source: str) -> Case:
    """Insert lesions, write the files below `folder`/case and a datalist: with PET, CT alone, CT unmasked."""
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
    return Case(files, turned)


def low_dose(
    case: Case, photons: Sequence[float], seed: int, folder: Path, report: HtmlReport
) -> list[Numbers]:
    """Simulate the dose levels on slices about the lesion; a row per level with what the liver shows.

    `mean_hu` and `sd_hu` are of the healthy liver 4 voxels inside its border; `noise_hu` is the noise alone,
    the standard deviation of the difference of two scans over sqrt(2).
    """
    from react_kd.real_ct_figures import low_dose_panel

    depth = case.array("ct").shape[2]
    first = min(max(case.slice - NOISE_SLICES // 2, 0), max(depth - NOISE_SLICES, 0))
    slab = slice(first, first + NOISE_SLICES)
    ct = case.array("ct")[:, :, slab].astype(np.float32)
    healthy = (case.array("liver")[:, :, slab] > 0) & (case.array("mass")[:, :, slab] == 0)
    inside = ndimage.binary_erosion(healthy, np.ones((3, 3, 1)), iterations=4)
    twice = [(level, stable_seed(seed, CT_PET, level, k)) for level in photons for k in (0, 1)]
    scans = simulate_dose_levels(ct, case.spacing, *map(list, zip(*twice, strict=True)))
    rows = [{"photons": None, **_liver(ct, inside), "noise_hu": None}]
    for level, one, other in zip(photons, scans[::2], scans[1::2], strict=True):
        noise = float((one - other)[inside].std() / np.sqrt(2))
        rows.append({"photons": level, **_liver(one, inside), "noise_hu": noise})
    here = case.slice - first
    names = ["full dose", *(f"{level:,.0f} photons".replace(",", " ") for level in photons)]
    views = dict(zip(names, [ct[:, :, here], *(scan[:, :, here] for scan in scans[::2])], strict=True))
    subtitle = (
        f"{NAME}, slice {case.slice}. Mean ± sd of HU in the healthy liver ({int(inside.sum())} voxels of "
        f"{ct.shape[2]} slices); noise: what the photons add, from two scans each."
    )
    figure = low_dose_panel(
        views, rows, ct[:, :, here] > -300, case.spacing, title="Low-dose CT, simulated", subtitle=subtitle
    )
    report.heading("Low-dose CT")
    report.figure(save_figure(figure, folder / "low_dose.png"), "Transmission noise and back-projection.")
    report.table(rows, "Healthy liver, HU", digits=1)
    return rows


def preprocessed(
    case: Case, sample: dict[str, Any], levels: Sequence[float | None], folder: Path, report: HtmlReport
) -> Numbers:
    """Draw the files and what preprocessing of train.json made of them, in the slice of the lesion."""
    from react_kd.real_ct_figures import Tile, tiles_panel

    image = sample["image"]
    affine, ct = np.asarray(image.affine, dtype=float), case.volumes["ct"]
    # The network's slice that holds the most of the mass, and the slice of the CT that lies on it.
    deep = int(sample["mass"][0].sum(dim=(0, 1)).argmax())
    z = round(float((np.linalg.inv(ct.affine) @ affine @ [*(n / 2 for n in image.shape[1:3]), deep, 1])[2]))
    masks = {"liver": case.axial("liver", z), "mass": case.axial("mass", z)}
    pixel = nib.affines.voxel_sizes(affine)[:2].tolist()
    own = {"liver": _plane(sample["liver"], deep), "mass": _plane(sample["mass"], deep)}
    tiles = [Tile("CT file, HU", case.axial("ct", z), case.spacing, **masks)]
    for key, name in (("pet_fdg", "FDG-PET"), ("pet_act", "acetate-PET")):
        suv = case.axial(key, z)
        top = float(np.ceil(suv.max()))
        tiles.append(Tile(f"{name} file, SUV", suv, case.spacing, (0.0, top), "gray_r", **masks))
    few = min(range(len(levels)), key=lambda i: levels[i] or np.inf)
    planes = {
        "network: CT": (_plane(sample["image"], deep), "gray"),
        "network: FDG": (_plane(sample["pet"][:1], deep), "gray_r"),
        "network: acetate": (_plane(sample["pet"][1:], deep), "gray_r"),
        f"teacher: CT, {levels[few]:.0f} photons": (_plane(sample["dose"][few : few + 1], deep), "gray"),
    }
    for title, (plane, cmap) in planes.items():
        limits = float(plane.min()), float(plane.max())
        tiles.append(Tile(title, plane, pixel, limits, cmap, mass=own["mass"]))
    regions = _plane(sample["regions"], deep).astype(float)
    tiles.insert(3, Tile("regions", regions, pixel, (0.0, float(sample["regions"].max())), "viridis"))
    size = "×".join(map(str, image.shape[1:]))
    subtitle = (
        f"{NAME}. Above: slice {z} of the files (orange: liver, cyan: mass). Below: slice {deep} of the arrays of "
        f"{size} voxels; zero outside liver and mass."
    )
    report.heading("Preprocessing")
    figure = tiles_panel(tiles, 4, title="Preprocessing of train.json", subtitle=subtitle)
    report.figure(save_figure(figure, folder / "preprocessing.png"), "Files and network input.")
    shapes = {key: list(sample[key].shape) for key in ("image", "pet", "dose", "liver", "mass", "regions")}
    return {"shapes": shapes, "voxel_mm": nib.affines.voxel_sizes(affine).tolist(), "slice": z}


def region_graph(
    case: Case, sample: dict[str, Any], student: torch.nn.Module, trained: bool, folder: Path, report: HtmlReport
) -> Numbers:
    """Nodes and cosine edges of the student's feature map, drawn over the CT."""
    from react_kd.figures import region_graph_panel

    image = torch.cat([sample["image"], sample["pet"]]).as_tensor()[None]  # (1, 3, X, Y, Z)
    with torch.no_grad():
        features = cast(Any, student).encode(image)["features"]
    share = occupancy(sample["regions"][None], features.shape[2:], region_count())
    nodes, present = region_nodes(features, share)
    edges = cosine_edges(nodes, present)[0].numpy()
    names = [f"liver, {part}" for part in PARTS] + [f"tumour {i + 1}" for i in range(MAX_TUMOURS)]
    kind = "a trained student" if trained else "an untrained student (its cosines mean nothing)"
    view, labels, spacing = _regions_on_ct(case, sample["regions"])
    held = np.flatnonzero(present[0].numpy())
    figure = region_graph_panel(
        view,
        np.stack([labels == slot + 1 for slot in held]),
        [names[slot] for slot in held],
        edges[np.ix_(held, held)],
        spacing=spacing,
        subtitle=f"{NAME}; slices counted from the lowest of the liver; features of {kind}.",
    )
    report.heading("Region graph")
    report.figure(save_figure(figure, folder / "region_graph.png"), "Nodes on the CT and their cosines.")
    liver = int(present[0, :LIVER_PARTS].sum())
    return {
        "trained": trained,
        "feature_shape": list(features.shape),
        "liver_nodes": liver,
        "tumour_nodes": len(held) - liver,
        "names": [names[slot] for slot in held],
        "edges": edges[np.ix_(held, held)].tolist(),
    }


def infer(folder: Path, checkpoint: str | Path, report: HtmlReport) -> list[Numbers]:
    """Run configs/inference.json on the datalist of `make_case`; a row per case."""
    settings: dict[str, Any] = {"dataset_dir": str(folder / "datalist.json"), "logging_file": False}
    settings |= {"output_dir": str(folder / "inference"), "checkpoint::path": str(checkpoint)}
    workflow = load("react_kd", "inference", **settings)
    workflow.initialize()
    workflow.run()
    lines = (folder / "inference" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    report.heading("Inference")
    report.paragraph("The student was trained on simulated cases: its grade of this CT means nothing.")
    report.table(
        [{"case": row["scan_id"], "streams": "+".join(row["streams"]), **row["probabilities"]} for row in rows],
        "Probabilities",
    )
    for row in rows:
        overlay = folder / "inference" / row["scan_id"] / "overlay.png"
        report.figure(overlay, f"{NAME}: {row['scan_id']}. {'; '.join(row['notes'])}")
    kept = ("scan_id", "grade", "probabilities", "entropy", "streams", "missing", "notes", "seconds")
    return [{key: row[key] for key in kept} for row in rows]


def _student(parser: ConfigParser, checkpoint: str | Path, seed: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = parser.get_parsed_content("network_def")
    return (load_student(student, checkpoint) if checkpoint else student).eval()


def _regions_on_ct(case: Case, regions: MetaTensor) -> tuple[NDArray, NDArray, list[float]]:
    """CT and region labels (X, Y, Z) about the liver, and mm: every second pixel, K masks of it fit in memory."""
    box = ndimage.find_objects((case.array("liver") > 0).astype(np.uint8))[0]
    step = 2 if case.spacing[0] < 2 else 1
    view = (*(slice(max(side.start - round(40 / case.spacing[0]), 0), side.stop, step) for side in box[:2]), box[2])
    ct = case.volumes["ct"].slicer[view]
    labels = nib.Nifti1Image(np.asarray(regions[0], dtype=np.uint8), np.asarray(regions.affine, dtype=float))
    spacing = [float(size) for size in ct.header.get_zooms()]
    return np.asarray(ct.dataobj), np.asarray(resample_from_to(labels, ct, order=0).dataobj), spacing


def _liver(scan: NDArray, inside: NDArray[np.bool_]) -> dict[str, float]:
    return {"mean_hu": float(scan[inside].mean()), "sd_hu": float(scan[inside].std())}


def _plane(volume: torch.Tensor, z: int) -> NDArray:
    return np.asarray(volume[0, :, :, z])
