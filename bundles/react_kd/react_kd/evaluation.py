"""Evaluation: a trained student, and its teacher as upper reference, over CT doses and missing modalities.

What is written is in evaluation_report.py, what it means in docs/evaluation.md. B batch, N cases, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from medbundles.engines.checkpointing import load_weights
from medbundles.precision import Precision
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer
from numpy.typing import NDArray
from torch import Tensor, nn

from react_kd.cases import PET_KEYS, describe
from react_kd.evaluation_conditions import CT, Condition, EvaluationSplit
from react_kd.evaluation_report import Logits, Row, write_evaluation
from react_kd.inference import load_student
from react_kd.metrics import evaluate
from react_kd.networks import Student, Teacher
from react_kd.workflow import Batch, student_availability, teacher_availability


class GradingSweep(SupervisedEvaluator):
    """Evaluator of the student, and of the teacher if `<ckpt_dir>/teacher.pt` is there, under all conditions.

    Args:
        precision: device and autocast.
        network, teacher: filled with the weights of `ckpt_dir` when the evaluation starts.
        val_data_loader: the graded cases of `cohort` in their order, preprocessed by DoseSweep.
        cohort: the split that is evaluated.
        conditions: what the networks are given, one after the other.
        inferer: runs a network on its input.
        ckpt_dir: holds model.pt and, optionally, teacher.pt.
        output_dir: gets tables, figures and the report.
        prepare: called once the weights are found, before anything is computed; checks files and folders.
        n_bootstrap, seed: of the intervals.
    """

    def __init__(
        self,
        precision: Precision,
        network: Student,
        teacher: Teacher,
        val_data_loader: Any,
        cohort: EvaluationSplit,
        conditions: Sequence[Condition],
        inferer: Inferer,
        ckpt_dir: str,
        output_dir: str,
        prepare: Callable[[], Any],
        n_bootstrap: int = 1000,
        seed: int = 0,
        val_handlers: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(
            precision.device,
            val_data_loader,
            network,
            inferer=inferer,
            val_handlers=val_handlers,
            decollate=False,
        )
        self.precision, self.teacher, self.cohort, self.conditions = (
            precision,
            teacher,
            cohort,
            list(conditions),
        )
        self.ckpt_dir, self.output_dir, self.prepare = Path(ckpt_dir), Path(output_dir).absolute(), prepare
        self.n_bootstrap, self.seed = n_bootstrap, seed
        self.networks: dict[str, nn.Module] = {}
        self.parts: dict[tuple[str, str], list[Tensor]] = {}

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Evaluate and write; `state.metrics` holds the student with CT alone.

        Raises:
            FileNotFoundError: no trained student; says which command trains one.
            ValueError: weights of another architecture, or broken cases.
            OSError: the output folder cannot be written.
        """
        checkpoints = self._load()
        self.prepare()
        self.parts = {}
        super().run(global_epoch)
        logits = {key: torch.cat(parts).double().numpy() for key, parts in self.parts.items()}
        bootstrap = {"n_bootstrap": self.n_bootstrap, "seed": self.seed}
        results = measure(logits, self.cohort, self.conditions, **bootstrap)
        self.state.metrics = {name: entry["value"] for name, entry in results[0]["metrics"].items()}
        write_evaluation(self.output_dir, self.cohort, checkpoints, results, logits)

    def _load(self) -> dict[str, Path]:
        """Fill the networks from `ckpt_dir`; the files that were read, by the name of the network."""
        found = {"student": (self.ckpt_dir / "model.pt").absolute()}
        self.networks = {"student": load_student(self.network, found["student"])}  # type: ignore[arg-type]
        teacher = (self.ckpt_dir / "teacher.pt").absolute()
        if teacher.is_file():
            load_weights(self.teacher, teacher, "teacher")
            found["teacher"], self.networks["teacher"] = teacher, self.teacher
        for network in self.networks.values():
            self.precision.prepare(network).eval()
        return found

    @torch.inference_mode()
    def _iteration(self, engine: Any, batchdata: Batch) -> dict[str, Tensor]:
        batch = {
            key: self.precision.to(value) for key, value in batchdata.items() if isinstance(value, Tensor)
        }
        for name, network in self.networks.items():
            for condition in self.conditions:
                if name == "student" or "ct" in condition.streams:  # all the teacher's streams hold CT
                    logits = self._grade(network, batch, condition)
                    self.parts.setdefault((name, condition.name), []).append(logits.float().cpu())
        return {"label": batch["label"]}

    def _grade(self, network: nn.Module, batch: Batch, condition: Condition) -> Tensor:
        """Logits (B, K), nan for the cases without the PET that the condition needs."""
        if "pet" not in condition.streams:
            return self._logits(network, batch, condition)
        has_pet = batch["pet_available"].any(dim=1)
        logits = torch.full((len(has_pet), len(self.cohort.classes)), torch.nan, device=has_pet.device)
        if has_pet.any():
            chosen = {key: value[has_pet] for key, value in batch.items()}
            logits[has_pet] = self._logits(network, chosen, condition).float()
        return logits

    def _logits(self, network: nn.Module, batch: Batch, condition: Condition) -> Tensor:
        key, channel = condition.source
        ct, with_pet = batch[key][:, channel : channel + 1], "pet" in condition.streams
        if isinstance(network, Teacher):
            available = teacher_availability(batch)
            available[:, :2] &= with_pet
            with self.precision.autocast(windowed=True):
                return self.inferer(ct, network, batch["pet"], ct, available)["logits"]
        with self.precision.autocast():
            if not with_pet:
                return self.inferer(ct, network)
            available = student_availability(batch)
            available[:, 0] &= "ct" in condition.streams
            return self.inferer(torch.cat([ct, batch["pet"]], dim=1), network, available=available)


