"""How reports become vectors and pictures find them: CLIP, nearest training pictures, or given indices."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from medbundles.precision import best_device
from torch import Tensor
from torch.nn import functional as F

from kif_mrg.images import read_image
from kif_mrg.transforms import IMAGENET_MEAN, IMAGENET_STD

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
BATCH = 32
AT_LEAST = 512  # pixels of the shorter side to which a large JPEG is decoded
THUMBNAIL = 24  # pixels a side


class Backend:
    """What a report memory asks of a backend.

    `settings` are what the vectors depend on, `source` where the weights are. With `among_pictures` a picture
    is compared with the pictures of the training reports, otherwise with the reports themselves.
    """

    name: ClassVar[str]
    among_pictures: ClassVar[bool]
    settings: dict[str, Any]
    source: str | None = None

    def texts(self, reports: Sequence[str], dim: int) -> Tensor:
        """Vectors (N, dim) of reports, of any length."""
        raise NotImplementedError

    def prepare(self, image: Tensor) -> Tensor:
        """A picture (3, H, W) in 0..1 as the encoder takes it, of a size that does not depend on H and W."""
        raise NotImplementedError

    def encode(self, images: Tensor) -> Tensor:
        """Vectors (B, Dk) on the CPU, of any length, for prepared pictures."""
        raise NotImplementedError

    def pictures(self, paths: Sequence[str], desc: str = "pictures") -> Tensor:
        """Vectors (N, Dk) of picture files, read by threads, with a progress bar; errors as in read_image."""
        from tqdm import tqdm

        vectors = []
        with ThreadPoolExecutor() as pool, tqdm(total=len(paths), desc=desc, ncols=110) as bar:
            for start in range(0, len(paths), BATCH):
                part = paths[start : start + BATCH]
                vectors.append(self.encode(torch.stack(list(pool.map(self._read, part)))))
                bar.update(len(part))
        return torch.cat(vectors)

    def _read(self, path: str) -> Tensor:
        return self.prepare(read_image(path, at_least=AT_LEAST))


class ImageKnn(Backend):
    """The reports of the nearest training pictures; needs no weights.

    Reports: TF-IDF of words and pairs of words, brought to `dim` numbers by a fixed random projection.
    Pictures: pooled features of a frozen VisualEncoder, or without weights a thumbnail of zero mean and unit
    variance.

    Args:
        encoder: name of the VisualEncoder.
        weights: its local state dict; None for thumbnails.
        seed: of the projection.
    """

    name, among_pictures = "image_knn", True

    def __init__(self, encoder: str = "resnet101", weights: str | None = None, seed: int = 0) -> None:
        self.encoder, self.source, self.seed = encoder, weights, seed
        self.settings = {"backend": self.name, "seed": seed}
        if weights is None:
            self.settings |= {"encoder": "thumbnail", "size": THUMBNAIL}
        else:
            self.settings |= {"encoder": encoder, "weights": _stamp(Path(weights), "encoder weights")}

    def texts(self, reports: Sequence[str], dim: int) -> Tensor:
        from sklearn.exceptions import DataDimensionalityWarning
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.random_projection import SparseRandomProjection

        counts = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=50_000)
        projection = SparseRandomProjection(dim, dense_output=True, random_state=self.seed)
        with warnings.catch_warnings():
            # More numbers than words only means that nothing is lost.
            warnings.simplefilter("ignore", DataDimensionalityWarning)
            vectors = projection.fit_transform(counts.fit_transform(reports))
        return torch.from_numpy(np.asarray(vectors, dtype=np.float32))

    def prepare(self, image: Tensor) -> Tensor:
        if self.source is None:
            grey = image.mean(0, keepdim=True)[None]
            return F.interpolate(grey, (THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True)[0]
        return _square(image, 256, 224, IMAGENET_MEAN, IMAGENET_STD)

    def encode(self, images: Tensor) -> Tensor:
        if self.source is None:
            flat = images.flatten(1)
            return (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True).clamp_min(1e-6)
        with torch.inference_mode():
            return self._network(images.to(best_device()))[1].float().cpu()

    @cached_property
    def _network(self) -> torch.nn.Module:
        from kif_mrg.visual import VisualEncoder

        return VisualEncoder(self.encoder, weights=self.source).eval().to(best_device())


class Clip(Backend):
    """The reports nearest to the picture in the joint space of a local CLIP (Radford et al., ICML 2021).

    Args:
        folder: what `CLIPModel.save_pretrained` writes, with its tokenizer and, if it normalises pictures in
            its own way, a preprocessor_config.json.
    """

    name, among_pictures = "clip", False

    def __init__(self, folder: str) -> None:
        self.source = folder
        config = Path(folder) / "config.json"
        if not config.is_file():
            raise FileNotFoundError(f"CLIP folder must hold config.json, weights and tokenizer, got {folder}")
        weights = sorted(Path(folder).glob("*.safetensors")) + sorted(Path(folder).glob("*.bin"))
        stamps = [_stamp(path, "CLIP weights") for path in [config, *weights]]
        self.settings = {"backend": self.name, "weights": stamps}

    def texts(self, reports: Sequence[str], dim: int) -> Tensor:
        from tqdm import tqdm

        model, width = self._model, self._model.config.projection_dim
        if width != dim:
            raise ValueError(
                f"dim must be the projection_dim of the CLIP in {self.source}, {width}, got {dim}"
            )
        vectors = []
        starts = range(0, len(reports), BATCH)
        for start in tqdm(starts, desc="reports", ncols=110, disable=len(starts) == 1):
            words = self._tokenizer(
                list(reports[start : start + BATCH]), padding=True, truncation=True, return_tensors="pt",
                max_length=model.config.text_config.max_position_embeddings,
            ).to(best_device())  # fmt: skip
            with torch.inference_mode():
                vectors.append(model.get_text_features(**words).pooler_output.float().cpu())
        return torch.cat(vectors)

    def prepare(self, image: Tensor) -> Tensor:
        size = self._model.config.vision_config.image_size
        return _square(image, size, size, *self._normalisation, mode="bicubic")

    def encode(self, images: Tensor) -> Tensor:
        with torch.inference_mode():
            features = self._model.get_image_features(pixel_values=images.to(best_device()))
        return features.pooler_output.float().cpu()

    @cached_property
    def _model(self) -> Any:
        from medbundles.text import require_text_extra

        require_text_extra()
        from transformers import CLIPModel

        return CLIPModel.from_pretrained(self.source, local_files_only=True).eval().to(best_device())

    @cached_property
    def _tokenizer(self) -> Any:
        from medbundles.text import require_text_extra

        require_text_extra()
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.source, local_files_only=True)

    @cached_property
    def _normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        path = Path(str(self.source)) / "preprocessor_config.json"
        stated = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return stated.get("image_mean", CLIP[0]), stated.get("image_std", CLIP[1])


class Precomputed(Backend):
    """Vectors from a file, neighbours from the annotation; no picture is compared with anything.

    Args:
        file: npz to take over, with `features` (N, dim) and `study_ids` (N); None if the memory's own path
            holds it.
    """

    name, among_pictures = "precomputed", False

    def __init__(self, file: str | None = None) -> None:
        self.source = file
        self.settings = {"backend": self.name}
        if file is not None:
            self.settings["file"] = _stamp(Path(file), "precomputed report memory")

    def prepare(self, image: Tensor) -> Tensor:
        raise ValueError(
            "a precomputed memory has no encoder for new pictures: name their neighbours under the key "
            "retrieved, or use the backend image_knn or clip"
        )


def make_backend(name: str, source: str | None = None, encoder: str = "resnet101", seed: int = 0) -> Backend:
    """Backend by name, with the `source` of make_memory.

    Raises ValueError for another name or a missing source, FileNotFoundError for a source that is not there.
    """
    if name == "image_knn":
        return ImageKnn(encoder, source, seed)
    if name == "clip":
        if source is None:
            raise ValueError("backend 'clip' needs source, the folder of a local CLIP model, got None")
        return Clip(source)
    if name == "precomputed":
        return Precomputed(source)
    raise ValueError(f'backend must be "image_knn", "clip" or "precomputed", got {name!r}')


def _stamp(path: Path, what: str) -> list[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{what} not found: {path}")
    return [path.name, path.stat().st_size]


def _square(
    image: Tensor,
    resize: int,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    mode: str = "bilinear",
) -> Tensor:
    """The middle (3, size, size) of a picture whose shorter side is brought to `resize`, normalised."""
    height, width = image.shape[-2:]
    shorter = min(height, width)
    shape = (round(height * resize / shorter), round(width * resize / shorter))
    image = F.interpolate(image[None], shape, mode=mode, antialias=True)[0].clamp(0, 1)
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    image = image[:, top : top + size, left : left + size]
    return (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
