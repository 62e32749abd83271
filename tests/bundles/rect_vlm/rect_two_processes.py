"""What each of two processes computes on its half of a batch, left in a file for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from rect_llm import shake_lora, tiny_generator, tiny_vision
from rect_tiny_ctrate import GEOMETRY
from rect_tiny_model import trained_model
from rect_vlm.generator import ReportGenerator
from rect_vlm.grpo_policy import GeneratorPolicy, Studies
from rect_vlm.grpo_trainer import GrpoTrainer
from rect_vlm.phase_training import set_learning
from rect_vlm.phases import PARTS
from rect_vlm.rewards import RewardModel
from rect_vlm.sharding import leave_out_frozen, shard_frozen
from rect_vlm.task_terms import TaskTerms
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

LOSSES = {"cls": 1.0, "loc": 2.0, "gen": 1.5}
LINES = ["[FINDING] Pleural effusion detected in right lower lobe"]
REPORT = "FINDINGS:\nPleural effusion on the right.\n\nIMPRESSION:\nEffusion."
SCANS = 4  # of both processes together


def run(rank: int, out: Path, llm: Path) -> None:
    """Body of a process; `out` gets rank0.pt, rank1.pt and the adapters that the first process saves."""
    torch.set_num_threads(1)
    idist.initialize("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=2)
    found = {"gradients": gradients(rank, llm), **sharded(rank, out, llm)}
    torch.save(found, out / f"rank{rank}.pt")
    idist.finalize()


def batch() -> dict[str, Any]:
    """Scans with one lesion, one report and known labels each, so that the mean of halves is that of all."""
    generator = torch.Generator().manual_seed(1)
    size = (SCANS, 1, *GEOMETRY.img_size)
    masks = torch.zeros(SCANS, 5, *GEOMETRY.img_size)
    masks[:, 1, 8:16, 8:16, 8:16] = 1
    return {
        "image": torch.rand(size, generator=generator) * 2 - 1,
        "regions": torch.randint(0, 4, size, generator=generator),
        "masks": masks,
        "mask_known": torch.ones(SCANS, 5, dtype=torch.bool),
        "labels": torch.randint(0, 2, (SCANS, 18), generator=generator).float(),
        "report": [REPORT] * SCANS,
        "evidence": [LINES] * SCANS,
    }


def half(whole: dict[str, Any], rank: int) -> dict[str, Any]:
    mine = slice(rank * SCANS // 2, (rank + 1) * SCANS // 2)
    return {key: value[mine] for key, value in whole.items()}


def gradients(rank: int, llm: Path) -> dict[str, dict[str, Tensor]]:
    """Of the joint loss: `alone`, on the whole batch in one process, and `both`, on halves in two."""
    model = trained_model(llm)
    terms = TaskTerms(model, lesions_per_step=5, drop_evidence=0.0, predicted_evidence=0.0).eval()
    set_learning(model, dict.fromkeys(PARTS, 1.0))
    leave_out_frozen(terms)
    averaged = DistributedDataParallel(terms, find_unused_parameters=True)
    found = {}
    for name, wrapped, part in (("alone", terms, batch()), ("both", averaged, half(batch(), rank))):
        model.zero_grad(set_to_none=True)
        torch.stack(list(wrapped(part, LOSSES, PARTS).values())).sum().backward()
        weights = {key: weight for key, weight in model.named_parameters() if weight.requires_grad}
        found[name] = {key: weight.grad for key, weight in weights.items()}
    return found


class Loss(nn.Module):
    """The loss of a generator as a call, which is what DistributedDataParallel wraps."""

    def __init__(self, generator: ReportGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, vision: dict[str, Tensor]) -> Tensor:
        scans = len(vision["global_features"])
        return self.generator.loss(vision, [LINES] * scans, [REPORT] * scans)["gen"]


def sharded(rank: int, out: Path, llm: Path) -> dict[str, Any]:
    """The same training with the language model whole and in shares."""
    torch.manual_seed(2)
    mine = half(tiny_vision(SCANS), rank)
    found: dict[str, Any] = {}
    for name in ("whole", "shares"):
        generator = tiny_generator(llm, lora_dropout=0.0, checkpointing=True)
        shake_lora(generator)
        if name == "shares":
            shard_frozen(generator.llm, torch.device("cpu"))
        found[name] = {"losses": train(generator, mine), **reinforced(rank, generator, mine)}
        if rank == 0:
            generator.save_adapter(out / name)
        found[name]["lora"] = {key: value.clone() for key, value in generator.adapter_state().items()}
    held = [weight for weight in generator.llm.parameters() if isinstance(weight, DTensor)]
    trained = [weight for part in generator.parameters_by_part().values() for weight in part]
    return {
        **found,
        "held": sum(weight.to_local().numel() for weight in held),
        "of": sum(weight.numel() for weight in held),
        "trained in shares": sum(isinstance(weight, DTensor) for weight in trained),
    }


def reinforced(rank: int, generator: ReportGenerator, vision: dict[str, Tensor]) -> dict[str, Any]:
    """One step of phase 3; the samples of the processes differ, and so do their lengths."""
    torch.manual_seed(rank)
    policy = GeneratorPolicy(generator)
    studies = Studies((vision, [LINES, []]), [REPORT] * 2, torch.ones(2, 18))
    trainer = GrpoTrainer(policy, RewardModel(), lr=1e-2, group=2, max_tokens=6 + 6 * rank)
    log = trainer.step([studies])
    policy.close()
    said = generator.generate(
        vision, [LINES, []], max_new_tokens=4 + 8 * rank, do_sample=False, return_tokens=True
    )
    return {"grpo": log, "tokens": said.tokens}


def train(generator: ReportGenerator, vision: dict[str, Tensor]) -> list[float]:
    """Three steps of projector and LoRA; the losses of this process."""
    weights = [weight for part in generator.parameters_by_part().values() for weight in part]
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    loss = Loss(generator.train())
    generator.projector.eval()  # its dropout would differ from run to run
    leave_out_frozen(loss)
    module = DistributedDataParallel(loss, find_unused_parameters=True)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        value = module(vision)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses
