"""The voxel grid of a simulated chest and the few shapes that everything on it is drawn with.

Coordinates are mm in the order (z, y, x), towards superior, posterior and the patient's left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Volume = NDArray[np.float32]  # (D,H,W)
Mask = NDArray[np.bool_]  # (D,H,W), or one that broadcasts to it
Box = tuple[slice, slice, slice]

PIECE = 25.0  # mm; longer tubes are drawn in pieces, so that their boxes stay small
GROUP = 32  # tubes of about the same width are drawn together, in boxes of one size


@dataclass(frozen=True)
class Grid:
    """A regular grid: voxels (D,H,W), mm per voxel, and the mm of the centre of the first voxel."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]

    @cached_property
    def axes(self) -> tuple[Volume, Volume, Volume]:
        """z (D,1,1), y (1,H,1) and x (1,1,W) in mm."""
        z, y, x = (
            np.float32(start) + np.float32(step) * np.arange(count, dtype=np.float32)
            for count, step, start in zip(self.shape, self.spacing, self.origin, strict=True)
        )
        return z[:, None, None], y[None, :, None], x[None, None, :]

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel index (D,H,W) to NIfTI's mm towards right-to-left, anterior and superior: (4,4)."""
        affine = np.zeros((4, 4))
        for axis, (row, sign) in enumerate(((2, 1), (1, -1), (0, -1))):
            affine[row, axis] = sign * self.spacing[axis]
            affine[row, 3] = sign * self.origin[axis]
        affine[3, 3] = 1
        return affine

    def stretched(self, factors: ArrayLike) -> Grid:
        """The same voxels in coordinates that are `factors` (3,) times as long."""
        spacing = np.multiply(self.spacing, factors)
        origin = np.multiply(self.origin, factors)
        return Grid(self.shape, (*map(float, spacing),), (*map(float, origin),))  # type: ignore[arg-type]

    def points(self, index: NDArray[np.intp]) -> NDArray[np.float64]:
        """mm (P,3) of voxels given by flat index (P,)."""
        where = np.stack(np.unravel_index(index, self.shape), axis=-1)
        return np.asarray(self.origin) + where * np.asarray(self.spacing)

    def box(self, center: ArrayLike, reach: ArrayLike) -> Box:
        """The voxels within `reach` (3,) mm of `center`, as slices."""
        low = np.subtract(np.subtract(center, reach), self.origin) / self.spacing
        high = np.subtract(np.add(center, reach), self.origin) / self.spacing
        start = np.clip(np.floor(low), 0, self.shape).astype(int)
        stop = np.clip(np.ceil(high) + 1, 0, self.shape).astype(int)
        z, y, x = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        return z, y, x

    def radius(self, center: ArrayLike, radii: ArrayLike, box: Box | None = None) -> Volume:
        """Distance from `center` in units of `radii` (3,): below 1 inside the ellipsoid."""
        c, r = np.asarray(center, np.float32), np.asarray(radii, np.float32)
        parts = [np.square((axis - a) / b) for axis, a, b in zip(self._within(box), c, r, strict=True)]
        return np.sqrt(parts[0] + parts[1] + parts[2])

    def smooth_noise(self, scale: float, rng: np.random.Generator) -> Volume:
        """A random field of mean 0 and standard deviation 1 that changes over about `scale` mm."""
        knots = [_interpolation(axis.ravel(), scale) for axis in self.axes]
        field = rng.standard_normal([k.shape[1] for k in knots], dtype=np.float32)
        field = np.tensordot(knots[0], field, axes=1)
        field = np.matmul(np.matmul(knots[1], field), knots[2].T)
        return (field - field.mean()) / field.std()

    def _within(self, box: Box | None) -> tuple[Volume, Volume, Volume]:
        z, y, x = self.axes
        return (z, y, x) if box is None else (z[box[0]], y[:, box[1]], x[:, :, box[2]])


