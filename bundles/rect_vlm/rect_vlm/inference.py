"""Inference: what every CT of a folder shows, where, and its report, by a trained model."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from medbundles.errors import one_line
from medbundles.folders import check_writable
from medbundles.precision import Precision
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer
from monai.transforms import Compose
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.utils.data import Subset

from rect_vlm.case_outputs import PAGE, PICTURE, PROBABILITIES, CaseResult, PredictionFolder
from rect_vlm.case_page import write_page
from rect_vlm.case_row import notes, prediction_row
from rect_vlm.case_volumes import CaseVolumes, one_sample, study_of
from rect_vlm.fingerprint import transform_key, volume_key
from rect_vlm.lesion_maps import LesionMaps, lesion_maps
from rect_vlm.lesion_tokens import with_lesions
from rect_vlm.model import ReCTVLM
from rect_vlm.predictions import HALF, Threshold, check_threshold, finding_limits
from rect_vlm.records import describe
from rect_vlm.studies import Study
from rect_vlm.trained_model import check_flags, checkpoint_sums

__all__ = ["Predictor", "Writing"]

logger = logging.getLogger(__name__)

VERSION = 1  # raise when the same settings write something else


@dataclass(frozen=True)
class Writing:
    """How reports are written: whether at all, and the arguments of `ReportGenerator.generate`."""

    report: bool = True
    max_new_tokens: int = 512
    do_sample: bool = False
    temperature: float = 0.7
    top_p: float = 0.9

    @property
    def search(self) -> dict[str, Any]:
        """Arguments of `generate`."""
        return {key: value for key, value in asdict(self).items() if key != "report"}


class Predictor(SupervisedEvaluator):
    """Evaluator that writes, case by case, prediction, masks and picture, and a page (docs/inference.md).

    The model is loaded when `run` is called. A case that fails is listed in failed.json and the others go on;
    `run` raises at the end. Cases that an earlier run finished with the same files, weights and settings are
    skipped.

    Args:
        precision: device and autocast.
        network: the deployed network, until the trained model takes its place.
        dataset: cases, with `eval_transform` on the model's grid.
        output_dir: gets a folder for each case, the lines and the page over all of them.
        inferer: runs the encoder.
        postprocessing: turns the logits of the masks under the key `pred` into probabilities.
        model_dir: folder of the trained model.
        trained: loads it, see `trained_model.load_trained`.
        writing: of the reports.
        finding_threshold: a finding is present above it, one for all or one for each of the 18; None takes
            those of the model.
        mask_threshold: a voxel belongs to a lesion above it; the evidence always goes by 0.5, as in training.
        val_handlers: further handlers.
        probability_maps: write the probabilities of every lesion too.
        page_cases: cases on the page, the first ones; 0 writes no page.
        num_workers: processes that prepare cases ahead.
        overwrite: predict finished cases again.

    Raises:
        ValueError: a threshold that is no probability, or a flag that is no bool.
    """

    def __init__(
        self,
        precision: Precision,
        network: nn.Module,
        dataset: CaseVolumes,
        output_dir: str,
        inferer: Inferer,
        postprocessing: Compose,
        model_dir: str,
        trained: Callable[[], ReCTVLM],
        writing: Writing,
        finding_threshold: Threshold | None = None,
        mask_threshold: float = 0.5,
        val_handlers: Sequence[Any] | None = None,
        probability_maps: bool = False,
        page_cases: int = 24,
        num_workers: int = 0,
        overwrite: bool = False,
    ) -> None:
        check_flags(
            report=writing.report, do_sample=writing.do_sample, pictures=dataset.pictures,
            probability_maps=probability_maps, overwrite=overwrite,
        )  # fmt: skip
        super().__init__(
            precision.device, DataLoader(dataset, collate_fn=one_sample), network, inferer=inferer,
            postprocessing=postprocessing, val_handlers=val_handlers, decollate=False,
        )  # fmt: skip
        self.precision, self.dataset, self.trained, self.writing = precision, dataset, trained, writing
        self.model_dir, self.outputs = model_dir, PredictionFolder(output_dir)
        self.finding_threshold = finding_threshold
        self.limits = finding_limits(HALF if finding_threshold is None else finding_threshold)
        self.mask_threshold = check_threshold(mask_threshold)
        self.probability_maps, self.page_cases = probability_maps, page_cases
        self.num_workers, self.overwrite = num_workers, overwrite
        self.fingerprints: list[str] = []

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Predict the cases that are not finished, then write the page.

        Raises:
            FileNotFoundError: no trained model.
            ValueError: a model that does not fit, or an id that cannot be the name of a folder.
            OSError: the output folder cannot be written; what is there stays.
            RuntimeError: some cases failed; all others are written.
        """
        cases = self.dataset.data
        check_writable(self.outputs.folder)
        model = self.trained()
        self.network = self.precision.prepare(model)
        self.limits = model.limits(self.finding_threshold)
        self.fingerprints = self._fingerprints(model)
        known = [self._finished(case, key) for case, key in zip(cases, self.fingerprints, strict=True)]
        pending = [i for i, row in enumerate(known) if row is None]
        self.outputs.start(row for row in known if row is not None)
        if pending:
            todo: Any = Subset(self.dataset, pending)
            self.data_loader = DataLoader(todo, num_workers=self.num_workers, collate_fn=one_sample)
            self.state.epoch_length = len(pending)
            super().run(global_epoch)
        self._close(len(pending))

    def _close(self, pending: int) -> None:
        cases, failures, folder = self.dataset.data, self.outputs.failures, self.outputs.folder
        rows = self.outputs.finish([case["id"] for case in cases])
        shown = rows[: self.page_cases]
        if shown:
            write_page(folder / PAGE, shown, len(rows), PICTURE, self.limits)
        else:
            (folder / PAGE).unlink(missing_ok=True)
        done, before = pending - len(failures), len(cases) - pending
        logger.info("%d CTs predicted, %d finished before: %s", done, before, folder)
        if failures:
            first = f"{describe(failures[0])}: {failures[0]['error']}"
            listed = folder / "failed.json"
            raise RuntimeError(f"{len(failures)} of {len(cases)} cases failed, see {listed}; first {first}")

    def _finished(self, case: Mapping[str, Any], fingerprint: str) -> dict[str, Any] | None:
        if self.overwrite:
            return None
        wanted = [PICTURE] * self.dataset.pictures + [PROBABILITIES] * self.probability_maps
        return self.outputs.finished(case["id"], fingerprint, wanted)

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> Any:
        case = self.dataset.data[batchdata["index"]]
        if "error" in batchdata:
            self.outputs.fail(case, batchdata["error"])
            return {}
        try:
            result = self._predict(engine, batchdata, case)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one case must not stop the others
            self.outputs.fail(case, one_line(error))
            return {}
        self.outputs.save(result)
        return engine.state.output

    def _predict(self, engine: Any, sample: dict[str, Any], case: Mapping[str, Any]) -> CaseResult:
        start = time.perf_counter()
        study = study_of(sample)
        probabilities, masks, lines, report = self._read(engine, study)
        maps = lesion_maps(study, masks, self.mask_threshold, self.probability_maps)
        row = prediction_row(case, probabilities, masks, maps, lines, report, self.limits)
        picture = self._picture(sample, maps, row) if self.dataset.pictures else None
        row["notes"] = notes(case, engine.network.geometry, maps)
        row["seconds"] = round(sample["seconds"] + time.perf_counter() - start, 3)
        row["fingerprint"] = self.fingerprints[sample["index"]]
        return CaseResult(row, maps, picture)

    def _read(self, engine: Any, study: Study) -> tuple[Tensor, Tensor, list[str], str | None]:
        """Probabilities (18,), masks (5, D, H, W), lines of evidence and report, on the CPU."""
        model: ReCTVLM = engine.network
        image = self.precision.to(study.image)
        regions = None if study.regions is None else study.regions.to(image.device)
        with engine.mode(model), self.precision.autocast():
            seen = engine.inferer(image, model.encode, regions=regions)
            found = model.probabilities(seen)
            logits = model.require("localizer")(seen, image)["logits"].float()
            engine.state.output = {Keys.PRED: logits[0]}
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            engine.fire_event(IterationEvents.MODEL_COMPLETED)  # postprocesses
            masks = torch.as_tensor(engine.state.output[Keys.PRED])
            lines = model.lines(found, masks[None], image, regions, study.spacing, self.limits)[0]
            report = self._report(model, seen, masks, lines) if self.writing.report else None
        return found[0].cpu(), masks.cpu(), lines, report

    def _report(self, model: ReCTVLM, seen: dict[str, Tensor], masks: Tensor, lines: list[str]) -> str:
        told = with_lesions(seen, masks[None], model.geometry.patch)
        return model.load_generator().generate(told, [lines], **self.writing.search)[0]

    def _picture(self, sample: Mapping[str, Any], maps: LesionMaps, row: Mapping[str, Any]) -> Any:
        from rect_vlm.slice_figures import slice_montage

        present = ", ".join(row["present"]) or "none"
        return slice_montage(
            sample["hu"].numpy(), maps.labels, maps.affine, row["id"], f"findings present: {present}"
        )

    def _fingerprints(self, model: ReCTVLM) -> list[str]:
        """For each case, a key of its files, the model and all settings that a prediction depends on."""
        common = [
            VERSION,
            checkpoint_sums(self.model_dir, model),
            transform_key(self.dataset.transform.transforms).decode(),  # type: ignore[attr-defined]
            asdict(self.writing),
            self.limits,
            self.mask_threshold,
        ]
        keys = []
        for case in self.dataset.data:
            try:
                files = volume_key(case).decode()
            except OSError:  # a file that is not there is reported when its turn comes
                files = ""
            keys.append(hashlib.sha256(json.dumps([*common, files]).encode()).hexdigest())
        return keys
