"""Inference: grade every case of a folder or datalist with a trained student, and explain each grade."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from medbundles.engines.checkpointing import load_weights
from medbundles.folders import check_writable
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer
from monai.transforms import Compose
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor
from torch.utils.data import Subset

from react_kd.case_outputs import CaseResult, PredictionFolder
from react_kd.case_report import carried_maps, notes, picture, prediction_row, regions_report
from react_kd.case_sources import cases_from
from react_kd.cases import CLASSES, describe, stem
from react_kd.ct_space import CTSpace
from react_kd.explain import BETA, Explanation, explain, stream_spread
from react_kd.fingerprint import hash_case, hash_transforms
from react_kd.networks import Student
from react_kd.validation import validate_cases
from react_kd.workflow import student_availability

__all__ = ["CaseDataset", "Predictor", "cases_from", "load_student"]

logger = logging.getLogger(__name__)

STREAMS = ("auto", "ct", "petct")
TRAIN_COMMAND = "python -m monai.bundle run training --config_file bundles/react_kd/configs/train.json"


def load_student(network: Student, path: str | Path) -> Student:
    """Load a trained student strictly and return it.

    Raises:
        FileNotFoundError: no checkpoint; says which command trains one.
        ValueError: not a weights file, or of another architecture.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no trained student at {Path(path).absolute()}: train one with `{TRAIN_COMMAND}`, "
            "or name the folder of a model.pt with --ckpt_dir"
        )
    load_weights(network, path, "student")
    return network


class CaseDataset(Dataset):
    """Cases checked and preprocessed on demand; one that cannot be comes as its `error`, the others go on."""

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Compose) -> None:
        super().__init__([_with_ids(case) for case in data], transform)

    def _transform(self, index: int) -> dict[str, Any]:
        case, start = self.data[index], time.perf_counter()
        try:
            validate_cases([case], progress=False, allow_no_lesion=True)
            sample = self.transform(dict(case))  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - files can be broken in any way; it is reported
            return {"index": index, "error": _reason(error)}
        return {**sample, "index": index, "seconds": time.perf_counter() - start}


