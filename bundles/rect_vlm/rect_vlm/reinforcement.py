"""Phase 3: the reports are optimised for their rewards, the best state on the validation scans is kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from medbundles.atomic import write_text
from medbundles.engines.checkpointing import save_atomic, save_weights
from medbundles.precision import Precision
from monai.utils import set_determinism

from rect_vlm.grpo_policy import GeneratorPolicy, Studies
from rect_vlm.grpo_trainer import GrpoTrainer, Log
from rect_vlm.model import ReCTVLM
from rect_vlm.part_weights import PartWeights
from rect_vlm.phase_evaluator import label_f1
from rect_vlm.phases import Phase
from rect_vlm.rewards import RewardModel

logger = logging.getLogger(__name__)

METRIC = "val_reward"
READ = ("image", "regions", "labels")  # of a batch
OPTIONS = {"steps": 40, "validate_every": 10, "studies": 32, "accumulate": 1}


class StudyBatches:
    """Batches of a loader as studies to write about: features and evidence by the frozen parts of a model.

    Studies without a report are left out: nothing could be rewarded for being like it.

    Args:
        model: with classifier, localizer and generator.
        loader: batches of scans.
        precision: device and autocast.
        limit: studies at most.

    Raises:
        ValueError: no scan of the loader has a report.
    """

    def __init__(self, model: ReCTVLM, loader: Any, precision: Precision, limit: int | None = None) -> None:
        self.model, self.loader, self.precision, self.limit = model, loader, precision, limit
        self.epoch = 0
        records = loader.dataset.records
        silent = sum(not record["report"].strip() for record in records)
        if silent == len(records):
            raise ValueError(f"reinforcement needs scans with a report, none of {silent} has one")
        if silent:
            logger.info("%d of %d volumes have no report and are left out", silent, len(records))

    def __iter__(self) -> Iterator[Studies]:
        if hasattr(self.loader.sampler, "set_epoch"):
            self.loader.sampler.set_epoch(self.epoch)
        self.epoch += 1
        count = 0
        for data in self.loader:
            if self.limit is not None and count >= self.limit:
                return
            told = [i for i, report in enumerate(data["report"]) if report.strip()]
            if not told:
                continue
            count += len(told)
            batch = self.precision.batch(data)
            image, regions, labels = (self.precision.to(batch[key][told]) for key in READ)
            self.model.eval()
            with torch.no_grad(), self.precision.autocast():
                seen, evidence = self.model.told(self.model.encode(image, regions), image, regions)
            yield Studies((seen, evidence), [data["report"][i] for i in told], labels)


class ReinforcedPhase:
    """Trains phase 3 and leaves the LoRA with the highest reward on the validation scans.

    Numbers of the phase in `options`: `steps` of the optimizer, `validate_every` so many, validation
    `studies`, and those of GrpoTrainer (`group`, `max_tokens`, `clip`, `beta`, `inner_steps`) and `rewards`,
    the weights of RewardModel.

    Args:
        model: as phase 2 left it.
        precision: device and autocast.
        loader: makes training batches for a batch size.
        val_loader: batches of the validation scans.
        ckpt_dir, output_dir: of checkpoints and of what is logged.
        seed: of the samples.
        resume: go on from a run that was killed.
    """

    def __init__(
        self,
        model: ReCTVLM,
        precision: Precision,
        loader: Callable[..., Any],
        val_loader: Any,
        ckpt_dir: str,
        output_dir: str,
        seed: int = 0,
        resume: bool = True,
    ) -> None:
        self.model, self.precision, self.loader, self.val_loader = model, precision, loader, val_loader
        self.ckpt_dir, self.output_dir = Path(ckpt_dir), Path(output_dir)
        self.seed, self.resume = seed, resume

    def __call__(self, phase: Phase, fingerprint: Mapping[str, Any]) -> dict[str, float]:
        """Train from the present weights, or from where a run of the same settings was killed."""
        options = {**OPTIONS, **phase.options}
        self.precision.prepare(self.model)
        policy = GeneratorPolicy(self.model.require("generator"))
        trainer = GrpoTrainer(
            policy, RewardModel(options.pop("rewards", None)), lr=phase.trains["lora"],
            **{key: value for key, value in options.items() if key not in OPTIONS},
        )  # fmt: skip
        batches = StudyBatches(self.model, self.loader(batch_size=phase.batch_size), self.precision)
        run = _Run(self, phase, fingerprint, trainer, options)
        try:
            run.train(batches)
        finally:
            policy.close()
        return run.best


class _Run:
    """One run of the phase: its steps in stretches between validations, each saved when it is done."""

    def __init__(
        self,
        owner: ReinforcedPhase,
        phase: Phase,
        fingerprint: Mapping[str, Any],
        trainer: GrpoTrainer,
        options: Mapping[str, Any],
    ) -> None:
        self.owner, self.phase, self.trainer, self.options = owner, phase, trainer, options
        self.fingerprint = json.dumps(fingerprint, sort_keys=True)
        self.studies = StudyBatches(owner.model, owner.val_loader, owner.precision, options["studies"])
        self.best: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self.saved = owner.ckpt_dir / f"{phase.stem}_resume.pt"

    def train(self, batches: StudyBatches) -> None:
        self._load()
        rank = idist.get_rank()
        with self._writer() as writer:
            if not self.history:
                self._validate(writer)  # what the phase begins with
            while self.trainer.steps < self.options["steps"]:
                left = self.options["steps"] - self.trainer.steps
                # Distinct primes keep (seed, step, rank) apart: every process samples reports of its own.
                set_determinism(self.owner.seed * 1_000_003 + self.trainer.steps + rank * 104_729)
                batches.epoch = self.trainer.steps
                logs = self.trainer.train(
                    batches, min(self.options["validate_every"], left), self.options["accumulate"]
                )
                self._validate(writer, logs)
                if rank == 0:
                    self._save()
        if rank == 0:
            self.saved.unlink(missing_ok=True)
        idist.barrier()

    def _writer(self) -> AbstractContextManager[Any]:
        """Of TensorBoard in the first process, of nothing in the others."""
        if idist.get_rank() != 0:
            return nullcontext()
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.owner.output_dir / "tensorboard" / self.phase.stem))

    def _validate(self, writer: Any, logs: list[Log] | None = None) -> None:
        """Rewards of sampled reports and label F1 of greedy ones, on the same validation scans every time."""
        owner = self.owner
        set_determinism(owner.seed)
        rewards = self.trainer.evaluate(self.studies)
        row = {"epoch": float(self.trainer.steps)}
        if logs:
            row |= {key: sum(log[key] for log in logs) / len(logs) for key in logs[0]}
        row |= {METRIC: rewards["reward"]}
        row |= {f"val_{key}": value for key, value in rewards.items() if key.startswith("reward_")}
        row |= {"val_label_f1": self._label_f1(), "val_ended": rewards["ended"]}
        self.history.append(row)
        logger.info("step %d  %s", self.trainer.steps, "  ".join(f"{k} {v:.4f}" for k, v in row.items()))
        if not self.best or row[METRIC] > self.best[METRIC]:
            self.best = {key: value for key, value in row.items() if key.startswith(("val_", "epoch"))}
            if idist.get_rank() == 0:
                weights = PartWeights(owner.model, list(self.phase.trains)).state_dict()
                save_weights(weights, owner.ckpt_dir / f"{self.phase.stem}.pt")
        if idist.get_rank() == 0:
            for key, value in row.items():
                writer.add_scalar(f"{self.phase.stem}/{key}", value, self.trainer.steps)
            lines = "".join(json.dumps(line) + "\n" for line in self.history)
            write_text(owner.output_dir / f"{self.phase.stem}_history.jsonl", lines)

    def _label_f1(self) -> float:
        generator = self.owner.model.require("generator")
        said, true = [], []
        for batch in self.studies:
            said += generator.generate(*batch.prompt, max_new_tokens=self.trainer.max_tokens, do_sample=False)
            true += batch.references
        return label_f1(said, true)

    def _save(self) -> None:
        state = {"trainer": self.trainer.state_dict(), "best": self.best, "history": self.history}
        save_atomic({**state, "fingerprint": self.fingerprint}, self.saved)

    def _load(self) -> None:
        if not (self.owner.resume and self.saved.is_file()):
            return
        state = torch.load(self.saved, map_location="cpu", weights_only=True)
        if state["fingerprint"] != self.fingerprint:
            logger.warning("%s belongs to a run with other settings: training starts anew", self.saved)
            return
        self.trainer.load_state_dict(state["trainer"])
        self.best, self.history = state["best"], state["history"]
        logger.info("resuming after step %d from %s", self.trainer.steps, self.saved)
