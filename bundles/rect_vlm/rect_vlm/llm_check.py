"""What can be known of a language model before the training that needs it, without reading its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from medbundles.errors import one_line
from medbundles.text import require_text_extra

from rect_vlm.llm import TARGETS, check_targets, checked_source, llm_folder, load_tokenizer
from rect_vlm.tiny_llm import SHAPE

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def check_llm(
    source: str | Path, targets: Sequence[str] | str = TARGETS, local_files_only: bool = False
) -> None:
    """Check that a language model is there with its tokenizer, and that LoRA finds its targets in it.

    Of a hub model no more than configuration and tokenizer is downloaded; "smollm2" is fetched.

    Args:
        source: see `llm.load_llm`; of "tiny", which is made when it is needed, the targets alone.
        targets: names of linear layers, or "all-linear".
        local_files_only: take a hub model from the local cache.

    Raises:
        ImportError: the extra `text` is not installed.
        FileNotFoundError: a configuration that cannot be had or read.
        ValueError: see `llm.checked_source`, `llm.load_tokenizer` and `llm.check_targets`.
    """
    require_text_extra()
    from transformers import AutoConfig, AutoModelForCausalLM

    if source == "tiny":
        config = AutoConfig.for_model("llama", **SHAPE)
    else:
        place = checked_source(llm_folder(source))
        config = _config(place, local_files_only)
        load_tokenizer(place, local_files_only)
    with torch.device("meta"):  # layers without memory
        model = AutoModelForCausalLM.from_config(config)
    check_targets(model, targets)


def _config(place: str, local_files_only: bool) -> PretrainedConfig:
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(place, local_files_only=local_files_only)
    except OSError as error:
        raise FileNotFoundError(
            f"llm must be a folder or a hub id with a configuration, got {place}: {one_line(error)}"
        ) from error
    return config