class Predictor(SupervisedEvaluator):
    """Evaluator that writes, case by case, prediction, maps, region table and picture (docs/inference.md).

    A case that fails is listed in failed.json and the others go on; `run` raises at the end. Cases that an
    earlier run finished with the same files, weights and settings are skipped.

    Args:
        device: where the network is.
        network: a trained Student.
        dataset: cases, with the preprocessing (keep_meta=True) as its transform.
        output_dir: gets a folder for each case and the tables over all of them.
        inferer: runs the network's `features`.
        postprocessing: turns logits under the key `pred` into probabilities.
        val_handlers: further handlers.
        streams: "auto" uses PET where a case has it, "ct" never, "petct" fails for a case without.
        overwrite: predict finished cases again.
        overlays: draw overlay.png, which takes longer than the prediction itself.
        num_workers: processes that prepare cases ahead.
        beta: smoothing of Topo Grad-CAM.
        classes: names of the grades.

    Raises:
        ValueError: unknown `streams`.
    """

    def __init__(
        self,
        device: torch.device,
        network: Student,
        dataset: CaseDataset,
        output_dir: str,
        inferer: Inferer,
        postprocessing: Compose,
        val_handlers: Sequence[Any] | None = None,
        streams: str = "auto",
        overwrite: bool = False,
        overlays: bool = True,
        num_workers: int = 0,
        beta: float = BETA,
        classes: Sequence[str] = CLASSES,
    ) -> None:
        if streams not in STREAMS:
            raise ValueError(f"streams must be one of {', '.join(STREAMS)}, got {streams!r}")
        loader = DataLoader(dataset, batch_size=1)
        super().__init__(
            device, loader, network, inferer=inferer, postprocessing=postprocessing, val_handlers=val_handlers
        )
        self.dataset, self.output = dataset, PredictionFolder(output_dir, classes)
        self.streams, self.overwrite, self.overlays = streams, overwrite, overlays
        self.num_workers = num_workers
        self.beta, self.classes = beta, tuple(classes)
        self.fingerprints: list[str] = []

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Predict the cases that are not finished.

        Raises:
            ValueError: a scan_id that cannot be the name of a folder.
            OSError: the output folder cannot be written; what is there stays.
            RuntimeError: some cases failed; all others are written.
        """
        cases = self.dataset.data
        check_writable(self.output.folder)
        self.fingerprints = self._fingerprints()
        known = [
            None if self.overwrite else self.output.finished(case["scan_id"], print_)
            for case, print_ in zip(cases, self.fingerprints, strict=True)
        ]
        pending = [i for i, row in enumerate(known) if row is None]
        self.output.start(row for row in known if row is not None)
        if pending:
            todo: Any = Subset(self.dataset, pending)
            self.data_loader = DataLoader(todo, batch_size=1, num_workers=self.num_workers)
            self.state.epoch_length = len(pending)
            super().run(global_epoch)
        self.output.finish([case["scan_id"] for case in cases])
        failures = self.output.failures
        predicted, before = len(pending) - len(failures), len(cases) - len(pending)
        logger.info("%d cases predicted, %d finished before: %s", predicted, before, self.output.folder)
        if failures:
            listed = self.output.folder / "failed.json"
            first = f"{describe(failures[0])}: {failures[0]['error']}"
            raise RuntimeError(f"{len(failures)} of {len(cases)} cases failed, see {listed}; first {first}")

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> Any:
        case = self.dataset.data[int(batchdata["index"])]
        if "error" in batchdata:
            self.output.fail(case, batchdata["error"][0])
            return {}
        try:
            result = self._predict(engine, batchdata, case)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one case must not stop the others
            self.output.fail(case, _reason(error))
            return {}
        self.output.save(result)
        return engine.state.output

    def _predict(self, engine: Any, batchdata: dict[str, Any], case: dict[str, Any]) -> CaseResult:
        start = time.perf_counter()
        image: MetaTensor = decollate_batch({Keys.IMAGE: batchdata["image"]})[0][Keys.IMAGE]
        batch = {k: _plain(v, engine.state.device) for k, v in batchdata.items() if isinstance(v, Tensor)}
        volume, available = self._inputs(batch)
        why, spread = self._forward(engine, volume, available, batch["regions"])
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)  # decollates and postprocesses
        streams = ("ct",) if available is None else ("ct", "pet")
        row = prediction_row(
            case, self.classes, engine.state.output[0][Keys.PRED], streams, int(batch["label"])
        )
        space = CTSpace(case, self.dataset.transform, image)
        maps = carried_maps(space, why, spread)
        regions = regions_report(case, why, self.beta, batch["regions"][0, 0].cpu(), image.affine)
        overlay = picture(space, maps, row) if self.overlays else None
        row["notes"] = notes(case, why, maps)
        row["seconds"] = round(float(batchdata["seconds"]) + time.perf_counter() - start, 3)
        row["fingerprint"] = self.fingerprints[int(batchdata["index"])]
        return CaseResult(row, regions, {k: v[0].numpy() for k, v in maps.items()}, space.affine, overlay)

    def _forward(
        self, engine: Any, volume: Tensor, available: Tensor | None, regions: Tensor
    ) -> tuple[Explanation, Tensor | None]:
        network = engine.network
        with engine.mode(network):
            features = engine.inferer(volume, network.features, available=available)
            engine.state.output = {Keys.PRED: network.head(features)}
            why = explain(network.head, features, regions, beta=self.beta)
            if available is None:
                return why, None
            return why, stream_spread(network, volume, regions, why.target, self.beta)

    def _inputs(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """The network's input (1, 1 or 3, X, Y, Z) and its available streams; None for CT alone."""
        has_pet = bool(batch["pet_available"].any())
        if self.streams == "petct" and not has_pet:
            raise ValueError("streams=petct needs a PET under key pet_fdg or pet_act, the case has neither")
        if self.streams == "ct" or not has_pet:
            return batch["image"], None
        return torch.cat([batch["image"], batch["pet"]], dim=1), student_availability(dict(batch))

    def _fingerprints(self) -> list[str]:
        """For each case, a key of its files, the weights and all settings that a prediction depends on."""
        weights = hashlib.sha256()
        for name, tensor in self.network.state_dict().items():
            weights.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        steps = hash_transforms(self.dataset.transform.flatten().transforms)
        common = [weights.hexdigest(), steps.decode(), self.streams, self.beta, self.classes]
        prints = []
        for case in self.dataset.data:
            try:
                files = hash_case(case).decode()
            except OSError:  # a file that is not there is reported when its turn comes
                files = ""
            prints.append(hashlib.sha256(json.dumps([*common, files]).encode()).hexdigest())
        return prints


def _with_ids(case: Mapping[str, Any]) -> dict[str, Any]:
    scan = str(case.get("scan_id") or stem(case.get("image") or "scan"))
    return {"patient_id": scan, **case, "scan_id": scan}


def _plain(value: Tensor, device: torch.device) -> Tensor:
    return (value.as_tensor() if isinstance(value, MetaTensor) else value).to(device)


def _reason(error: BaseException) -> str:
    """An error in one line, without what MONAI wraps around the error of a transform."""
    while error.__cause__ is not None and str(error).startswith("applying transform"):
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
