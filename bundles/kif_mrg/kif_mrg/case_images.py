"""The images of the cases to report on, read on demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from medbundles.errors import one_line
from monai.data import Dataset
from monai.transforms import Compose

from kif_mrg.case_sources import Case
from kif_mrg.images import read_image
from kif_mrg.memory_backends import AT_LEAST


class ImageCases(Dataset):
    """Cases read on demand; an image that cannot be read comes as its `error`, the others go on."""

    def __init__(self, data: Sequence[Case], transform: Compose) -> None:
        super().__init__(data, transform)

    def _transform(self, index: int) -> dict[str, Any]:
        paths = self.data[index]["image_path"]
        try:
            image = torch.as_tensor(self.transform({"image_path": paths})["image"])  # type: ignore[misc]
            views = len(image) if image.dim() == 4 else 1
            # As large as they were when the report memory was built: retrieval must not differ from training.
            pictures = [read_image(paths[min(view, len(paths) - 1)], AT_LEAST) for view in range(views)]
        except Exception as error:  # noqa: BLE001 - files can be broken in any way; it is reported
            return {"index": index, "error": one_line(error)}
        return {"index": index, "image": image, "pictures": pictures}


def read_and_failed(samples: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Collate function: the samples that were read, and those that could not be."""
    samples = list(samples)
    return {
        "read": [sample for sample in samples if "error" not in sample],
        "failed": [sample for sample in samples if "error" in sample],
    }
