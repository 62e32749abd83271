"""The texts that an evaluation compares with, and who reads the findings in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from medbundles.text.chexbert import load_chexbert
from medbundles.text.cleaning import clean_report, first_words
from medbundles.text.labeler import label_reports
from numpy.typing import NDArray

from kif_mrg.records import Record

States = NDArray[np.int64]  # (N, 14) in CheXbert coding
Labeler = Callable[[Sequence[str]], States]

REFERENCE_MODES = ("full", "promptmrg")
PROMPTMRG_WORDS = 100


def reference_text(record: Record, mode: str = "full") -> str:
    """The reference of a record: its whole clean report, or what PromptMRG compares with.

    PromptMRG (arXiv 2308.12604) cleans every data set by the rules of MIMIC-CXR and cuts references as well
    after 100 words, which raises the scores of a model that never writes more.

    Raises:
        ValueError: a mode other than "full" and "promptmrg".
    """
    if mode not in REFERENCE_MODES:
        raise ValueError(f"reference_mode must be one of {', '.join(REFERENCE_MODES)}, got {mode!r}")
    if mode == "full":
        return record["report"]
    return first_words(clean_report(record["raw"], "mimic"), PROMPTMRG_WORDS)


def make_labeler(chexbert: str | None, tokenizer: str | None, device: Any = "cpu") -> tuple[str, Labeler]:
    """Name and function of the labeler: CheXbert from a local checkpoint, without one the rule labeler.

    Args:
        chexbert: file `chexbert.pth`.
        tokenizer: local folder of bert-base-uncased.
        device: where CheXbert runs.

    Raises:
        ValueError: one of the two is missing; a checkpoint or tokenizer that cannot be used.
        FileNotFoundError: no such file or folder.
    """
    if chexbert is None and tokenizer is None:
        return "rule", label_reports
    if chexbert is None or tokenizer is None:
        raise ValueError(
            "CheXbert needs both a checkpoint (chexbert) and a tokenizer folder (chexbert_tokenizer), "
            f"got chexbert={chexbert!r}, chexbert_tokenizer={tokenizer!r}"
        )
    return "chexbert", load_chexbert(chexbert, tokenizer, device).label