def _interpolation(axis: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Weights (n, knots) that interpolate knots `scale` mm apart smoothly at the positions `axis`."""
    place = (axis - axis[0]) / scale
    left = np.floor(place).astype(int)
    share = place - left
    share = share * share * (3 - 2 * share)
    weights = np.zeros((len(axis), int(left[-1]) + 2), dtype=np.float32)
    rows = np.arange(len(axis))
    weights[rows, left], weights[rows, left + 1] = 1 - share, share
    return weights


def soft(inside: Volume, width: float) -> Volume:
    """Share of a voxel that is covered, from the mm it lies inside of an edge `width` mm wide."""
    return np.clip(inside / np.float32(width) + np.float32(0.5), 0, 1)


def tubes(grid: Grid, starts: ArrayLike, ends: ArrayLike, radii: ArrayLike, samples: int = 1) -> Volume:
    """Share (D,H,W) of every voxel that lies within `radii` (P,) mm of a line `starts`-`ends` (P,3) mm.

    Equal start and end make a ball. A slice is sampled `samples` times across its thickness: with more than
    one, a small ball between two slices fades in both instead of vanishing from them.
    """
    start, end = np.atleast_2d(starts).astype(np.float32), np.atleast_2d(ends).astype(np.float32)
    start, end, radius = _pieces(start, end, np.broadcast_to(np.asarray(radii, np.float32), len(start)))
    order = np.argsort(radius)
    out = np.zeros(grid.shape, dtype=np.float32)
    shifts = (np.arange(samples) + 0.5) / samples - 0.5
    for first in range(0, len(order), GROUP):
        part = order[first : first + GROUP]
        _draw_boxes(out, grid, start[part], end[part], radius[part], shifts)
    return out


def _draw_boxes(
    out: Volume,
    grid: Grid,
    start: NDArray[np.float32],
    end: NDArray[np.float32],
    radius: NDArray[np.float32],
    shifts: NDArray[np.float64],
) -> None:
    spacing, origin = np.asarray(grid.spacing, np.float32), np.asarray(grid.origin, np.float32)
    reach = np.abs(end - start).max(axis=0) / 2 + radius.max() + spacing
    half = np.ceil(reach / spacing).astype(int)
    middle = np.rint(((start + end) / 2 - origin) / spacing).astype(int)  # (P,3)
    index = [middle[:, k, None] + np.arange(-half[k], half[k] + 1) for k in range(3)]  # (P,n) each
    cover = np.zeros([len(start), *(i.shape[1] for i in index)], dtype=np.float32)
    at = [origin[k] + index[k].astype(np.float32) * spacing[k] - start[:, k, None] for k in range(3)]
    for shift in shifts:
        distance = _distance([at[0] + np.float32(shift) * spacing[0], *at[1:]], end - start)
        cover += soft(radius[:, None, None, None] - distance, float(spacing[1])) / np.float32(len(shifts))
    inside = [(i >= 0) & (i < n) for i, n in zip(index, grid.shape, strict=True)]
    cover *= _outer(inside[0], inside[1], inside[2])
    index = [np.clip(i, 0, n - 1) for i, n in zip(index, grid.shape, strict=True)]
    flat = (index[0][:, :, None, None] * grid.shape[1] + index[1][:, None, :, None]) * grid.shape[2]
    flat = flat + index[2][:, None, None, :]
    covered = cover > 0
    np.maximum.at(out.reshape(-1), flat[covered], cover[covered])


def _pieces(
    start: NDArray[np.float32], end: NDArray[np.float32], radius: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    counts = np.maximum(1, np.ceil(np.linalg.norm(end - start, axis=1) / PIECE).astype(int))
    which = np.repeat(np.arange(len(start)), counts)
    number = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = (number / counts[which]).astype(np.float32)[:, None]
    step = ((end - start) / counts[:, None])[which]
    begin = start[which] + share * (end - start)[which]
    return begin, begin + step, radius[which]


def _distance(at: list[NDArray[np.float32]], line: NDArray[np.float32]) -> Volume:
    """Distance (P,n,n,n) of the positions `at`, three (P,n) from the start of each line (P,3)."""
    z, y, x = at[0][:, :, None, None], at[1][:, None, :, None], at[2][:, None, None, :]
    dz, dy, dx = (line[:, k, None, None, None] for k in range(3))
    length = np.maximum(dz * dz + dy * dy + dx * dx, np.float32(1e-6))
    along = np.clip((z * dz + y * dy + x * dx) / length, 0, 1)
    return np.sqrt(np.square(z - along * dz) + np.square(y - along * dy) + np.square(x - along * dx))


def _outer(z: Mask, y: Mask, x: Mask) -> Mask:
    return z[:, :, None, None] & y[:, None, :, None] & x[:, None, None, :]
