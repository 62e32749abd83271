"""What a training step keeps for its backward pass, counted on tensors that take no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Tensors made here have shapes and no values, and arithmetic is bf16 autocast, as in training."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16):
        yield


def saved_bytes(run: Callable[[], Any], module: nn.Module) -> int:
    """Bytes of what the forward pass `run` keeps for the backward pass, the weights of `module` aside.

    Attention is counted as its fused form keeps it (FlashAttention, arXiv 2205.14135): inputs, output and one
    number per query.
    """
    weights = {tensor.untyped_storage()._cdata for tensor in (*module.parameters(), *module.buffers())}
    kept: dict[int, Tensor] = {}  # by storage; the tensor is held, so that no other takes its number

    def note(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage()._cdata) not in weights:
            kept[storage] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), _FusedAttention():
        result = run()
    sizes = [tensor.untyped_storage().nbytes() for tensor in kept.values()]
    del result
    return sum(sizes)


class _FusedAttention(TorchFunctionMode):
    """Without a GPU torch would count the scores of all pairs, which no real step keeps."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value, mask = (*args, kwargs.get("attn_mask"))[:4]
        if torch.is_autocast_enabled("cpu"):
            query, key, value = (part.to(torch.bfloat16) for part in (query, key, value))
        return _Kept.apply(query, key, value, mask)


class _Kept(torch.autograd.Function):
    """The shapes of fused attention: output (..., N, d) and the float32 log-sum of every query (..., N)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, mask, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        raise NotImplementedError("only the forward pass is counted")
