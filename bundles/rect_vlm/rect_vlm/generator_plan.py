"""How the report generator of a model is made once somebody wants a report: no language model before that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rect_vlm.model_files import ADAPTER, HUB_ID, SAVED_PARTS, hub_folder, read_tensors
from rect_vlm.model_weights import load_tensors, of_parts

if TYPE_CHECKING:
    from rect_vlm.generator import ReportGenerator


@dataclass(frozen=True)
class GeneratorPlan:
    """What a ReportGenerator is built from.

    Args:
        llm_name: language model, a folder or hub id, or one of the names of `llm.load_llm`.
        arguments: further arguments of ReportGenerator.
        saved: folder of a saved model with the trained weights; None starts anew.
        load_in_4bit: quantise the language model.
        dtype: of the language model's weights; None leaves that to `llm.load_llm`.
        local_files_only: take the language model from a folder or from the local cache of the hub.
    """

    llm_name: str
    arguments: Mapping[str, Any]
    saved: Path | None = None
    load_in_4bit: bool = False
    dtype: torch.dtype | None = None
    local_files_only: bool = False

    def build(self, embed_dim: int, device: torch.device) -> ReportGenerator:
        """Load the language model and the trained weights.

        Raises:
            FileNotFoundError: a hub model that is not in the local cache.
            ValueError: arguments or weights that do not fit, a language model that cannot be loaded.
            ImportError: the extra `text` is not installed.
        """
        from rect_vlm.generator import ReportGenerator

        generator = ReportGenerator(
            self._llm(),
            embed_dim,
            load_in_4bit=self.load_in_4bit,
            dtype=self.dtype,
            device=device,
            **self.arguments,
        )
        if self.saved is not None:
            generator.load_adapter(self.saved / ADAPTER)
            live = of_parts(generator.trainable_state(), SAVED_PARTS)
            load_tensors(live, read_tensors(self.saved, SAVED_PARTS), f"the projector of {self.saved}")
        return generator.to(device)

    def _llm(self) -> str:
        if self.local_files_only and HUB_ID.fullmatch(self.llm_name) and not Path(self.llm_name).is_dir():
            return str(hub_folder(self.llm_name, local_files_only=True))
        return self.llm_name
