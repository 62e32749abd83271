"""The stages around the student's trainer: prepare the data, obtain a teacher, sum up the run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine
from medbundles.atomic import write_text
from medbundles.engines import Checkpointing, EarlyStop, EpochSeed, TermLogger
from medbundles.engines.checkpointing import load_weights
from medbundles.folders import check_outputs
from medbundles.precision import Precision
from monai.handlers import ValidationHandler

from react_kd import phantom
from react_kd.data import fill_cache, read_datalist
from react_kd.networks import Student, Teacher, copy_attention
from react_kd.validation import validate_cases
from react_kd.workflow import GradingEvaluator, one_cycle, teacher_trainer

logger = logging.getLogger(__name__)


def prepare(
    dataset_dir: str,
    datasets: Sequence[Any],
    output_dirs: Sequence[str],
    require: Sequence[str] = ("liver", "mass"),
) -> None:
    """All that can fail before training does so here: folders, files, labels; then fill the caches.

    Raises:
        ValueError: with all that is wrong with the cases of the datasets at once (case, key, file).
        OSError: an output folder that cannot be written, or too little space.
    """
    check_outputs(output_dirs)
    with idist.one_rank_first():
        phantom.ensure(dataset_dir)
        cases = [dict(case) for dataset in datasets for case in dataset.data]
        validate_cases(cases, require=require)
    for dataset in datasets:
        fill_cache(dataset)


class TeacherStage:
    """Give the teacher its weights: from a checkpoint, at once, or by training it in `run`.

    A run that was killed after its teacher was finished finds `<ckpt_dir>/teacher.pt` and the record of its
    settings beside it, and goes on with the student; `finish` removes the record.

    Args:
        teacher: the network; frozen afterwards by the student's trainer.
        checkpoint: weights to load instead of training.
        settings: what the run depends on (see Checkpointing).
        train_data_loader, val_data_loader: the graded cases are used.
        epochs, lr, weight_decay, patience: of the teacher's training.

    Raises:
        FileNotFoundError, ValueError: a checkpoint that is missing or of another architecture.
    """

    def __init__(
        self,
        teacher: Teacher,
        precision: Precision,
        train_data_loader: Any,
        val_data_loader: Any,
        ckpt_dir: str,
        output_dir: str,
        settings: Mapping[str, Any],
        checkpoint: str | None = None,
        epochs: int = 20,
        lr: float = 2e-3,
        weight_decay: float = 1e-3,
        patience: int = 0,
        seed: int = 0,
        resume: bool = True,
    ) -> None:
        self.teacher, self.precision, self.checkpoint = teacher, precision, checkpoint
        self.loaders, self.ckpt_dir, self.output_dir = (
            (train_data_loader, val_data_loader),
            ckpt_dir,
            output_dir,
        )
        self.epochs, self.lr, self.weight_decay, self.patience = epochs, lr, weight_decay, patience
        self.seed, self.resume = seed, resume
        self.settings = {**settings, "teacher": [epochs, lr, weight_decay, patience]}
        self.record = Path(ckpt_dir) / "teacher_done.json"
        self.metrics: dict[str, float] = {}
        if checkpoint:  # here, so that a wrong file is known before any image is read
            load_weights(teacher, checkpoint, "teacher_checkpoint")

    def run(self) -> None:
        """Leave the best weights in the teacher and measure it on the validation cases."""
        trained = Path(self.ckpt_dir) / "teacher.pt"
        if self.checkpoint:
            logger.info("teacher loaded from %s", self.checkpoint)
        elif self._finished_before() and trained.is_file():
            load_weights(self.teacher, trained, "teacher of the interrupted run")
            logger.info("teacher of the interrupted run found in %s", trained)
        else:
            self._train()
            idist.barrier()  # the first process writes the file that all read
            load_weights(self.teacher, trained, "teacher")
            if idist.get_rank() == 0:
                write_text(self.record, json.dumps(self.settings))
        evaluator = GradingEvaluator(self.teacher, self.precision, self.loaders[1], ("all", "ct"))
        evaluator.run()
        self.metrics = {key: float(value) for key, value in evaluator.state.metrics.items()}
        logger.info("teacher on the validation cases: %s", _spell(self.metrics))

    def finish(self) -> None:
        """Forget that this run's teacher is finished: the next run trains its own."""
        if idist.get_rank() == 0:
            self.record.unlink(missing_ok=True)

    def _finished_before(self) -> bool:
        same = json.loads(json.dumps(self.settings))
        return self.resume and self.record.is_file() and json.loads(self.record.read_text()) == same

    def _train(self) -> None:
        train, validate = self.loaders
        self.precision.prepare(self.teacher)
        optimizer = torch.optim.AdamW(self.teacher.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        scheduler = one_cycle(optimizer, self.lr, self.epochs, train)
        evaluator = GradingEvaluator(self.teacher, self.precision, validate, ("all", "ct"))
        stop = EarlyStop(evaluator, "val_auc", self.patience)
        state = {
            "optimizer": optimizer,
            "scheduler": scheduler,
            "scaler": self.precision,
            "stop": stop,
        }
        handlers = [
            EpochSeed(self.seed),
            ValidationHandler(interval=1, validator=evaluator),
            stop,
            TermLogger("teacher", self.output_dir, evaluator),
            Checkpointing(
                self.ckpt_dir,
                "teacher",
                self.teacher,
                state,
                evaluator,
                "val_auc",
                self.settings,
                self.resume,
            ),
        ]
        teacher_trainer(
            self.precision, self.epochs, train, self.teacher, optimizer, scheduler, train_handlers=handlers
        ).run()


class Stages:
    """A whole training run in order: data, teacher, student, summary.

    Args:
        prepare: called first (see the function of that name).
        teacher_stage: obtains the teacher.
        trainer: the student's trainer.
        network: the student; its CBAM3D starts from the teacher's.
        precision, val_data_loader: for the closing measurement.
        datalist: names the cohort in the summary.
    """

    def __init__(
        self,
        prepare: Callable[[], None],
        teacher_stage: TeacherStage,
        trainer: Engine,
        network: Student,
        precision: Precision,
        val_data_loader: Any,
        datalist: str,
    ) -> None:
        self.prepare, self.teacher_stage, self.trainer = prepare, teacher_stage, trainer
        self.network, self.precision, self.val_data_loader = network, precision, val_data_loader
        self.datalist = datalist

    def run_teacher(self) -> None:
        """Data and teacher alone."""
        self.prepare()
        self.teacher_stage.run()

    def run(self) -> dict[str, Any]:
        """Everything; returns and logs the validation metrics of teacher and student, and where files are."""
        self.run_teacher()
        copy_attention(self.teacher_stage.teacher, self.network)
        self.trainer.run()  # type: ignore[call-arg]
        return self.summarise()

    def summarise(self) -> dict[str, Any]:
        """Close the run: measure the best student, log where everything is, write the page."""
        stage = self.teacher_stage
        stage.finish()
        ckpt_dir, output_dir = Path(stage.ckpt_dir).absolute(), Path(stage.output_dir).absolute()
        idist.barrier()
        load_weights(self.network, ckpt_dir / "model.pt", "student")
        evaluator = GradingEvaluator(self.network, self.precision, self.val_data_loader)
        evaluator.run()
        student = {key: float(value) for key, value in evaluator.state.metrics.items()}
        summary = {"teacher": stage.metrics, "student": student, "cohort": read_datalist(self.datalist).name}
        if idist.get_rank() == 0:
            from react_kd.training_report import write_training_report

            report = write_training_report(output_dir, summary)
            teacher_path = Path(stage.checkpoint or ckpt_dir / "teacher.pt").absolute()
            logger.info("cohort: %s", summary["cohort"])
            logger.info("teacher validation  %s", _spell(stage.metrics))
            logger.info("student validation  %s", _spell(student))
            logger.info("checkpoints   %s  %s", teacher_path, ckpt_dir / "model.pt")
            logger.info("TensorBoard   tensorboard --logdir %s", output_dir / "tensorboard")
            logger.info("report        %s", report)
        return summary


def _spell(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{key} {value:.3f}" for key, value in metrics.items())
