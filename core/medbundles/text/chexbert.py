"""CheXbert, the learned labeler of chest X-ray reports, from a local checkpoint (Smit et al., EMNLP 2020)."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from medbundles.text import require_text_extra
from medbundles.text.chest_phrases import CHEXPERT_CONDITIONS

if TYPE_CHECKING:
    from transformers import BertConfig, BertModel, BertTokenizer

HEAD_WIDTH = 64  # of every published BERT: base has 768 / 64 = 12 attention heads
STATES = (4,) * 13 + (2,)  # No Finding is blank or positive

logger = logging.getLogger(__name__)


class CheXbert(nn.Module):
    """BERT with one linear head per condition on the [CLS] token."""

    def __init__(self, bert: BertModel, tokenizer: BertTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.bert = bert
        self.linear_heads = nn.ModuleList(nn.Linear(bert.config.hidden_size, states) for states in STATES)

    def forward(self, tokens: Tensor, mask: Tensor) -> list[Tensor]:
        """Tokens (B, T) and their mask (B, T) to 14 tensors of logits: (B, 4), of No Finding (B, 2)."""
        first = self.bert(input_ids=tokens, attention_mask=mask).last_hidden_state[:, 0]  # (B, D)
        return [head(first) for head in self.linear_heads]

    @torch.inference_mode()
    def label(self, texts: Sequence[str], batch_size: int = 32) -> npt.NDArray[np.int64]:
        """Label N reports: states (N, 14) in the order of CHEXPERT_CONDITIONS, CheXbert coding.

        A report longer than the positions of the model (512 word pieces) is cut there, as in training.
        """
        if isinstance(texts, str):
            raise TypeError("CheXbert.label needs a sequence of reports, got one str")
        states = np.zeros((len(texts), len(CHEXPERT_CONDITIONS)), dtype=np.int64)
        by_length = sorted(range(len(texts)), key=lambda n: len(texts[n]))  # batches with little padding
        for start in tqdm(range(0, len(texts), batch_size), desc="CheXbert", leave=False, disable=None):
            chosen = by_length[start : start + batch_size]
            batch = self.tokenizer(
                [texts[n] for n in chosen],
                padding=True,
                truncation=True,
                max_length=self.bert.config.max_position_embeddings,
                return_tensors="pt",
            ).to(self.bert.device)
            logits = self(batch["input_ids"], batch["attention_mask"])
            states[chosen] = torch.stack([head.argmax(1) for head in logits], dim=1).cpu().numpy()
        return states


def load_chexbert(
    checkpoint: str | os.PathLike[str],
    tokenizer_folder: str | os.PathLike[str],
    device: str | torch.device = "cpu",
) -> CheXbert:
    """Load a local CheXbert checkpoint with its BERT tokenizer (bert-base-uncased), ready to label.

    The sizes are read from the checkpoint. `position_ids`, a buffer newer BERT classes no longer have, is
    left out and logged; every other key must match.

    Raises:
        FileNotFoundError: no such checkpoint or folder.
        ValueError: a checkpoint that is damaged, holds other objects than tensors or other keys; a tokenizer
            of another vocabulary. Names the file.
    """
    require_text_extra()
    from transformers import BertModel

    path = Path(checkpoint)
    weights = _read_weights(path)
    config = _config(weights, path)
    model = CheXbert(BertModel(config), _read_tokenizer(Path(tokenizer_folder), config.vocab_size))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} must hold the weights of CheXbert: {error}") from error
    return model.eval().to(device)


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint of CheXbert must be a local file, got {path}")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"{path} must be a checkpoint of tensors and plain values only "
            f"(a trusted one can be saved anew with its model_state_dict alone): {error}"
        ) from error
    if isinstance(content, Mapping):
        content = content.get("model_state_dict", content)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} must hold a state dict, or one under 'model_state_dict'")
    weights = {key.removeprefix("module."): value for key, value in content.items()}
    dropped = [key for key in weights if key.endswith(".position_ids")]
    if dropped:
        logger.info("%s: left out %s", path, ", ".join(dropped))
    return {key: value for key, value in weights.items() if key not in dropped}


def _config(weights: Mapping[str, Tensor], path: Path) -> BertConfig:
    from transformers import BertConfig

    def rows(name: str) -> int:
        if f"bert.{name}" not in weights:
            raise ValueError(f"{path} must hold the weights of CheXbert, 'bert.{name}' is missing")
        return weights[f"bert.{name}"].shape[0]

    width = rows("embeddings.LayerNorm.weight")
    layers = {key.split(".")[3] for key in weights if key.startswith("bert.encoder.layer.")}
    return BertConfig(
        vocab_size=rows("embeddings.word_embeddings.weight"),
        hidden_size=width,
        num_hidden_layers=len(layers),
        num_attention_heads=max(width // HEAD_WIDTH, 1),
        intermediate_size=rows("encoder.layer.0.intermediate.dense.weight"),
        max_position_embeddings=rows("embeddings.position_embeddings.weight"),
        type_vocab_size=rows("embeddings.token_type_embeddings.weight"),
    )


def _read_tokenizer(folder: Path, vocabulary: int) -> BertTokenizer:
    from transformers import BertTokenizer

    if not folder.is_dir():
        raise FileNotFoundError(
            f"the tokenizer of CheXbert must be a local folder with vocab.txt, got {folder}"
        )
    tokenizer = BertTokenizer.from_pretrained(str(folder), local_files_only=True)
    if len(tokenizer) != vocabulary:
        raise ValueError(
            f"the tokenizer must hold the {vocabulary} word pieces of the checkpoint, "
            f"got {len(tokenizer)} in {folder}"
        )
    return tokenizer
