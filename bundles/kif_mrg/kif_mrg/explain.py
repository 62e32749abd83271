"""What in the image a finding rests on: attention to its graph node, and Grad-CAM of its positive logit.

Grad-CAM: Selvaraju et al., ICCV 2017 (arXiv 1610.02391).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from medbundles.text.labeler import POSITIVE
from torch import Tensor

from kif_mrg.conditions import CONDITIONS, NODE_OF
from kif_mrg.diagnosis import DiagnosisNet
from kif_mrg.graph import NODES
from kif_mrg.networks import KifReporter

NO_FINDING = CONDITIONS.index("no_finding")  # nothing seen has no place in the image


@dataclass(frozen=True)
class Evidence:
    """Maps of one finding in one case, on the grid of the patches of V views."""

    condition: str
    node: str | None  # of the knowledge graph; None if the graph has none for this condition
    attention: Tensor | None  # (V, h, w) weights in 0..1
    grad_cam: Tensor  # (V, h, w) with maximum 1, or 0 everywhere


def findings_to_show(
    positive: Mapping[int, float], states: Mapping[int, int], least: int = 3, most: int = 4
) -> list[int]:
    """Indices of the findings stated positive, the most probable first, filled up to `least` with the next.

    Args:
        positive: probability of the state positive, by the index of the condition.
        states: as stated, of the same conditions.
        least: how many to show when fewer are positive.
        most: how many to show at most.
    """
    ranked = sorted((index for index in positive if index != NO_FINDING), key=lambda index: -positive[index])
    stated = [index for index in ranked if states[index] == POSITIVE]
    others = [index for index in ranked if index not in stated]
    return (stated + others[: max(least - len(stated), 0)])[:most]


def explain(
    reporter: KifReporter,
    image: Tensor,
    memory: Tensor | None,
    findings: Sequence[int],
) -> list[Evidence]:
    """Evidence for some findings of one case.

    Args:
        reporter: in eval mode.
        image: (3, H, W) or views (V, 3, H, W), as the network takes it.
        memory: features (K, Dm) of the retrieved reports; None for the prior memory.
        findings: indices of CONDITIONS.

    Raises:
        RuntimeError: the reporter is in training mode, where dropout would alter the maps.
        ValueError: the patches of a view are no grid of the image's proportions.
    """
    if reporter.training:
        raise RuntimeError("findings are explained in eval mode, got a reporter in training mode")
    stacked = None if memory is None else memory[None]
    patches, cams = positive_grad_cam(reporter.diagnosis, image[None], stacked, findings)
    weights = node_attention(reporter, patches)  # (1, N, 28) or None
    shape = _grid(patches.shape[1], image)
    found = []
    for index, cam in zip(findings, cams[0], strict=True):
        node = NODE_OF.get(CONDITIONS[index])
        attention = None
        if weights is not None and node is not None:
            attention = weights[0, :, NODES.index(node)].reshape(shape)
        found.append(Evidence(CONDITIONS[index], node, attention, _to_one(cam).reshape(shape)))
    return found


def positive_grad_cam(
    diagnosis: DiagnosisNet, image: Tensor, memory: Tensor | None, findings: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Patches (B, N, Dv), and Grad-CAM (B, F, N) of the positive logit of F findings on them, not normalised.

    relu(sum_d mean_n(d logit / d P_nd) P_nd). Works where gradient tracking is off and with frozen weights.
    """
    full_precision = torch.autocast(image.device.type, enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), full_precision:
        tracked = image.detach().clone().requires_grad_()  # so that frozen weights leave a graph
        found = diagnosis.describe(tracked, None if memory is None else memory.detach().clone())
        patches = found["patches"]
        logits = found["class_logits"][:, POSITIVE, list(findings)].sum(dim=0)  # (F,)
        gradients = [torch.autograd.grad(logit, patches, retain_graph=True)[0] for logit in logits]
    weight = torch.stack(gradients, dim=1).mean(dim=2)  # (B, F, Dv)
    return patches.detach(), torch.einsum("bfd,bnd->bfn", weight, patches.detach()).relu()


def node_attention(reporter: KifReporter, patches: Tensor) -> Tensor | None:
    """Attention (B, N, 28) of the patches (B, N, Dv) to the graph's nodes, mean of all layers and heads.

    The weights of a patch sum to 1 over the nodes. None for a reporter without the graph.
    """
    if not reporter.use_graph:
        return None
    with torch.no_grad():
        return reporter.fusion.attention(patches, reporter.tags()).mean(dim=1)


def _grid(patches: int, image: Tensor) -> tuple[int, int, int]:
    """(V, h, w) of the patches of an image (3, H, W) or (V, 3, H, W)."""
    views = image.shape[0] if image.dim() == 4 else 1
    height, width = image.shape[-2:]
    rows = round(math.sqrt(patches / views * height / width))
    if rows == 0 or patches % (views * rows):
        raise ValueError(
            f"the patches must form a grid in {views} views of {height} x {width} pixels, got {patches}"
        )
    return views, rows, patches // (views * rows)


def _to_one(values: Tensor) -> Tensor:
    peak = values.max()
    return values / peak if peak > 0 else values
