"""What is said about one predicted case: its grade, its maps in the CT's space, its regions, its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from monai.data import MetaTensor
from numpy.typing import ArrayLike
from torch import Tensor

from react_kd.cases import FILE_KEYS, MASK_KEYS
from react_kd.ct_space import CTSpace
from react_kd.explain import Explanation, predictive_entropy, region_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {"topo_gradcam": "Topo-Grad-CAM", "gradcam": "Grad-CAM (no liver or mass mask)"}
Row = dict[str, Any]


def carried_maps(space: CTSpace, why: Explanation, spread: Tensor | None) -> dict[str, MetaTensor]:
    """The maps of one case on the CT's grid by name; those that need regions only where there are masks."""
    maps = {"gradcam": space.carry(why.cam[0], masked=False)}
    if space.inside.any():
        maps["topo_gradcam"] = space.carry(why.topo[0], masked=True)
        if spread is not None:
            maps["topo_gradcam_std"] = space.carry(spread[0], masked=True, rescale=False)
    return maps


def prediction_row(
    case: Mapping[str, Any], classes: Sequence[str], probabilities: Tensor, streams: Sequence[str], label: int
) -> Row:
    """Ids, grade, probabilities (K,), entropy, streams used, files missing; `label` -1 for ungraded."""
    chances = probabilities.float().cpu()
    return {
        "scan_id": case["scan_id"],
        "patient_id": case["patient_id"],
        "image": str(case["image"]),
        "grade": classes[int(chances.argmax())],
        "probabilities": dict(zip(classes, chances.tolist(), strict=True)),
        "entropy": float(predictive_entropy(chances)),
        "streams": list(streams),
        "missing": [key for key in FILE_KEYS if not case.get(key)],
        "label": classes[label] if label >= 0 else None,
    }


def notes(case: Mapping[str, Any], why: Explanation, maps: Mapping[str, Any]) -> list[str]:
    """What a reader of the prediction and its maps must know."""
    found = []
    if not case.get("liver"):
        found.append("no liver mask: the student saw the whole body, which it was not trained on")
    if "topo_gradcam" not in maps:
        found.append("no liver or mass mask: plain Grad-CAM only")
    if not why.cam.any():
        found.append("no positive evidence for this grade: the maps are zero")
    elif "topo_gradcam" in maps and not why.topo.any():
        found.append("no positive evidence for this grade inside liver and mass: Topo Grad-CAM is zero")
    return found


def regions_report(
    case: Mapping[str, Any], why: Explanation, beta: float, regions: ArrayLike, affine: ArrayLike
) -> Row:
    """The region graph of one case: a row per node, and the cosines between the nodes in the same order."""
    rows = region_rows(why, regions, affine)
    slots = [row["region"] - 1 for row in rows]
    return {
        "scan_id": case["scan_id"],
        "masks": [key for key in MASK_KEYS if case.get(key)],
        "beta": beta,
        "nodes": rows,
        "edges": why.edges[0][slots][:, slots].tolist(),
    }


def picture(space: CTSpace, maps: Mapping[str, MetaTensor], row: Row) -> Figure:
    """The best map there is over the CT, with the grade in words."""
    name = "topo_gradcam" if "topo_gradcam" in maps else "gradcam"
    chances = ", ".join(f"{grade} {chance:.0%}" for grade, chance in row["probabilities"].items())
    streams = " and ".join(stream.upper() for stream in row["streams"])
    return space.overlay(
        maps[name],
        title=f"{TITLES[name]} for the grade {row['grade']}, {row['scan_id']}",
        subtitle=f"predicted from {streams}: {chances}; entropy {row['entropy']:.2f} nats",
    )
