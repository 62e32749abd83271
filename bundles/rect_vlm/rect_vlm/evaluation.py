"""Evaluation: the trained model on a split, beside the floors that it must beat.

What is written is in evaluation_report.py. N scans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from medbundles.folders import check_writable
from medbundles.precision import Precision
from medbundles.resampling import Floats, bootstrap_weights
from monai.inferers import Inferer
from torch import Tensor

from rect_vlm import evaluation_floors as floors
from rect_vlm.data import CtDataset
from rect_vlm.evaluated import Evaluated, FindingResults, LesionResults
from rect_vlm.evaluation_cohort import Cohort, EvaluationCohort
from rect_vlm.evaluation_report import write_evaluation
from rect_vlm.evaluation_results import finding_results, lesion_results, report_results
from rect_vlm.evaluation_scans import Reading, ScanReader
from rect_vlm.inference import Writing
from rect_vlm.model import ReCTVLM
from rect_vlm.predictions import check_threshold
from rect_vlm.records import Record, label_table, prevalence
from rect_vlm.report_comparison import make_labeler
from rect_vlm.report_labeler import ReportLabeler
from rect_vlm.trained_model import checkpoint_sums


class ModelEvaluation:
    """Evaluates the model that training left; `metrics` holds its own values after `run`.

    Args:
        precision: device and autocast.
        trained: loads the model, see `trained_model.load_trained`.
        cohort: the scans.
        dataset: CtDataset with every argument but `records`.
        inferer: runs the encoder.
        writing: of the reports.
        model_dir: folder of the trained model.
        output_dir: gets tables, figures and the page.
        mask_threshold: a voxel belongs to a lesion above it.
        radbert, radbert_tokenizer: checkpoint and tokenizer folder of the learned labeler; without them the
            rule labeler reads the reports.
        n_bootstrap, seed: of the intervals; `seed` also of the random floors.
        batch_size, num_workers: of the volumes.
        gallery: scans on the page, the worst ones and others evenly spread.

    Raises:
        ValueError: a threshold that is no probability; sampled reports, which no seed would repeat.
    """

    def __init__(
        self,
        precision: Precision,
        trained: Callable[[], ReCTVLM],
        cohort: EvaluationCohort,
        dataset: Callable[..., CtDataset],
        inferer: Inferer,
        writing: Writing,
        model_dir: str,
        output_dir: str,
        mask_threshold: float = 0.5,
        radbert: str | None = None,
        radbert_tokenizer: str | None = None,
        n_bootstrap: int = 1000,
        seed: int = 0,
        batch_size: int = 8,
        num_workers: int = 0,
        gallery: int = 9,
    ) -> None:
        if writing.do_sample:
            raise ValueError("an evaluation writes greedy reports, got do_sample=True")
        self.precision, self.trained, self.cohort, self.build = precision, trained, cohort, dataset
        self.inferer, self.writing, self.model_dir = inferer, writing, model_dir
        self.output_dir = Path(output_dir).expanduser().absolute()
        self.mask_threshold = check_threshold(mask_threshold)
        self.radbert, self.radbert_tokenizer = radbert, radbert_tokenizer
        self.n_bootstrap, self.seed, self.gallery = n_bootstrap, seed, gallery
        self.batch_size, self.num_workers = batch_size, num_workers
        self.metrics: dict[str, float] = {}

    def run(self) -> None:
        """Check everything, read the scans, and leave tables, figures and a page.

        Raises:
            FileNotFoundError: no trained model, or no such cohort; the first says which command trains one.
            ValueError: broken records, or a model that does not fit.
            OSError: the output folder cannot be written.
        """
        check_writable(self.output_dir)
        labeler = make_labeler(self.radbert, self.radbert_tokenizer, self.precision.device)
        model = self.trained()
        cohort = self.cohort.read()
        dataset = self.build(records=cohort.records)
        dataset.fill_cache()
        self.precision.prepare(model)
        reader = self._reader(model)
        found = self._evaluate(reader, dataset, cohort, labeler)
        self.metrics = _own_values(found)
        write_evaluation(self.output_dir, found, reader, dataset, self.gallery)

    def _reader(self, model: ReCTVLM) -> ScanReader:
        search = self.writing.search if self.writing.report else None
        return ScanReader(
            model,
            self.precision,
            self.inferer,
            search,
            self.mask_threshold,
            self.batch_size,
            self.num_workers,
        )

    def _evaluate(
        self, reader: ScanReader, dataset: CtDataset, cohort: Cohort, labeler: tuple[str, ReportLabeler]
    ) -> Evaluated:
        records = cohort.records
        weights = bootstrap_weights([record["patient"] for record in records], self.n_bootstrap, self.seed)
        readings = {floors.MODEL: reader.read(dataset, "scans")}
        notes = list(cohort.notes)
        try:
            shuffled = dataset.with_shuffled_images(self.seed)
        except ValueError as reason:
            notes.append(f"There is no row with shuffled images: {reason}.")
        else:
            readings[floors.SHUFFLED] = reader.read(shuffled, "shuffled images", outline=False)
        said = {name: [str(row.report) for row in rows] for name, rows in readings.items()}
        return Evaluated(
            records=records,
            readings=readings[floors.MODEL],
            findings=self._findings(reader, cohort, readings, weights),
            lesions=self._lesions(readings[floors.MODEL], weights),
            reports=report_results(cohort, said, labeler, weights, self.seed)
            if self.writing.report
            else None,
            facts=self._facts(reader.model, records, labeler[0]),
            notes=notes,
        )

    def _findings(
        self, reader: ScanReader, cohort: Cohort, readings: Mapping[str, Sequence[Reading]], weights: Floats
    ) -> FindingResults | None:
        labels = label_table(cohort.records).double().numpy()
        if (labels < 0).all():
            return None
        probabilities = {
            name: np.stack([_array(reading.probabilities) for reading in rows])
            for name, rows in readings.items()
        }
        known = [record for record in (*cohort.training, *cohort.held_out) if record["labels"]]
        if known:
            shares = _array(prevalence(known))
            probabilities[floors.PREVALENCE] = np.broadcast_to(shares, labels.shape)
        held_out = None
        if cohort.held_out:
            dataset = self.build(records=cohort.held_out)
            dataset.fill_cache()
            said = _array(reader.findings(dataset, "held-out training scans"))
            held_out = said, label_table(cohort.held_out).double().numpy()
        return finding_results(probabilities, labels, held_out, weights)

    def _lesions(self, readings: Sequence[Reading], weights: Floats) -> LesionResults | None:
        scans = [reading.lesions for reading in readings]
        return lesion_results(scans, weights) if any(scans) else None

    def _facts(self, model: ReCTVLM, records: Sequence[Record], labeler: str) -> dict[str, Any]:
        return {
            **asdict(self.cohort),
            "simulated": self.cohort.simulated,
            "n_scans": len(records),
            "n_patients": len({record["patient"] for record in records}),
            "labeler": labeler,
            "writing": asdict(self.writing),
            "mask_threshold": self.mask_threshold,
            "bootstrap": {"replicates": self.n_bootstrap, "seed": self.seed, "unit": "patient"},
            "checkpoint": {
                "folder": str(Path(self.model_dir).absolute()),
                "sums": checkpoint_sums(self.model_dir, model),
            },
        }


def _array(values: Tensor) -> Floats:
    return values.double().numpy()


def _own_values(found: Evaluated) -> dict[str, float]:
    values: dict[str, float] = {}
    for results in (found.findings, found.reports):
        if results is not None:
            values |= {name: value for name, (value, _) in results.scores[floors.MODEL].items()}
    if found.lesions is not None:
        values["dice"] = float(found.lesions.rows[-1]["dice"]["value"])
    return values
