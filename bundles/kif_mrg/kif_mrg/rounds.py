"""Rounds of self-distillation: each student learns anew from the frozen best of the round before."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from medbundles.atomic import write_text
from medbundles.engines import Checkpointing, DistillationTrainer
from medbundles.engines.checkpointing import load_weights, save_weights
from medbundles.folders import check_outputs
from medbundles.precision import Precision

from kif_mrg import phantom
from kif_mrg.data import ReportDataset
from kif_mrg.memory import ReportMemory
from kif_mrg.networks import KifReporter
from kif_mrg.records import Splits
from kif_mrg.validation import check_memory, check_records

logger = logging.getLogger(__name__)
METRIC = "val_ce_f1"


def prepare(
    dataset_dir: str,
    records: Splits,
    datasets: Sequence[ReportDataset],
    output_dirs: Sequence[str],
    tokenizer_dir: str,
    memory: ReportMemory | None = None,
    verify_images: bool = True,
) -> None:
    """All that can fail before training does so here: folders, records, images; then memory and caches.

    The tokenizer is written to `tokenizer_dir` only after the checks: bad data must not cost an earlier
    reporter its words.

    Raises:
        ValueError: with all that is wrong with the records at once (file, entry, key).
        OSError: an output folder that cannot be written, or too little space.
    """
    check_outputs(output_dirs)
    with idist.one_rank_first():
        phantom.ensure(dataset_dir)
        tokenizer = datasets[0].tokenizer
        check_records(records, tokenizer=tokenizer, verify_images=verify_images)
        if memory is not None:
            memory.ensure([record for rows in records.values() for record in rows])
        for dataset in datasets:
            dataset.retrieve()
        if memory is not None:  # after rows of the own study have been left out
            check_memory(records, memory)
        tokenizer.save(tokenizer_dir)
    for dataset in datasets:
        dataset.fill_cache()


def records_digest(records: Splits) -> str:
    """Changes with what a run learns from and chooses by: studies, reports and labels of train and val."""
    digest = hashlib.sha256()
    for record in (*records["train"], *records["val"]):
        facts = [record["id"], record["study_id"], record["report"], record["labels"], record["split"]]
        digest.update(json.dumps(facts).encode())
    return digest.hexdigest()


class Rounds:
    """Train round 0, then a fresh student per round with the frozen best of the last one as teacher.

    The weights of round r are `<ckpt_dir>/round<r>.pt`. A run that was killed goes on in the round and epoch
    it was in. At the end the best round on the validation cases becomes `reporter.pt`, and its image part
    `model.pt`.

    Args:
        prepare: called first (see the function of that name).
        trainer: trains one round; its teachers are set here.
        reporter: trained again from its first weights in every round.
        optimizer, scheduler, prior: go back to their beginning with it.
        handlers: of the trainer; those with `restart(name)` are told that a round begins.
        rounds: number of rounds, 1 for no distillation.
        more_rounds: further rounds at most, as long as the last one was better than the one before.
        settings: what a finished round depends on; by its `annotation` the page says that data are simulated.
        memory: its features become the typical reports of the image part.
    """

    def __init__(
        self,
        prepare: Callable[[], None],
        trainer: DistillationTrainer,
        reporter: KifReporter,
        precision: Precision,
        state: Mapping[str, Any],
        handlers: Sequence[Any],
        ckpt_dir: str,
        output_dir: str,
        settings: Mapping[str, Any],
        memory: ReportMemory | None = None,
        rounds: int = 2,
        more_rounds: int = 0,
        resume: bool = True,
    ) -> None:
        if rounds < 1 or more_rounds < 0:
            raise ValueError(f"rounds must be at least 1 and more_rounds 0, got {rounds=} {more_rounds=}")
        self.prepare, self.trainer, self.reporter, self.precision = prepare, trainer, reporter, precision
        self.state, self.handlers, self.memory = dict(state), list(handlers), memory
        self.ckpt_dir, self.output_dir = Path(ckpt_dir), Path(output_dir)
        self.rounds, self.more_rounds, self.resume = rounds, more_rounds, resume
        self.settings = json.loads(json.dumps({**settings, "rounds": rounds, "more_rounds": more_rounds}))
        self.record = self.ckpt_dir / "rounds.json"

    def run(self) -> dict[str, Any]:
        """Train what is missing; returns the metrics of every round and which one was taken."""
        self.prepare()
        if self.memory is not None:
            self.reporter.diagnosis.set_prior_memory(self.memory.features)
        first = copy.deepcopy({key: item.state_dict() for key, item in self._begins_anew().items()})
        results = self._finished()
        while self._wanted(results):
            for key, item in self._begins_anew().items():
                item.load_state_dict(copy.deepcopy(first[key]))
            self._train(len(results))
            results.append(self._result(len(results)))
            if idist.get_rank() == 0:
                write_text(self.record, json.dumps({"settings": self.settings, "results": results}))
        return self._finish(results)

    def _begins_anew(self) -> dict[str, Any]:
        return {"reporter": self.reporter, "scaler": self.precision, **self.state}

    def _finished(self) -> list[dict[str, float]]:
        """Metrics of the rounds that an interrupted run of the same settings has finished."""
        if not (self.resume and self.record.is_file()):
            return []
        kept = json.loads(self.record.read_text())
        if kept["settings"] != self.settings:
            logger.warning("%s belongs to a run with other settings: training starts anew", self.record)
            return []
        try:
            for index in range(len(kept["results"])):
                load_weights(self.reporter, self._weights(index), f"round {index}")
        except (FileNotFoundError, ValueError) as error:
            logger.warning("%s, training starts anew: %s", self.record, error)
            return []
        logger.info("%d finished rounds found in %s", len(kept["results"]), self.record)
        return kept["results"]

    def _wanted(self, results: Sequence[Mapping[str, float]]) -> bool:
        if len(results) < self.rounds:
            return True
        rising = len(results) > 1 and results[-1][METRIC] > results[-2][METRIC]
        return rising and len(results) < self.rounds + self.more_rounds

    def _train(self, index: int) -> None:
        self.trainer.teachers = []
        if index:
            teacher = copy.deepcopy(self.reporter)
            load_weights(teacher, self._weights(index - 1), f"teacher of round {index}")
            self.trainer.teachers = [self.precision.prepare(teacher)]
        for handler in self.handlers:
            if hasattr(handler, "restart"):
                handler.restart(f"round{index}")
        self.trainer.state.epoch = self.trainer.state.iteration = 0
        logger.info("round %d of %d%s", index, self.rounds, ", with teacher" if index else "")
        self.trainer.run()  # type: ignore[call-arg]
        idist.barrier()  # the first process writes the file that all read

    def _weights(self, index: int) -> Path:
        return self.ckpt_dir / f"round{index}.pt"

    def _result(self, index: int) -> dict[str, float]:
        checkpoint = next(handler for handler in self.handlers if isinstance(handler, Checkpointing))
        return {"round": index, METRIC: checkpoint.best, "epoch": checkpoint.best_epoch}

    def _finish(self, results: list[dict[str, float]]) -> dict[str, Any]:
        best = max(range(len(results)), key=lambda i: (results[i][METRIC], i))
        load_weights(self.reporter, self._weights(best), f"round {best}")
        summary = {"rounds": results, "best": best}
        if idist.get_rank() == 0:
            save_weights(self.reporter.state_dict(), self.ckpt_dir / "reporter.pt")
            save_weights(self.reporter.diagnosis.state_dict(), self.ckpt_dir / "model.pt")
            self._close(summary)
            self.record.unlink(missing_ok=True)
        return summary

    def _close(self, summary: Mapping[str, Any]) -> None:
        from kif_mrg.training_report import write_training_report

        annotation = self.settings.get("annotation")
        simulated = annotation is not None and phantom.is_simulated(annotation)
        report = write_training_report(self.output_dir, summary, simulated)
        for row in summary["rounds"]:
            taken = "  <- taken" if row["round"] == summary["best"] else ""
            logger.info(
                "round %d  %s %.3f (epoch %d)%s", row["round"], METRIC, row[METRIC], row["epoch"], taken
            )
        logger.info(
            "checkpoints   %s  %s", *(self.ckpt_dir.absolute() / f for f in ("reporter.pt", "model.pt"))
        )
        logger.info("TensorBoard   tensorboard --logdir %s", self.output_dir.absolute() / "tensorboard")
        logger.info("report        %s", report)
