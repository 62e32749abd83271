"""What the phases of a run score on the test cohort, by the functions of the evaluation. N scans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from medbundles.resampling import Floats
from monai.utils import set_determinism

from rect_vlm import evaluation_floors as floors
from rect_vlm.comparison.plan import ARMS, Budget, Run
from rect_vlm.comparison.training import evaluation_config, phases_of, training_folder
from rect_vlm.data import CtDataset, eval_loader
from rect_vlm.evaluation_cohort import Cohort, EvaluationCohort
from rect_vlm.evaluation_results import finding_results, lesion_results, report_results
from rect_vlm.evaluation_scans import Reading, ScanReader
from rect_vlm.grpo_policy import GeneratorPolicy
from rect_vlm.grpo_trainer import GrpoTrainer
from rect_vlm.model import ReCTVLM
from rect_vlm.part_weights import PartWeights, read_parts
from rect_vlm.phases import ORDER, Phase, sources
from rect_vlm.records import label_table
from rect_vlm.reinforcement import OPTIONS, StudyBatches
from rect_vlm.report_comparison import make_labeler
from rect_vlm.rewards import RewardModel
from rect_vlm.thresholds import read_thresholds

Scores = dict[str, float]  # by paths such as auroc/macro, dice/lung_nodule, reports/model/bleu4, reward/after
JUDGED = ("1.1", "1.2", "2", "3")  # 1.3 learns from true evidence, which no test scan comes with
LESION_SCORES = ("dice", "false_ml", "false_alarm")


def run_scores(folder: Path, budget: Budget, run: Run) -> dict[str, Scores]:
    """Scores of a trained run by phase: of the findings, lesions and reports that the phase trains."""
    examination = Examination(folder, budget, run)
    return {name: examination.scores(name) for name in ARMS[run.arm].phases if name in JUDGED}


class Examination:
    """The test scans, and the model of a run, into which one phase after another is read.

    Args:
        folder: of the comparison.
        budget, run: what was trained.
    """

    def __init__(self, folder: Path, budget: Budget, run: Run) -> None:
        self.config = evaluation_config(folder, budget, run)
        self.seed, self.models = run.seed, training_folder(folder, run) / "models"
        self.phases = phases_of(self.config)
        reader: EvaluationCohort = self.config.get_parsed_content("cohort")
        self.cohort: Cohort = reader.read()
        self.dataset: CtDataset = self.config.get_parsed_content("dataset")(records=self.cohort.records)
        self.dataset.fill_cache()
        self.precision = self.config.get_parsed_content("precision")
        self.model: ReCTVLM = self.config.get_parsed_content("model")

    def scores(self, name: str) -> Scores:
        """Scores of all that the phase of this name trains; its parts must be on disk."""
        phase = self.phases[name]
        self.load(phase)
        readings = self._reader(phase).read(self.dataset, f"phase {name}", outline="loc" in phase.losses)
        found: Scores = {}
        if "cls" in phase.losses:
            found |= self._findings(readings)
        if "loc" in phase.losses:
            found |= self._lesions(readings)
        if _writes(phase):
            found |= self._reports(phase, readings)
        if "reward" in phase.losses:
            found |= self._rewards(phase)
        return found

    def load(self, phase: Phase) -> None:
        """Every part of the model as the newest phase up to this one left it."""
        if "projector" in phase.parts and self.model.generator is None:
            self.config.get_parsed_content("add_generator")()
        origin = {part: name for part, name in sources(phase, self.phases).items() if name is not None}
        origin |= dict.fromkeys(phase.trains, phase.name)
        for name in ORDER:
            if parts := [part for part, source in origin.items() if source == name]:
                file = self.models / f"{self.phases[name].stem}.pt"
                state = read_parts(file, parts, f"scores of phase {phase.name}")
                PartWeights(self.model, parts).load_state_dict(state)
        if _writes(phase):  # the evidence goes by those that the saved model has
            self.model.thresholds = read_thresholds(self.models / "rect_vlm")
        self.precision.prepare(self.model)

    def _reader(self, phase: Phase) -> ScanReader:
        search = {"max_new_tokens": self.config["max_new_tokens"], "do_sample": False}
        return ScanReader(
            self.model,
            self.precision,
            self.config.get_parsed_content("inferer"),
            search if _writes(phase) else None,
            self.config["mask_threshold"],
            self.config["val_batch_size"],
            self.config["num_workers"],
        )

    def _findings(self, readings: Sequence[Reading]) -> Scores:
        labels = label_table(self.cohort.records).double().numpy()
        said = np.stack([reading.probabilities.double().numpy() for reading in readings])
        results = finding_results({floors.MODEL: said}, labels, None, self._no_replicates)
        values = results.scores[floors.MODEL]
        found = {"auroc/macro": values["auroc_macro"][0], "ap/macro": values["ap_macro"][0]}
        return found | {f"auroc/{row['finding']}": row["auroc"]["value"] for row in results.per_finding}

    def _lesions(self, readings: Sequence[Reading]) -> Scores:
        results = lesion_results([reading.lesions for reading in readings], self._no_replicates)
        return {
            f"{score}/{row['lesion']}": row[score]["value"] for row in results.rows for score in LESION_SCORES
        }

    def _reports(self, phase: Phase, readings: Sequence[Reading]) -> Scores:
        said = {floors.MODEL: _texts(readings)}
        shuffled = self.dataset.with_shuffled_images(self.seed)
        said[floors.SHUFFLED] = _texts(self._reader(phase).read(shuffled, "shuffled images", outline=False))
        labeler = make_labeler(None, None, self.precision.device)
        results = report_results(self.cohort, said, labeler, self._no_replicates, self.seed)
        if results is None:
            raise ValueError("reports need references, the test cohort has none")
        return {
            f"reports/{arm}/{score}": value
            for arm, values in results.scores.items()
            for score, (value, _) in values.items()
        }

    def _rewards(self, phase: Phase) -> Scores:
        """Rewards of sampled reports before and after the phase, both against the policy before it."""
        before = sources(phase, self.phases)["lora"]
        if before is None:
            raise ValueError(f"phase {phase.name} is compared with an earlier one that trains lora, got none")
        numbers: dict[str, Any] = {k: v for k, v in phase.options.items() if k not in OPTIONS}
        loader = eval_loader(self.dataset, self.config["val_batch_size"], self.config["num_workers"])
        self.load(self.phases[before])
        policy = GeneratorPolicy(self.model.load_generator())
        trainer = GrpoTrainer(policy, RewardModel(numbers.pop("rewards", None)), **numbers)
        found: Scores = {}
        try:
            for when, name in (("before", before), ("after", phase.name)):
                self.load(self.phases[name])
                set_determinism(self.seed)
                rewards = trainer.evaluate(StudyBatches(self.model, loader, self.precision))
                found |= {f"{score}/{when}": value for score, value in rewards.items()}
        finally:
            policy.close()
        return found

    @property
    def _no_replicates(self) -> Floats:
        """(0, N): the spread is that over the seeds."""
        return np.empty((0, len(self.cohort.records)))


def _writes(phase: Phase) -> bool:
    return bool({"gen", "reward"} & set(phase.losses))


def _texts(readings: Sequence[Reading]) -> list[str]:
    return [str(reading.report) for reading in readings]
