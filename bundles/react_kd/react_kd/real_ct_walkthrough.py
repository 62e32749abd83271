"""One real CT through the whole method: fewer photons, preprocessing, region graph, inference.

The CT, its liver and its noise are real (one person); the lesions and both PET images are simulated. It shows
that real files pass, and how they look on the way; no grade given here means anything.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from medbundles.atomic import replacing, write_text
from medbundles.registry import get, load
from medbundles.report import HtmlReport, save_figure
from medbundles.samples import SAMPLES, fetch
from monai.bundle import ConfigParser

from react_kd.inference import load_student
from react_kd.networks import Student
from react_kd.real_cohort import CT_SAMPLE, Anatomy, load_anatomy
from react_kd.real_ct_case import CT_PET, GRADE, NAME, make_case

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)
WHOLE_MM = 1000.0  # a margin about the liver that keeps the whole CT
PICTURE_BYTES = 250_000
Numbers = dict[str, Any]


def main(
    output: str,
    checkpoint: str = "",
    photons: float | str | Sequence[float] = "50000,10000,1000",
    seed: int = 0,
) -> str:
    """Command: take the real chest CT with simulated lesions through every step; returns the HTML report.

    Args:
        output: folder for the files of the case, pictures, what was measured (real_ct.json) and the report.
        checkpoint: a trained student of configs/inference.json; without one, inference is left out and the
            region graph is that of an untrained student.
        photons: photons per ray, several as "50000,1000".
        seed: of the lesions, the photon noise and an untrained student.
    """
    parts = photons.split(",") if isinstance(photons, str) else np.atleast_1d(cast(Any, photons)).tolist()
    levels = sorted({float(part) for part in parts}, reverse=True)
    return str(walk_through(load_anatomy(fetch(CT_SAMPLE), WHOLE_MM), output, checkpoint, levels, seed))


def walk_through(
    anatomy: Anatomy, output: str | Path, checkpoint: str | Path, photons: Sequence[float], seed: int = 0
) -> Path:
    """Every step of `main` on this anatomy; returns the path of the report.

    Raises:
        FileNotFoundError: the checkpoint is not there; before anything is computed.
        ValueError: the checkpoint is of another architecture.
    """
    from react_kd.real_ct_steps import low_dose, preprocessed, region_graph

    config = ConfigParser()
    config.read_config(str(get("react_kd").root / "configs" / "train.json"))
    config["preprocess"]["keep_meta"] = True  # where the network's grid lies; changes no value
    student = _student(config, checkpoint, seed)
    folder = Path(output).expanduser().absolute()
    source = f"{SAMPLES[CT_SAMPLE].source}; licence {SAMPLES[CT_SAMPLE].licence}"
    case = make_case(anatomy, folder, seed, source)
    report = HtmlReport("REACT-KD on a real CT", f"{NAME}. CT: {source}.")
    report.paragraph(
        "Real: the CT and its liver, of one person. Simulated: lesions, grade and both PET images."
    )

    doses, figure = low_dose(case, photons, seed)
    _picture(report, figure, folder / "low_dose.png", "Low-dose CT")
    report.table(doses, "Healthy liver, HU", digits=1)
    sample: Any = config.get_parsed_content("preprocess")
    sample = sample({"scan_id": CT_PET, "label": GRADE, **case.files})
    arrays, figure = preprocessed(case, sample, config["dose_levels"])
    _picture(report, figure, folder / "preprocessing.png", "Preprocessing")
    graph, figure = region_graph(case, sample, student, trained=bool(checkpoint))
    _picture(report, figure, folder / "region_graph.png", "Region graph")

    numbers = {"name": NAME, "source": source, "seed": seed, "shape": list(case.array("ct").shape)}
    numbers |= {"spacing_mm": case.spacing, "low_dose": doses, "preprocessing": arrays, "region_graph": graph}
    if checkpoint:
        numbers["inference"] = infer(folder, checkpoint, report)
    else:
        logger.warning("no trained student given (checkpoint=...): inference and its pictures are left out")
        report.paragraph("No trained student was given: inference was left out.")
    write_text(folder / "real_ct.json", json.dumps(numbers, indent=1) + "\n")
    return report.save(folder / "real_ct.html")


def infer(folder: Path, checkpoint: str | Path, report: HtmlReport) -> list[Numbers]:
    """Run configs/inference.json on the datalist of `make_case` in `folder`; a row per case."""
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
        [
            {"case": row["scan_id"], "streams": "+".join(row["streams"]), **row["probabilities"]}
            for row in rows
        ],
        "Probabilities",
    )
    for row in rows:
        overlay = folder / "inference" / row["scan_id"] / "overlay.png"
        small = _small(overlay, folder / f"overlay_{row['scan_id']}.png")
        report.figure(small, ". ".join([NAME, row["scan_id"], *row["notes"]]))
    kept = ("scan_id", "grade", "probabilities", "entropy", "streams", "missing", "notes", "seconds")
    return [{key: row[key] for key in kept} for row in rows]


def _student(config: ConfigParser, checkpoint: str | Path, seed: int) -> Student:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = cast(Student, config.get_parsed_content("network_def"))
    return cast(Student, (load_student(student, checkpoint) if checkpoint else student).eval())


def _picture(report: HtmlReport, figure: Figure, path: Path, title: str) -> None:
    report.heading(title)
    report.figure(_small(save_figure(figure, path), path), f"{title}: {NAME}.")


def _small(picture: Path, path: Path) -> Path:
    """Write a picture to `path`, with 256 colours if it is larger than `PICTURE_BYTES`, as noise makes it."""
    from PIL import Image

    large = picture.stat().st_size > PICTURE_BYTES
    with Image.open(picture) as image, replacing(path) as temporary:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE) if large else image
        few.save(temporary, format="PNG", optimize=True, dpi=image.info["dpi"])
    return path
