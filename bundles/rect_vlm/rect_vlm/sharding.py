"""Several processes: what is trained is whole in each and averaged, what is frozen may be kept in shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ignite.distributed as idist
import torch
from torch import nn

from rect_vlm.generator_plan import GeneratorPlan

if TYPE_CHECKING:
    from peft import PeftModel

    from rect_vlm.generator import ReportGenerator


@dataclass(frozen=True)
class ShardedPlan(GeneratorPlan):
    """A plan whose language model is shared out over the processes, see `shard_frozen`.

    It is read on the CPU and moved layer by layer, so that no GPU ever holds all of it.
    """

    def build(self, embed_dim: int, device: torch.device) -> ReportGenerator:
        """As GeneratorPlan, in every process of a group.

        Raises:
            ValueError: a single process, and the errors of GeneratorPlan.
        """
        if idist.get_world_size() < 2:
            raise ValueError(
                "a sharded language model needs several processes, got one: start it with torchrun and the "
                "overlay multi_gpu_train.json, or leave shard_llm false"
            )
        dtype = self.dtype or (torch.bfloat16 if device.type == "cuda" else None)
        whole = GeneratorPlan(**{**vars(self), "dtype": dtype}).build(embed_dim, torch.device("cpu"))
        shard_frozen(whole.llm, device)
        return whole.to(device)


def shard_frozen(llm: PeftModel, device: torch.device) -> None:
    """Keep one share of every layer's frozen weights per process (FSDP, arXiv 2304.11277).

    A layer is put together while it runs and taken apart behind it. LoRA stays whole in every process: it is
    less than a hundredth of the weights, and so optimizer, clipping, checkpoints, the reference of GRPO and
    the saved adapter are what they are without shares. So do embeddings and output layer, which are called
    from outside.

    Args:
        llm: from `add_lora`, the same in all processes.
        device: where a layer is put together.

    Raises:
        ValueError: a model that does not name its layers.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    base: Any = llm.get_base_model()
    names = set(getattr(base, "_no_split_modules", None) or ())
    layers = [part for part in base.modules() if type(part).__name__ in names]
    if not layers:
        raise ValueError(
            f"sharding needs a language model that names its layers, {type(base).__name__} does not"
        )
    mesh = init_device_mesh(device.type, (idist.get_world_size(),))
    for layer in layers:
        fully_shard(
            layer, mesh=mesh, ignored_params={weight for weight in layer.parameters() if weight.requires_grad}
        )
    decoder = base.base_model  # fetches the next layer while one computes; shares nothing of its own
    fully_shard(decoder, mesh=mesh, ignored_params=set(decoder.parameters()))
    # Reports of different lengths: whoever is done goes on with the others, who need its shares.
    base._is_fsdp_managed_module = True


def leave_out_frozen(module: nn.Module) -> None:
    """Let DistributedDataParallel pass over what is frozen, which all processes have read from one file."""
    frozen = [name for name, weight in module.named_parameters() if not weight.requires_grad]
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, frozen)


def share_buffers(module: nn.Module) -> None:
    """Give every process the buffers (running statistics) of the first: all validate the same model."""
    if idist.get_world_size() > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, src=0)
