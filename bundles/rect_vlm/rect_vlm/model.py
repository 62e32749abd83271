"""ReCT-VLM: findings, lesion masks and a report of a chest CT; load, predict, save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.networks.utils import eval_mode
from numpy.typing import ArrayLike
from torch import Tensor

from rect_vlm.findings import LESIONS
from rect_vlm.generator_plan import GeneratorPlan
from rect_vlm.lesion_tokens import with_lesions
from rect_vlm.model_build import build_classifier, build_localizer, build_vision, full_config, read_geometry
from rect_vlm.model_files import model_folder, read_config, read_tensors, save_model
from rect_vlm.model_parts import HEADS, ModelParts
from rect_vlm.predictions import Threshold, binary_masks, check_threshold, classification, localization
from rect_vlm.studies import Study, Volumes, is_batch, read_studies
from rect_vlm.thresholds import read_thresholds

COMPONENTS = (*HEADS, "generator")
GENERATION = ("max_new_tokens", "temperature", "top_p", "do_sample")


class ReCTVLM(ModelParts):
    """Findings, lesion masks and a report of a chest CT from one vision encoder.

    A CT comes as `ct_volume`: a path (NIfTI, NRRD, MetaImage, MedSAM2 .npz, folder of a DICOM series), a
    nibabel image, a MetaTensor, or an array (X, Y, Z) in HU as `nibabel.load(...).get_fdata()` gives it, then
    with its `affine`; a list of these; or a tensor (B, 1, D, H, W) in model space. `segmentation_mask` is the
    label map of TotalSegmentator on the same grid, in the same form, and may be left out. `intensity` is
    "hu", or "uint8_window" for windowed values of 0..255. Errors are those of `studies.read_studies`.
    """

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        llm: str | Path | None = None,
        text_model: str | Path | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        load_in_4bit: bool = False,
        local_files_only: bool = True,
        components: Sequence[str] = ("all",),
    ) -> ReCTVLM:
        """Load a saved model, ready to predict.

        The language model is read when the first report is asked for, or by `load_generator`: nothing else
        needs one.

        Args:
            path: folder of `save_pretrained`, or its id on the Hugging Face hub.
            llm: folder or hub id of the language model; default the one the model was trained with.
            text_model: text encoder that reads the prompts anew; default what the saved one said of them.
            device: where to; default the CPU.
            dtype: of the language model's weights and of the arithmetic of the other parts (autocast).
            load_in_4bit: quantise the language model (NF4), which needs bitsandbytes.
            local_files_only: take hub models from the local cache; False downloads them.
            components: "all", or some of "vision" (always loaded), "classifier", "localizer", "generator".

        Raises:
            FileNotFoundError: no such model.
            ValueError: a file that does not fit, an unknown component, or one that was not saved.
        """
        folder = model_folder(path, local_files_only)
        config = read_config(folder)
        model = cls.from_config(_only(config, components, folder))
        heads = model.heads()
        model.load_weights(read_tensors(folder, heads), tuple(heads), folder)
        if text_model is not None:
            model.read_texts(text_model)
        if model.plan is not None:
            name = model.plan.llm_name if llm is None else str(llm)
            model.plan = replace(
                model.plan,
                llm_name=name,
                saved=folder,
                load_in_4bit=load_in_4bit,
                dtype=dtype,
                local_files_only=local_files_only,
            )
        model.thresholds = read_thresholds(folder)
        model.arithmetic = dtype
        return model.to(device or "cpu").eval()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ReCTVLM:
        """A model with fresh weights and no texts yet, see `model_build.full_config` for its numbers."""
        full = full_config(config)
        vision = build_vision(full)
        arguments = full["generator"]
        plan = None if arguments is None else GeneratorPlan(full["llm_name"], arguments)
        heads = build_classifier(full, vision), build_localizer(full, vision)
        return cls(vision, *heads, None, read_geometry(full["geometry"]), full, plan)

    def save_pretrained(self, path: str | Path) -> None:
        """Write the model to a folder for `from_pretrained`; the language model stays where it is.

        A tiny one goes along, see `saved_llm.keep_llm`, and so do the thresholds of the findings.
        A generator that nobody has made has learned nothing, and the folder is one without.

        Raises:
            ValueError: the model was not built from a config.
            OSError: the folder cannot be written.
        """
        save_model(self, path)

    def predict(
        self,
        ct_volume: Volumes,
        segmentation_mask: Volumes | None = None,
        generate_report: bool = True,
        classification_threshold: Threshold | None = None,
        localization_threshold: float = 0.5,
        report_generation_config: Mapping[str, Any] | None = None,
        affine: ArrayLike | Sequence[ArrayLike] | None = None,
        intensity: str = "hu",
    ) -> dict[str, Any]:
        """Everything the model can say, B = 1 for a single volume.

        Args:
            ct_volume, segmentation_mask, affine, intensity: see the class.
            generate_report: False leaves the language model out.
            classification_threshold: a finding is present above it, in the report as well; one for all or one
                for each of the 18; default those validated in training, 0.5 for a model without.
            localization_threshold: a voxel belongs to a lesion above it.
            report_generation_config: max_new_tokens, temperature, top_p, do_sample.

        Returns:
            `classification` and `localization`, see the functions of that name in `predictions`, the latter
            on the grid that came; `reports`, a list of B texts, or None.
        """
        options = _generation(report_generation_config or {})
        limits, outline = self.limits(classification_threshold), check_threshold(localization_threshold)
        found, masks, told = [], [], []
        with self._predicting():
            for study in read_studies(ct_volume, segmentation_mask, self.geometry, affine, intensity):
                seen, here = self._see(study)
                found.append(self.probabilities(seen))
                outlined = self.masks(seen, here.image)
                masks.append(dict(zip(LESIONS, map(study.on_input_grid, outlined[0]), strict=True)))
                if generate_report:
                    told.append(self._told(seen, here, found[-1], outlined, limits))
            reports = self._write(told, options) if generate_report else None
        return {
            "classification": classification(torch.cat(found).cpu(), limits),
            "localization": localization(masks, outline),
            "reports": reports,
        }

    def classify(
        self,
        ct_volume: Volumes,
        segmentation_mask: Volumes | None = None,
        threshold: Threshold | None = None,
        affine: ArrayLike | Sequence[ArrayLike] | None = None,
        intensity: str = "hu",
    ) -> dict[str, Any]:
        """The findings alone, see `predictions.classification`; arguments as in `predict`."""
        limits = self.limits(threshold)
        with self._predicting():
            studies = read_studies(ct_volume, segmentation_mask, self.geometry, affine, intensity)
            found = torch.cat([self.probabilities(self._see(study)[0]) for study in studies])
        return classification(found.cpu(), limits)

    def localize_lesions(
        self,
        ct_volume: Volumes,
        segmentation_mask: Volumes | None = None,
        threshold: float = 0.5,
        affine: ArrayLike | Sequence[ArrayLike] | None = None,
        intensity: str = "hu",
    ) -> dict[str, Any]:
        """Binary masks uint8 by lesion on the grid that came; arguments as in `predict`.

        Returns:
            Of a single volume {lesion: mask on its grid}, of several {lesion: (B, *grid)}, or lists of masks
            where grids differ.
        """
        check_threshold(threshold)
        scans = []
        with self._predicting():
            for study in read_studies(ct_volume, segmentation_mask, self.geometry, affine, intensity):
                seen, here = self._see(study)
                maps = zip(LESIONS, self.masks(seen, here.image)[0], strict=True)
                one_by_one = ({lesion: study.on_input_grid(mask)} for lesion, mask in maps)
                scans.append({k: v for mask in one_by_one for k, v in binary_masks(mask, threshold).items()})
        return localization(scans)["binary_masks"] if is_batch(ct_volume) else scans[0]

    def generate_report(
        self,
        ct_volume: Volumes,
        segmentation_mask: Volumes | None = None,
        max_new_tokens: int = 512,
        temperature: float = 0.7,
        top_p: float = 0.9,
        do_sample: bool = True,
        affine: ArrayLike | Sequence[ArrayLike] | None = None,
        intensity: str = "hu",
    ) -> str | list[str]:
        """The report of a volume, or a list of them; arguments as in `predict` and of the sampling."""
        options = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "do_sample": do_sample,
        }
        told = []
        with self._predicting():
            for study in read_studies(ct_volume, segmentation_mask, self.geometry, affine, intensity):
                seen, here = self._see(study)
                found, outlined = self.probabilities(seen), self.masks(seen, here.image)
                told.append(self._told(seen, here, found, outlined))
            reports = self._write(told, options)
        return reports if is_batch(ct_volume) else reports[0]

    @contextmanager
    def _predicting(self) -> Iterator[None]:
        dtype = self.arithmetic
        lower = dtype is not None and dtype != torch.float32
        with eval_mode(self), torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=lower):
            yield

    def _see(self, study: Study) -> tuple[dict[str, Tensor], Study]:
        """Features of a study, and the study on the model's device."""
        here = study.to(self.device)
        return self.encode(here.image, here.regions), here

    def _told(
        self,
        seen: dict[str, Tensor],
        study: Study,
        found: Tensor,
        outlined: Tensor,
        threshold: Threshold | None = None,
    ) -> Told:
        """What the generator is told of a study: its features and the lines of evidence."""
        lines = self.lines(found, outlined, study.image, study.regions, study.spacing, threshold)
        return Told(with_lesions(seen, outlined, self.geometry.patch), lines[0])

    def _write(self, told: Sequence[Told], options: Mapping[str, Any]) -> list[str]:
        vision = {name: torch.cat([one.vision[name] for one in told]) for name in told[0].vision}
        return self.load_generator().generate(vision, [one.lines for one in told], **options)


class Told(NamedTuple):
    """What the generator reads of one study."""

    vision: dict[str, Tensor]
    lines: list[str]


def build_model(config: Mapping[str, Any]) -> ReCTVLM:
    """`ReCTVLM.from_config` as a function, for configs."""
    return ReCTVLM.from_config(config)


def _only(config: dict[str, Any], components: Sequence[str], folder: Path) -> dict[str, Any]:
    """The config of a saved model with the wanted components alone."""
    wanted = {components} if isinstance(components, str) else set(components)
    if unknown := sorted(wanted - {*COMPONENTS, "all"}):
        raise ValueError(f"components must be 'all' or some of {', '.join(COMPONENTS)}, got {unknown}")
    if "all" in wanted:
        return config
    if missing := sorted(name for name in wanted if config[name] is None):
        raise ValueError(f"{folder} was saved without {', '.join(missing)}")
    return {**config, **{name: None for name in COMPONENTS[1:] if name not in wanted}}


def _generation(options: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := sorted(set(options) - set(GENERATION)):
        raise ValueError(
            f"report_generation_config may hold {', '.join(GENERATION)}, got {', '.join(unknown)}"
        )
    return dict(options)
