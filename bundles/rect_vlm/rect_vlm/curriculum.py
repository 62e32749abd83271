"""Runs the phases in their order; each begins with the weights that earlier ones left on disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ignite.distributed as idist
import torch
from medbundles.atomic import write_text
from medbundles.contract.weights import sha256
from medbundles.engines.checkpointing import save_weights
from monai.utils import set_determinism

from rect_vlm.model import ReCTVLM
from rect_vlm.part_weights import PartWeights, read_parts
from rect_vlm.phases import ORDER, PARTS, Phase, chosen_phases, read_phases, sources

logger = logging.getLogger(__name__)


class PhaseRun(Protocol):
    """Trains one phase and leaves `<ckpt_dir>/<phase.stem>.pt`; returns its best metrics."""

    def __call__(self, phase: Phase, fingerprint: Mapping[str, Any]) -> dict[str, float]: ...


class Curriculum:
    """Train the phases that are asked for and not finished yet.

    The checkpoint of a phase holds the parts it trained. A phase starts every part with the weights of the
    newest earlier phase that trained it. A phase that is finished, with the same settings and the same
    starting weights, is left out; one that was killed goes on in the epoch it was in.

    Args:
        prepare: called first with the tasks to come: checks, caches, text.
        model: all parts; those of the language model are added by `add_generator`.
        table: numbers of every phase, see `phases.Phase`.
        wanted: names of the phases to run.
        supervised: trains phases 1.1 to 2.
        reinforced: trains phase 3.
        add_generator: gives the model its report generator, before the first phase that writes.
        ckpt_dir, output_dir: folders of checkpoints and of what was logged.
        settings: what every phase depends on besides its own numbers.
        seed: of the first weights and of every phase.
        resume: False trains everything anew.
        thresholds: chooses those of the findings, see `validated_thresholds`, for the reports of phase 3 and
            for the model that is saved.
    """

    def __init__(
        self,
        prepare: Callable[..., None],
        model: ReCTVLM,
        table: Mapping[str, Mapping[str, Any]],
        wanted: str | float | Sequence[Any],
        supervised: PhaseRun,
        reinforced: PhaseRun,
        add_generator: Callable[[], None],
        ckpt_dir: str,
        output_dir: str,
        settings: Mapping[str, Any],
        seed: int = 0,
        resume: bool = True,
        thresholds: Callable[[], Sequence[float]] | None = None,
    ) -> None:
        self.phases = read_phases(table)
        self.wanted = chosen_phases(wanted, self.phases)
        self.prepare, self.model, self.add_generator = prepare, model, add_generator
        self.supervised, self.reinforced = supervised, reinforced
        self.ckpt_dir, self.output_dir = Path(ckpt_dir), Path(output_dir)
        self.settings, self.seed, self.resume = dict(settings), seed, resume
        self.thresholds = thresholds

    def run(self) -> list[dict[str, Any]]:
        """Train what is missing; returns the best metrics of every phase that was asked for."""
        for name in self.wanted:
            self._check_sources(self.phases[name])
        tasks = sorted({task for name in self.wanted for task in self.phases[name].losses})
        self.prepare(tasks=tasks)
        first: dict[str, dict[str, torch.Tensor]] = {}
        results = []
        for name in self.wanted:
            phase = self.phases[name]
            self._add_parts(phase, first)
            origin = self._begin(phase, first)
            fingerprint = self._fingerprint(phase, origin)
            result = self._finished(phase, fingerprint)
            if result is None:
                if "reward" in phase.losses:  # reports are reinforced with the evidence they will have in use
                    self._choose_thresholds()
                set_determinism(self.seed)
                run = self.reinforced if "reward" in phase.losses else self.supervised
                result = run(phase, fingerprint)
                self._keep(phase, fingerprint, result)
            results.append({"phase": name, **result})
        self._close(results)
        return results

    def _check_sources(self, phase: Phase) -> None:
        """Before anything is trained: every phase that this one builds on is asked for or on disk."""
        for part, source in sources(phase, self.phases).items():
            if source is None or source in self.wanted:
                continue
            path = self._file(self.phases[source])
            if not path.is_file():
                raise FileNotFoundError(
                    f"phase {phase.name} starts with {part} of phase {source}: no file {path}; "
                    f"train it first: --phases \"['{source}', '{phase.name}']\""
                )

    def _add_parts(self, phase: Phase, first: dict[str, dict[str, torch.Tensor]]) -> None:
        """Build the generator when it is needed, and remember the first weights of every part."""
        if "projector" in phase.parts and self.model.generator is None:
            set_determinism(self.seed)  # its first weights do not depend on which phases ran before
            self.add_generator()
        for part in phase.parts:
            if part not in first:
                state = PartWeights(self.model, [part]).state_dict()
                first[part] = {key: value.clone() for key, value in state.items()}

    def _begin(self, phase: Phase, first: Mapping[str, dict[str, torch.Tensor]]) -> dict[str, str]:
        """Load the weights that a phase starts with; returns where each part came from."""
        origin: dict[str, str] = {}
        starts: dict[str | None, list[str]] = {}
        for part, source in sources(phase, self.phases).items():
            starts.setdefault(source, []).append(part)
        for source, parts in starts.items():
            if source is None:
                state = {key: value for part in parts for key, value in first[part].items()}
                where = "new"
            else:
                path = self._file(self.phases[source])
                why = f"{', '.join(parts)} of phase {source}, for phase {phase.name}"
                state, where = read_parts(path, parts, why), f"{source} {sha256(path)[:16]}"
            PartWeights(self.model, parts).load_state_dict(state)
            origin |= dict.fromkeys(parts, where)
        told = ", ".join(f"{part} {where.split()[0]}" for part, where in origin.items())
        logger.info("phase %s starts with: %s; trains %s", phase.name, told, ", ".join(phase.trains))
        return origin

    def _choose_thresholds(self) -> None:
        if self.thresholds is not None:
            self.model.thresholds = tuple(self.thresholds())

    def _fingerprint(self, phase: Phase, origin: Mapping[str, str]) -> dict[str, Any]:
        numbers = {
            key: getattr(phase, key)
            for key in ("trains", "losses", "epochs", "batch_size", "accumulate", "warmup", "options")
        }
        shared = {**self.settings, "seed": self.seed, "phase": numbers, "origin": dict(origin)}
        return json.loads(json.dumps(shared, default=str))

    def _file(self, phase: Phase) -> Path:
        return self.ckpt_dir / f"{phase.stem}.pt"

    def _finished(self, phase: Phase, fingerprint: Mapping[str, Any]) -> dict[str, float] | None:
        record, path = self.ckpt_dir / f"{phase.stem}.json", self._file(phase)
        if not (self.resume and record.is_file() and path.is_file()):
            return None
        kept = json.loads(record.read_text())
        if kept["fingerprint"] != fingerprint:
            logger.warning(
                "%s belongs to a run with other settings: phase %s is trained anew", path, phase.name
            )
            return None
        logger.info("phase %s is finished: %s", phase.name, path)
        return kept["result"]

    def _keep(self, phase: Phase, fingerprint: Mapping[str, Any], result: Mapping[str, float]) -> None:
        if idist.get_rank() == 0:
            kept = {"fingerprint": fingerprint, "result": dict(result)}
            write_text(self.ckpt_dir / f"{phase.stem}.json", json.dumps(kept, indent=1))
        idist.barrier()  # the next phase reads the file that the first process writes

    def _close(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Write what others load: the deployable network, the folder of the Python API, the page."""
        if idist.get_rank() != 0:
            return
        from rect_vlm.training_report import write_training_report

        last = self.phases[results[-1]["phase"]]
        self._load_newest(last)
        files = []
        if "localizer" in last.parts:
            files.append(self.ckpt_dir / "model.pt")
            save_weights(self.model.localization_net.state_dict(), files[-1])
        if last.parts == PARTS:
            files.append(self.ckpt_dir / "rect_vlm")
            self._choose_thresholds()
            self.model.save_pretrained(files[-1])
        report = write_training_report(self.output_dir, results, list(self.phases.values()))
        for row in results:
            told = "  ".join(f"{key} {value:.3f}" for key, value in row.items() if key != "phase")
            logger.info("phase %-4s %s", row["phase"], told)
        for path in files:
            logger.info("written       %s", path.absolute())
        logger.info("TensorBoard   tensorboard --logdir %s", self.output_dir.absolute() / "tensorboard")
        logger.info("report        %s", report)

    def _load_newest(self, last: Phase) -> None:
        """Every part as the newest phase up to the last one left it, each read once."""
        left = [part for part in PARTS if self.model.has_part(part)]
        for name in reversed(ORDER[: ORDER.index(last.name) + 1]):
            phase = self.phases.get(name)
            parts = [part for part in left if phase is not None and part in phase.trains]
            if phase is None or not parts or not self._file(phase).is_file():
                continue
            state = read_parts(self._file(phase), parts, f"phase {name}")
            PartWeights(self.model, parts).load_state_dict(state)
            left = [part for part in left if part not in parts]
