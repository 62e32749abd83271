"""SmolLM2-135M-Instruct, the small real language model that a package ships as a GGUF file."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import torch
from medbundles.folders import check_free_space
from medbundles.samples import cache_dir, fetch
from medbundles.text import require_text_extra

from rect_vlm.made_folder import make_once

logger = logging.getLogger(__name__)

SAMPLE = "smollm2"
NEEDED_BYTES = 600e6  # 134.5 million weights in float32 and the tokenizer


def smollm2_folder() -> Path:
    """Return the folder with its weights in float32 and its tokenizer, unpacked once from the GGUF file.

    Reading the 4-bit file takes half a minute of CPU each time, the unpacked weights a second.

    Raises:
        ImportError: the package gguf or the extra `text` is not installed.
        SampleError: the sample cannot be fetched.
        OSError: the cache cannot be written or has no room.
    """
    require_text_extra()
    store = cache_dir() / "rect_vlm"
    sample = fetch(SAMPLE)
    target = store / sample.name
    if target.is_dir():
        return target
    if importlib.util.find_spec("gguf") is None:
        raise ImportError("unpacking SmolLM2 needs the package gguf; install it with: pip install gguf")
    store.mkdir(parents=True, exist_ok=True)
    check_free_space(store, NEEDED_BYTES)
    logger.info("unpacking %s into %s, once", sample.name, target)
    return make_once(target, lambda folder: _unpack(sample, folder))


def _unpack(sample: Path, folder: Path) -> None:
    import transformers

    name = next(sample.glob("*.gguf")).name
    transformers.AutoTokenizer.from_pretrained(sample, gguf_file=name).save_pretrained(folder)
    options = {}
    if hasattr(transformers, "GgufConfig"):
        # Releases that have it can also keep the weights packed, which no optimizer could train.
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    packed = transformers.AutoModelForCausalLM.from_pretrained(
        sample, gguf_file=name, dtype=torch.float32, **options
    )
    numbers = {key: value for key, value in packed.config.to_dict().items() if key != "quantization_config"}
    # A model that came from GGUF refuses to be saved; its weights in a plain one can be.
    plain = transformers.AutoModelForCausalLM.from_config(type(packed.config)(**numbers))
    plain.load_state_dict(packed.state_dict())
    plain.save_pretrained(folder)
