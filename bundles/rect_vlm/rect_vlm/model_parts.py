"""Encoder, heads and report generator as one module: what training moves, freezes, saves and starts from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from monai.networks.utils import eval_mode
from torch import Tensor, nn

from rect_vlm.classifier import MultiLabelClassifier
from rect_vlm.encoder import ThreeDVisionEncoder
from rect_vlm.evidence import describe
from rect_vlm.generator_plan import GeneratorPlan
from rect_vlm.geometry import Geometry
from rect_vlm.lesion_tokens import with_lesions
from rect_vlm.localization_net import LocalizationNet
from rect_vlm.localizer import LesionLocalizer
from rect_vlm.model_weights import load_tensors, of_parts
from rect_vlm.predictions import HALF, Threshold, finding_limits
from rect_vlm.text_cache import build_text_cache, text_encoder_folder

if TYPE_CHECKING:
    from rect_vlm.generator import ReportGenerator

HEADS = ("vision", "classifier", "localizer")
WRITERS = ("projector", "lora")  # what learns of the generator
PARTS = (*HEADS, *WRITERS)
TEXT_TOKENS = 64
NOMINAL_FIELD = 360.0  # mm


class ModelParts(nn.Module):
    """The parts of a ReCTVLM, which is the class to use.

    Args:
        vision: the encoder.
        classifier: says which of the 18 findings are present; None in a model that does not.
        localizer: outlines the five lesions; None in a model that does not.
        generator: writes the report; usually None, and made by `load_generator` when it is needed.
        geometry: the grid that the encoder sees.
        config: the numbers that all of these were built from; needed to save the model.
        plan: how `load_generator` makes the generator; None for a model that writes no reports.
    """

    def __init__(
        self,
        vision: ThreeDVisionEncoder,
        classifier: MultiLabelClassifier | None,
        localizer: LesionLocalizer | None,
        generator: ReportGenerator | None,
        geometry: Geometry,
        config: Mapping[str, Any] | None = None,
        plan: GeneratorPlan | None = None,
    ) -> None:
        super().__init__()
        self.vision, self.classifier, self.localizer = vision, classifier, localizer
        self.generator = generator
        self.geometry, self.plan = geometry, plan
        self.config = dict(config) if config is not None else None
        self.thresholds: tuple[float, ...] | None = None  # validated ones of the 18 findings
        self.arithmetic: torch.dtype | None = None  # of autocast when predicting; None is that of the weights

    @property
    def device(self) -> torch.device:
        """Where the encoder is."""
        return next(self.vision.parameters()).device

    @property
    def localization_net(self) -> LocalizationNet:
        """The network that is deployed, image in and mask channels out; it shares the weights."""
        return LocalizationNet(self.vision, self.require("localizer"))

    def heads(self) -> dict[str, nn.Module]:
        """Encoder, classifier and localizer, those that the model has."""
        heads = {name: getattr(self, name) for name in HEADS}
        return {name: head for name, head in heads.items() if head is not None}

    @property
    def modules_by_name(self) -> dict[str, list[nn.Parameter]]:
        """The parameters that may ever learn, by part; text encoder and language model are not among them."""
        found = {name: list(head.parameters()) for name, head in self.heads().items()}
        return found | (self.generator.parameters_by_part() if self.generator is not None else {})

    def has_part(self, part: str) -> bool:
        """Whether the model holds one of PARTS now; projector and LoRA come with the generator."""
        return part in (*self.heads(), *(WRITERS if self.generator is not None else ()))

    def require(self, component: str) -> Any:
        """One of vision, classifier, localizer, generator; the generator is made if need be.

        Raises:
            ValueError: the model has none.
        """
        if component == "generator":
            return self.load_generator()
        if (found := getattr(self, component)) is None:
            raise _absent(component)
        return found

    def load_generator(self) -> ReportGenerator:
        """Make the report generator if there is none yet: this reads the language model.

        Raises:
            ValueError: a model that writes no reports; a language model or weights that do not fit.
            ImportError: the extra `text` is not installed.
        """
        if self.generator is None:
            if self.plan is None:
                raise _absent("generator")
            self.generator = self.plan.build(self.vision.embed_dim, self.device).train(self.training)
        return self.generator

    def read_texts(self, text_model: str | Path | None = None) -> None:
        """Let a text encoder read the prompts of findings and lesions; a saved model has kept what it said.

        Args:
            text_model: see `text_cache.text_encoder_folder`; default that of the config.

        Raises:
            ValueError: no such encoder, or one of another width than the heads were built for.
        """
        encoder = text_encoder_folder(text_model or (self.config or {}).get("text_model", "auto"))
        tokens = TEXT_TOKENS if self.localizer is None else self.localizer.loc_tokens.shape[1]
        cache = build_text_cache(encoder, tokens)
        try:
            if self.classifier is not None:
                self.classifier.set_text(cache["cls_text"])
            if self.localizer is not None:
                self.localizer.set_text(cache["loc_tokens"], cache["loc_mask"])
        except ValueError as error:
            raise ValueError(f"text encoder {encoder} does not fit the model: {error}") from error

    def weights_state(self, parts: Collection[str] | None = None) -> dict[str, Tensor]:
        """The live tensors of some parts (default: all at hand) by key, with the part in front.

        Raises:
            ValueError: a part that the model does not hold.
        """
        parts = [part for part in PARTS if self.has_part(part)] if parts is None else parts
        if absent := [part for part in parts if not self.has_part(part)]:
            raise ValueError(f"this model holds no {absent}; projector and lora come with load_generator")
        live = {
            f"{name}.{key}": tensor
            for name, head in self.heads().items()
            for key, tensor in head.state_dict().items()
        }
        live |= self.generator.trainable_state() if self.generator is not None else {}
        return of_parts(live, parts)

    def load_weights(
        self, state: Mapping[str, Tensor], parts: Collection[str] | None = None, source: str | Path = "state"
    ) -> None:
        """Load tensors as `weights_state` gives them, every one of them or none at all.

        Args:
            state: by key, with the part in front; nothing but `parts`.
            parts: those to load; default all at hand.
            source: where the state comes from, for the error.

        Raises:
            ValueError: keys that are missing, unknown or of another shape; names them.
        """
        load_tensors(self.weights_state(parts), state, str(source))

    def encode(self, image: Tensor, regions: Tensor | None = None) -> dict[str, Tensor]:
        """Features of image (B, 1, D, H, W) and region ids of that shape or None, see ThreeDVisionEncoder."""
        return self.vision(image, regions)

    def told(
        self,
        vision: Mapping[str, Tensor],
        image: Tensor,
        regions: Tensor | None = None,
        spacing: Sequence[float] | None = None,
        threshold: Threshold | None = None,
    ) -> tuple[dict[str, Tensor], list[list[str]]]:
        """What the generator is told of scans by the model itself; what it finds is without gradient.

        Args:
            vision: of `encode`.
            image: (B, 1, D, H, W).
            regions: region ids (B, 1, D, H, W), zeros where unknown.
            spacing: mm per voxel of the image; default that of the geometry.
            threshold: of the probability of a finding, see `limits`.

        Returns:
            The features with the `lesion_weights` of the outlined lesions, and lines of evidence per scan.
        """
        with eval_mode(self.require("classifier"), self.require("localizer")):
            found, masks = self.probabilities(vision), self.masks(vision, image)
        seen = with_lesions(vision, masks, self.geometry.patch)
        return seen, self.lines(found, masks, image, regions, spacing, threshold)

    def limits(self, threshold: Threshold | None = None) -> tuple[float, ...]:
        """The probability of each of the 18 findings above which it is present.

        Args:
            threshold: one for all or one for each; None: those validated in training, else 0.5.

        Raises:
            ValueError: one that is no probability, or another number of them.
        """
        return finding_limits(threshold if threshold is not None else self.thresholds or HALF)

    def lines(
        self,
        probabilities: Tensor,
        masks: Tensor,
        image: Tensor,
        regions: Tensor | None = None,
        spacing: Sequence[float] | None = None,
        threshold: Threshold | None = None,
    ) -> list[list[str]]:
        """`evidence` of probabilities (B, 18) and masks (B, 5, D, H, W) that are there already."""
        size = spacing or self.geometry.spacing or nominal_spacing(self.geometry)
        limits = self.limits(threshold)
        places = [None] * len(masks) if regions is None else [ids[0] for ids in regions]
        return [
            describe(mask, place, size, found, limits, volume[0])
            for mask, place, found, volume in zip(masks, places, probabilities, image, strict=True)
        ]

    def probabilities(self, vision: Mapping[str, Tensor]) -> Tensor:
        """Of the 18 findings (B, 18), float32, from what `encode` gives."""
        return self.require("classifier")(vision)["probabilities"].float()

    def masks(self, vision: Mapping[str, Tensor], image: Tensor) -> Tensor:
        """Probability masks of the five lesions (B, 5, D, H, W), float32."""
        return self.require("localizer")(vision, image)["logits"].float().sigmoid()


def _absent(component: str) -> ValueError:
    return ValueError(f"this model has no {component}: it was built or loaded without, see components")


def nominal_spacing(geometry: Geometry) -> tuple[float, float, float]:
    """Voxel size (mm) along D, H, W where no scan tells: the field of CT-CLIP, 360 mm, on this grid."""
    d, h, w = (NOMINAL_FIELD / size for size in geometry.img_size)
    return d, h, w
