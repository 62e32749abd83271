"""The scans of an evaluation, and training scans for what must not be chosen on them: thresholds, floors."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rect_vlm import phantom
from rect_vlm.ctrate import read_ctrate
from rect_vlm.records import Record, hold_out
from rect_vlm.validation import check_records

MOST_HELD_OUT = 0.5  # of the training scans


@dataclass(frozen=True)
class Cohort:
    """records: evaluated. held_out: training scans that choose thresholds and the constant report.

    training: the other training scans, of which floors are made. notes: what the reader must know.
    """

    records: list[Record]
    held_out: list[Record]
    training: list[Record]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class EvaluationCohort:
    """Where the scans of an evaluation are; every scan counts once, by its first reconstruction.

    Args:
        dataset_dir: cohort in CT-RATE's layout.
        split: the one that is evaluated.
        training_dir: cohort whose training scans make thresholds and floors, the one the model learned from.
        hu_source, release: see `read_ctrate`.
        threshold_scans: training scans that are held out to choose thresholds, at most half of them.
        check_files: open all files before anything is computed.
        seed: of the choice of held-out scans.
    """

    dataset_dir: str
    split: str
    training_dir: str
    hu_source: str = "auto"
    release: str = "auto"
    threshold_scans: int = 80
    check_files: bool = True
    seed: int = 0

    def read(self) -> Cohort:
        """Read the tables, make what is missing of a simulated cohort, and check the files.

        Evaluated scans are never among the others, also where the training split itself is evaluated.

        Raises:
            FileNotFoundError, ValueError: see `read_ctrate`; all that is wrong with the files at once.
        """
        records = self._read(self.dataset_dir, self.split)
        training = self._training()
        patients = {record["patient"] for record in training}
        held_out: list[Record] = []
        if self.threshold_scans > 0 and len(patients) > 1:
            share = min(self.threshold_scans / len(training), MOST_HELD_OUT)
            training, held_out = hold_out(training, share, self.seed)
        if self._is_training:
            records, training = training, held_out
        if self.check_files:
            check_records({self.split: records, "held out": held_out}, tasks=())
        return Cohort(records, held_out, training, self._notes(held_out))

    @property
    def simulated(self) -> bool:
        """Whether the evaluated cohort is simulated."""
        return (Path(self.dataset_dir) / phantom.SIMULATION).is_file()

    @property
    def _is_training(self) -> bool:
        same = Path(self.dataset_dir).resolve() == Path(self.training_dir).resolve()
        return same and self.split == "train"

    def _read(self, folder: str, split: str) -> list[Record]:
        phantom.ensure(folder)
        options: dict[str, Any] = {"hu_source": self.hu_source, "release": self.release}
        return read_ctrate(folder, split, reconstructions="first", **options)

    def _training(self) -> list[Record]:
        folders = (Path(self.training_dir) / name for name in ("train_fixed", "train"))
        return self._read(self.training_dir, "train") if any(map(Path.is_dir, folders)) else []

    def _notes(self, held_out: list[Record]) -> list[str]:
        notes = []
        if self.simulated:
            notes.append("The cohort is simulated: no figure says anything about patients.")
        if self._is_training:
            notes.append("The model was trained on these scans: the numbers say nothing about new ones.")
        elif Path(self.dataset_dir).resolve() == Path(self.training_dir).resolve():
            notes.append(
                "Epochs were chosen on these scans, and so were the thresholds saved with the model, by "
                "which findings become evidence for the report: the numbers flatter the model."
            )
        if held_out:
            notes.append(
                f"Thresholds were chosen on {len(held_out)} training scans, which the model has learned from."
            )
        else:
            notes.append(
                "There are no training scans to choose thresholds on: all are 0.5. --training_dir names the "
                "cohort that the model was trained on."
            )
        return notes
