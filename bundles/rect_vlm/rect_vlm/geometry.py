"""Size, spacing and patches of the grid on which a model sees a chest."""

from __future__ import annotations

from dataclasses import dataclass

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Geometry:
    """The model grid, in the order (D, H, W) = towards (superior, posterior, left).

    Args:
        img_size: voxels of the volume.
        spacing: mm per voxel; None resamples the whole scan to `img_size`, whatever its size.
        patch: voxels of a patch.

    Raises:
        ValueError: a side that is no multiple of the patch.
    """

    img_size: Triple
    spacing: tuple[float, float, float] | None
    patch: Triple

    def __post_init__(self) -> None:
        if any(size % patch for size, patch in zip(self.img_size, self.patch, strict=True)):
            raise ValueError(
                f"img_size must be a multiple of the patch, got {self.img_size} and {self.patch}"
            )

    @property
    def grid(self) -> Triple:
        """Patches along D, H, W."""
        d, h, w = (size // patch for size, patch in zip(self.img_size, self.patch, strict=True))
        return d, h, w


GEOMETRIES: dict[str, Geometry] = {
    # The pre-processing and the 15 mm isotropic patch of CT-CLIP (arXiv 2403.17834).
    "ctrate": Geometry((240, 480, 480), (1.5, 0.75, 0.75), (10, 20, 20)),
    # 64 slices spread over the scan.
    "seed": Geometry((64, 512, 512), None, (4, 16, 16)),
    # For CPUs: 352 x 384 x 384 mm, patches of 44 x 48 x 48 mm.
    "cpu": Geometry((32, 96, 96), (11.0, 4.0, 4.0), (4, 12, 12)),
}