def measure(
    logits: Logits, cohort: EvaluationSplit, conditions: Sequence[Condition], **bootstrap: Any
) -> list[Row]:
    """`metrics.evaluate` of every network and condition: a row each, in the order of `logits`.

    Conditions with PET are measured on the cases that have one, `cases` is then "with PET". Where those are
    not all cases, CT alone is measured on them as well, to be compared with.

    Raises:
        ValueError: a network gave something that is not finite; names it, the condition and the case.
    """
    labels = np.array([case["label"] for case in cohort.graded])
    patients = np.array([case["patient_id"] for case in cohort.graded])
    everyone = np.ones(len(labels), dtype=bool)
    has_pet = np.array([any(case.get(key) for key in PET_KEYS) for case in cohort.graded])
    with_pet = {"all" if has_pet.all() else "with PET": has_pet}
    by_name = {condition.name: condition for condition in conditions}
    results = []
    for (network, name), z in logits.items():
        condition = by_name[name]
        groups = with_pet if "pet" in condition.streams else {"all": everyone}
        for group, chosen in {**groups, **(with_pet if condition == CT else {})}.items():
            if not chosen.any():
                continue
            _check_finite(z[chosen], cohort, chosen, f"{network}, {name}")
            probs = torch.from_numpy(z[chosen]).softmax(dim=1).numpy()
            scores = evaluate(probs, labels[chosen], cohort.classes, patients[chosen].tolist(), **bootstrap)
            given: Row = {"network": network, "condition": name, "streams": list(condition.streams)}
            given |= {"photons": condition.photons, "noise_model": condition.noise_model, "cases": group}
            results.append(given | scores)
    return results


def _check_finite(logits: NDArray, cohort: EvaluationSplit, chosen: NDArray, what: str) -> None:
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        case = cohort.graded[np.flatnonzero(chosen)[broken[0]]]
        raise ValueError(
            f"{what}: logits must be finite, got {logits[broken[0]].tolist()} for {describe(case)}"
        )
