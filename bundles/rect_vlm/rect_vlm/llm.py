"""The language model that writes the reports: any causal model of transformers, and LoRA on it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from medbundles.errors import one_line
from medbundles.precision import best_device
from medbundles.text import require_text_extra
from torch import nn

from rect_vlm.smollm2 import smollm2_folder
from rect_vlm.tiny_llm import tiny_llm

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TARGETS = ("q_proj", "v_proj", "o_proj")
ALL_LINEAR = "all-linear"
WEIGHT_FILES = tuple(
    name + end for name in ("model.safetensors", "pytorch_model.bin") for end in ("", ".index.json")
)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


def load_llm(
    source: str | Path,
    load_in_4bit: bool = False,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    checkpointing: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model, every weight frozen, and its tokenizer.

    Args:
        source: a folder or hub id; "smollm2", the sample, fetched on first use; "tiny", see `tiny_llm`.
        load_in_4bit: NF4 with double quantisation and bf16 arithmetic (QLoRA, arXiv 2305.14314).
        dtype: of the weights; default bf16 on CUDA and for what 4-bit leaves whole, else float32.
        device: where to; default the CPU, in 4-bit the CUDA device of this process if there is one.
        checkpointing: recompute activations in the backward pass instead of keeping them.

    Raises:
        ImportError: the extra `text` is not installed, or bitsandbytes where 4-bit is asked for.
        ValueError: see `checked_source` and `load_tokenizer`.
    """
    require_text_extra()
    from transformers import AutoModelForCausalLM, GenerationConfig

    options = _four_bit(device) if load_in_4bit else {}
    place = checked_source(llm_folder(source))
    tokenizer = load_tokenizer(place)
    half = load_in_4bit or (device is not None and torch.device(device).type == "cuda")
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        place, dtype=dtype or (torch.bfloat16 if half else torch.float32), **options
    )
    if device is not None and not load_in_4bit:
        nn.Module.to(model, device)
    # What a call does not say would be filled in from the sampling defaults of the model's own authors.
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.requires_grad_(False)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.eval(), tokenizer


def add_lora(
    model: PreTrainedModel,
    r: int,
    alpha: int,
    targets: Sequence[str] | str = TARGETS,
    dropout: float = 0.05,
) -> PeftModel:
    """Put low-rank updates (LoRA, arXiv 2106.09685) on the named linear layers; they alone can be trained.

    Args:
        model: from `load_llm`.
        r: rank.
        alpha: the update is scaled by alpha / r.
        targets: names of layers, or "all-linear".
        dropout: before the update.

    Raises:
        ValueError: r < 1, or a target that the model does not have; lists those it has.
    """
    require_text_extra()
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if r < 1:
        raise ValueError(f"the rank of LoRA must be >= 1, got {r=}")
    check_targets(model, targets)
    if getattr(model, "is_loaded_in_4bit", False):
        # Norms and embeddings in float32; recomputing, where it was asked for, is on already.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        bias="none",
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    adapted: PeftModel = get_peft_model(model, config)
    return adapted


def check_targets(model: nn.Module, targets: Sequence[str] | str) -> None:
    """Check that every target is a linear layer of the model.

    Raises:
        ValueError: names those that are not, and the layers that there are.
    """
    if targets == ALL_LINEAR:
        return
    linear = {name for name, part in model.named_modules() if _is_linear(part)}
    names = {name.rpartition(".")[2] for name in linear} - {"lm_head"}
    wanted = [targets] if isinstance(targets, str) else list(targets)
    if not wanted or (unknown := [target for target in wanted if target not in names]):
        got = unknown if wanted else "none"
        raise ValueError(
            f"LoRA targets must be linear layers of {type(model).__name__}, which are {sorted(names)} "
            f"(or {ALL_LINEAR!r}), got {got}"
        )


def llm_folder(source: str | Path) -> Path | str:
    """The local folder of "smollm2" and "tiny", made on first use; anything else as it is."""
    if source == "smollm2":
        return smollm2_folder()
    return tiny_llm() if source == "tiny" else source


def checked_source(source: str | Path) -> str:
    """The folder of a language model that holds all it must, or a hub id.

    Raises:
        ValueError: no such folder, or one without configuration, weights or tokenizer.
    """
    folder = Path(source)
    if not folder.is_dir():
        if folder.is_absolute() or len(folder.parts) > 2 or str(source).startswith("."):
            raise ValueError(f"llm must be a folder, a hub id, 'smollm2' or 'tiny', no folder {source}")
        return str(source)
    for what, names in (
        ("", ("config.json",)),
        ("its weights, one of ", WEIGHT_FILES),
        ("its tokenizer, one of ", TOKENIZER_FILES),
    ):
        if not any((folder / name).is_file() for name in names):
            raise ValueError(
                f"the folder of a language model must hold {what}{', '.join(names)}, got {folder} without"
            )
    return str(folder)


def load_tokenizer(place: str, local_files_only: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id; without a padding token of its own it pads with its end of text.

    Raises:
        ValueError: it cannot be loaded, or names no end of text.
    """
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=local_files_only)
    except (OSError, ValueError) as error:
        raise ValueError(f"the tokenizer of {place} cannot be loaded: {one_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {place} must name an end-of-text token, got none")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _is_linear(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"  # that of GPT-2


def _four_bit(device: torch.device | str | None) -> dict[str, Any]:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError(
            "loading in 4 bit needs bitsandbytes; install it with: pip install 'medbundles[text,4bit]'"
        )
    from transformers import BitsAndBytesConfig

    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        # One dtype with the rest of the weights, without which FSDP cannot shard them.
        bnb_4bit_quant_storage=torch.bfloat16,
    )
    place = torch.device(device) if device is not None else best_device()
    return {"quantization_config": quantised, "device_map": {"": place}}
