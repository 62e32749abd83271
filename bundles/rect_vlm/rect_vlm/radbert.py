"""RadBERT, the learned labeler of CT-RATE, from a local checkpoint (Hamamci et al., arXiv 2403.17834)."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from medbundles.text import require_text_extra
from torch import Tensor, nn
from tqdm import tqdm

from rect_vlm.findings import FINDINGS
from rect_vlm.report_labeler import Labels

if TYPE_CHECKING:
    from transformers import RobertaConfig, RobertaModel

HEAD_WIDTH = 64  # of every published RoBERTa: base has 768 / 64 = 12 attention heads
THRESHOLD = 0.5
_POSITIONS_BEFORE_TEXT = 2  # RoBERTa counts positions from its padding id 1

logger = logging.getLogger(__name__)


class RadBertLabeler(nn.Module):
    """RoBERTa with one linear layer of 18 logits on its pooled output; its `label` is a ReportLabeler.

    Published label scores of CT-RATE need it: those of the rule labeler are other figures.

    Args:
        checkpoint: `RadBertClassifier.pth`, from which the sizes are read.
        tokenizer_folder: local folder with the tokenizer of its RoBERTa.
        device: where it runs.

    Raises:
        FileNotFoundError: no such checkpoint or folder.
        ValueError: a checkpoint that is damaged, holds other objects than tensors or other keys; a tokenizer
            of another vocabulary. Names the file.
        ImportError: the extra `text` is not installed.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str],
        tokenizer_folder: str | os.PathLike[str],
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__()
        require_text_extra()
        from transformers import RobertaModel

        path = Path(checkpoint)
        weights = _read_weights(path)
        config = _config(weights, path)
        self.model: RobertaModel = RobertaModel(config)
        self.classifier = nn.Linear(config.hidden_size, len(FINDINGS))
        self.tokenizer = _read_tokenizer(Path(tokenizer_folder), config.vocab_size)
        try:
            self.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"{path} must hold the weights of RadBERT: {error}") from error
        self.eval().to(device)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens (B, T) and their mask (B, T) to logits (B, 18)."""
        logits: Tensor = self.classifier(self.model(input_ids=tokens, attention_mask=mask).pooler_output)
        return logits

    def probabilities(self, texts: Sequence[str], batch_size: int = 32) -> Tensor:
        """Probabilities (N, 18) of the findings of N reports, cut at the positions of the model (512).

        Raises:
            TypeError: one string instead of a sequence of them.
        """
        if isinstance(texts, str):
            raise TypeError("RadBertLabeler needs a sequence of reports, got one str")
        found = torch.zeros(len(texts), len(FINDINGS))
        longest = self.model.config.max_position_embeddings - _POSITIONS_BEFORE_TEXT
        by_length = sorted(range(len(texts)), key=lambda n: len(texts[n]))  # batches with little padding
        for start in tqdm(range(0, len(texts), batch_size), desc="RadBERT", leave=False, disable=None):
            chosen = by_length[start : start + batch_size]
            batch = self.tokenizer(
                [texts[n] for n in chosen],
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            ).to(self.model.device)
            with torch.inference_mode():
                found[chosen] = self(batch["input_ids"], batch["attention_mask"]).sigmoid().float().cpu()
        return found

    def label(self, texts: Sequence[str], batch_size: int = 32) -> Labels:
        """Label N reports: (N, 18) of 0 and 1 in the order of FINDINGS, 1 from a probability of 0.5."""
        return (self.probabilities(texts, batch_size) >= THRESHOLD).long().numpy()


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint of RadBERT must be a local file, got {path}")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} must be a checkpoint of tensors only: {error}") from error
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} must hold a state dict of tensors, got {type(content).__name__}")
    weights = {key.removeprefix("module."): value for key, value in content.items()}
    dropped = [key for key in weights if key.endswith(".position_ids")]  # a buffer newer classes lack
    if dropped:
        logger.info("%s: left out %s", path, ", ".join(dropped))
    return {key: value for key, value in weights.items() if key not in dropped}


def _config(weights: Mapping[str, Tensor], path: Path) -> RobertaConfig:
    from transformers import RobertaConfig

    def rows(name: str) -> int:
        if name not in weights:
            raise ValueError(f"{path} must hold the weights of RadBERT, {name!r} is missing")
        return weights[name].shape[0]

    if (labels := rows("classifier.weight")) != len(FINDINGS):
        raise ValueError(f"{path} must have {len(FINDINGS)} labels, got {labels}")
    width = rows("model.embeddings.LayerNorm.weight")
    layers = {key.split(".")[3] for key in weights if key.startswith("model.encoder.layer.")}
    return RobertaConfig(
        vocab_size=rows("model.embeddings.word_embeddings.weight"),
        hidden_size=width,
        num_hidden_layers=len(layers),
        num_attention_heads=max(width // HEAD_WIDTH, 1),
        intermediate_size=rows("model.encoder.layer.0.intermediate.dense.weight"),
        max_position_embeddings=rows("model.embeddings.position_embeddings.weight"),
        type_vocab_size=rows("model.embeddings.token_type_embeddings.weight"),
        layer_norm_eps=1e-5,
    )


def _read_tokenizer(folder: Path, vocabulary: int) -> Any:
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise FileNotFoundError(f"the tokenizer of RadBERT must be a local folder, got {folder}")
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    if len(tokenizer) != vocabulary:
        raise ValueError(
            f"the tokenizer must hold the {vocabulary} word pieces of the checkpoint, "
            f"got {len(tokenizer)} in {folder}"
        )
    return tokenizer
