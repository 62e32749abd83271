"""The report generator of KIF-ISD: diagnosis, graph and text decoder together (doi 10.3390/app152010974)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from medbundles.text.labeler import BLANK
from torch import Tensor, nn

from kif_mrg.decoder import make_decoder
from kif_mrg.decoding import generate_reports, prompts, report_logits
from kif_mrg.diagnosis import DiagnosisNet
from kif_mrg.fusion import KnowledgeFusion
from kif_mrg.tag_encoder import TagEncoder
from kif_mrg.text import ReportTokenizer


class KifReporter(nn.Module):
    """Write a report from an image: diagnose, enrich the patches by the graph, prompt and decode.

    Small by default. The paper's size: `DiagnosisNet("resnet101", memory_dim=512, heads=8, ff=2048)`,
    `dim=768, fusion_heads=16, ff=1024` and a BERT-base folder as decoder.

    Args:
        diagnosis: gives patches and class logits.
        tokenizer: of the reports; it names the graph's nodes as well.
        dim: D, width of the graph's tags.
        tag_heads, fusion_heads: attention heads in the graph and from patches to graph.
        ff: feed-forward width of both.
        decoder: numbers or folder, see `make_decoder`. From a folder with word embeddings of width D the
            nodes start from a copy of them.
        use_graph: False lets the decoder see the plain patches.

    Raises:
        ValueError: widths and heads that do not fit, or a decoder folder that does not.
    """

    labelled: Tensor

    def __init__(
        self,
        diagnosis: DiagnosisNet,
        tokenizer: ReportTokenizer,
        dim: int = 96,
        tag_heads: int = 6,
        fusion_heads: int = 8,
        ff: int = 128,
        decoder: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        use_graph: bool = True,
    ) -> None:
        super().__init__()
        self.diagnosis = diagnosis
        self.tokenizer = tokenizer
        self.use_graph = use_graph
        width = diagnosis.visual.width
        self.decoder = make_decoder(tokenizer, width, decoder)
        self.register_buffer("labelled", torch.zeros(diagnosis.conditions, dtype=torch.bool))
        if use_graph:
            self.tags = TagEncoder(tokenizer.node_ids(), len(tokenizer), dim, tag_heads, ff)
            self.fusion = KnowledgeFusion(width, dim, fusion_heads, ff)
            words = self.decoder.get_input_embeddings().weight
            if isinstance(decoder, (str, os.PathLike)) and words.shape[1] == dim:
                self.tags.start_from(words.detach())

    def known(self) -> Tensor:
        """Bool (C,): the conditions that training had a label for; all of them before any training.

        The head is never taught the others, so that what it says of them means nothing.
        """
        return self.labelled | ~self.labelled.any()

    def describe(self, image: Tensor, memory: Tensor | None = None) -> dict[str, Tensor]:
        """What is seen before a word is said, in one path for training and inference.

        Args:
            image: (B, 3, H, W) or views (B, V, 3, H, W).
            memory: features (B, K, Dm) of the retrieved reports.

        Returns:
            What `DiagnosisNet.describe` gives: `patches` (B, N, Dv), `pooled`, `class_logits` (B, 4, C) and
            more; and `graph` (B, N, Dv), the patches as the decoder reads them.
        """
        seen = self.diagnosis.describe(image, memory)
        seen["graph"] = self.fusion(seen["patches"], self.tags()) if self.use_graph else seen["patches"]
        return seen

    def forward(
        self, image: Tensor, memory: Tensor | None, states: Tensor, tokens: Tensor
    ) -> dict[str, Tensor]:
        """What `describe` gives, and teacher-forced `logits` (B, T, V).

        Args:
            image: (B, 3, H, W) or views (B, V, 3, H, W).
            memory: features (B, K, Dm) of the retrieved reports, or None.
            states: int64 (B, C), the true state of every condition for the prompt; unknown (below 0) is
                blank.
            tokens: (B, T) report ids ending in [SEP], padded on the right; `logits[:, t]` predicts
                `tokens[:, t]`.

        Raises:
            ValueError: states of another shape or above 3; a report too long for the decoder.
        """
        said = self.describe(image, memory)
        prompt = self._prompt(states, said["class_logits"])
        if self.training:
            self.labelled |= (states >= 0).any(dim=0)
        return {**said, "logits": report_logits(self.decoder, prompt, tokens, said["graph"])}

    @torch.no_grad()
    def generate(
        self,
        image: Tensor,
        memory: Tensor | None = None,
        num_beams: int = 3,
        max_new_tokens: int = 100,
        min_new_tokens: int = 8,
        states: Tensor | None = None,
    ) -> dict[str, Any]:
        """Word a report per image by beam search; the limits count its tokens without the prompt.

        Args:
            image: (B, 3, H, W) or views (B, V, 3, H, W).
            memory: features (B, K, Dm) of the retrieved reports, or None.
            num_beams: 1 is greedy search.
            max_new_tokens: longest report, in tokens.
            min_new_tokens: shortest report, in tokens.
            states: int64 (B, C) for the prompt instead of the most probable state of every condition, which
                is blank for one that is not `known`, as it was in training.

        Returns:
            `reports` (list of str), `tokens` (list of ids without [SEP]), `class_logits` (B, 4, C) and the
            prompt's `states` (B, C).

        Raises:
            RuntimeError: the reporter is in training mode, where dropout would alter diagnosis and report.
            ValueError: as in `forward`; limits that cross or exceed the decoder's positions.
        """
        if self.training:
            raise RuntimeError("reports are generated in eval mode, got a reporter in training mode")
        seen = self.describe(image, memory)
        if states is None:
            states = seen["class_logits"].argmax(dim=1).masked_fill(~self.known(), BLANK)
        prompt = self._prompt(states, seen["class_logits"])
        tokens = generate_reports(
            self.decoder, self.tokenizer, prompt, seen["graph"], num_beams, max_new_tokens, min_new_tokens
        )
        return {
            "reports": [self.tokenizer.decode(ids) for ids in tokens],
            "tokens": tokens,
            "class_logits": seen["class_logits"],
            "states": states,
        }

    def _prompt(self, states: Tensor, class_logits: Tensor) -> Tensor:
        expected = (class_logits.shape[0], class_logits.shape[2])
        if tuple(states.shape) != expected:
            raise ValueError(f"states must be (B, C) = {expected}, got {tuple(states.shape)}")
        return prompts(states, self.tokenizer)
