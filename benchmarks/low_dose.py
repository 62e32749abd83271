"""Low-dose CT: projection and filtered back-projection per slice, against astra-toolbox and scikit-image."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from react_kd.projector import ParallelBeam, parallel_beam

from benchmarks.timing import Row, interleaved, print_rows

SIDE, ANGLES, SLICES = 256, 256, 32
PEER_SLICES = 4  # astra and scikit-image work slice by slice, so a few tell their time


def rows() -> list[Row]:
    """CPU time per slice for the same views and detector; matrices and geometries are built before."""
    beam = parallel_beam(SIDE, ANGLES)
    stack = torch.from_numpy(_phantom()).expand(SLICES, -1, -1).contiguous()
    candidates: dict[str, Callable[[], object]] = {"ours": lambda: beam.reconstruct(beam.project(stack))}
    slices = {"ours": SLICES}
    missing = {}
    for name, peer in {"astra CPU, linear": _astra, "scikit-image": _skimage}.items():
        try:
            candidates[name], slices[name] = peer(beam, stack[:PEER_SLICES].numpy()), PEER_SLICES
        except ImportError as error:
            missing[name] = f"{name} (does not import: {error})"
    best = {name: total / slices[name] for name, total in interleaved(candidates, rounds=3).items()}
    gates = {"astra CPU, linear": 8.0, "scikit-image": None}
    title = f"low-dose CT, projection + FBP, {SIDE} x {SIDE} x {ANGLES} views, per slice"
    return [
        Row.speedup(title, best["ours"], missing.get(name, name), best.get(name), gate)
        for name, gate in gates.items()
    ]


def _phantom() -> np.ndarray:
    """An ellipse of water with two inserts, (SIDE, SIDE) float32."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    body = (x / 0.9) ** 2 + (y / 0.7) ** 2 < 1
    liver = ((x + 0.4) / 0.35) ** 2 + (y / 0.4) ** 2 < 1
    lesion = (x + 0.4) ** 2 + (y - 0.1) ** 2 < 0.01
    return (body + 0.06 * liver - 0.05 * lesion).astype(np.float32)


def _astra(beam: ParallelBeam, slices: np.ndarray) -> Callable[[], object]:
    import astra

    grid = astra.create_vol_geom(beam.size, beam.size)
    views = astra.create_proj_geom("parallel", 1.0, beam.n_detectors, beam.angles.numpy())
    projector = astra.create_projector("linear", views, grid)

    def one(image: np.ndarray) -> np.ndarray:
        sinogram_id, _ = astra.create_sino(image, projector)
        result_id = astra.data2d.create("-vol", grid)
        settings = astra.astra_dict("FBP")
        settings |= {
            "ProjectorId": projector,
            "ProjectionDataId": sinogram_id,
            "ReconstructionDataId": result_id,
        }
        algorithm = astra.algorithm.create(settings)
        astra.algorithm.run(algorithm)
        result = astra.data2d.get(result_id)
        astra.algorithm.delete(algorithm)
        astra.data2d.delete([sinogram_id, result_id])
        return result

    return lambda: [one(image) for image in slices]


def _skimage(beam: ParallelBeam, slices: np.ndarray) -> Callable[[], object]:
    from skimage.transform import iradon, radon

    degrees = [math.degrees(angle) for angle in beam.angles.tolist()]

    def one(image: np.ndarray) -> np.ndarray:
        sinogram = radon(image, theta=degrees, circle=False)
        return iradon(sinogram, theta=degrees, circle=False, output_size=beam.size)

    return lambda: [one(image) for image in slices]


if __name__ == "__main__":
    print_rows(rows())
