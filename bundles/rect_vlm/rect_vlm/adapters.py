"""LoRA weights as something of their own: their state, their folder, a frozen copy as the reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from medbundles.atomic import plain_permissions
from torch import Tensor, nn

from rect_vlm.model_weights import load_tensors

if TYPE_CHECKING:
    from peft import PeftModel

TRAINED, REFERENCE = "default", "reference"
FILES = ("adapter_config.json", "adapter_model.safetensors")


def adapter_state(llm: PeftModel, adapter: str = TRAINED) -> dict[str, Tensor]:
    """The live weights of one adapter by peft's names, which do not hold the adapter's; never the model's."""
    from peft import get_peft_model_state_dict

    state: dict[str, Tensor] = get_peft_model_state_dict(
        llm, adapter_name=adapter, save_embedding_layers=False
    )
    return state


def save_adapter(llm: PeftModel, folder: str | Path) -> Path:
    """Write the trained adapter as peft does: adapter_config.json and adapter_model.safetensors."""
    llm.save_pretrained(str(folder), selected_adapters=[TRAINED], save_embedding_layers=False)
    plain_permissions(folder)
    return Path(folder)


def load_adapter(llm: PeftModel, folder: str | Path) -> None:
    """Load the weights that `save_adapter` wrote.

    Raises:
        ValueError: a file is missing, or the adapter is of another model, rank or other layers.
    """
    from peft import PeftConfig, load_peft_weights

    if missing := [name for name in FILES if not (Path(folder) / name).is_file()]:
        raise ValueError(f"an adapter's folder must hold {' and '.join(FILES)}, {folder} lacks {missing}")
    saved, own = PeftConfig.from_pretrained(str(folder)), llm.peft_config[TRAINED]
    for number in ("r", "lora_alpha"):
        if getattr(saved, number) != getattr(own, number):
            raise ValueError(
                f"{Path(folder) / FILES[0]}: {number} must be {getattr(own, number)} as in this model, "
                f"got {getattr(saved, number)}"
            )
    stored = load_peft_weights(str(folder), device="cpu")
    load_tensors(adapter_state(llm), stored, str(Path(folder) / FILES[1]))


def set_reference(llm: PeftModel) -> None:
    """Keep the trained adapter as it is now as the frozen adapter "reference", in place of an older one.

    The model without any adapter is no reference: it is the policy before all training.
    """
    trainable = _trainable(llm)
    if REFERENCE not in llm.peft_config:
        llm.add_adapter(REFERENCE, llm.peft_config[TRAINED])
    load_tensors(adapter_state(llm, REFERENCE), adapter_state(llm), "the reference")
    _activate(llm, TRAINED, trainable)


@contextmanager
def adapter_in_use(llm: PeftModel, adapter: str) -> Iterator[None]:
    """Run the model with another adapter, frozen, and then with the trained one as it was before.

    Raises:
        ValueError: there is no such adapter.
    """
    if adapter not in llm.peft_config:
        known = ", ".join(llm.peft_config)
        raise ValueError(f"adapter must be one of {known} (set_reference makes {REFERENCE}), got {adapter!r}")
    if adapter == TRAINED:
        yield
        return
    trainable = _trainable(llm)
    _activate(llm, adapter, [])
    try:
        yield
    finally:
        _activate(llm, TRAINED, trainable)


def _trainable(llm: PeftModel) -> list[nn.Parameter]:
    return [weight for weight in llm.parameters() if weight.requires_grad]


def _activate(llm: PeftModel, adapter: str, trainable: list[nn.Parameter]) -> None:
    # peft makes the active adapter trainable, whatever a phase had frozen.
    llm.set_adapter(adapter)
    for name, weight in llm.named_parameters():
        if "lora_" in name:
            weight.requires_grad_(False)
    for weight in trainable:
        weight.requires_grad_(True)
