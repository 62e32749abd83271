"""What training leaves in its checkpoint folder, put together again for use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from medbundles.contract.weights import sha256
from medbundles.engines.checkpointing import load_weights

from kif_mrg.decoding import half_weights
from kif_mrg.memory import ReportMemory
from kif_mrg.networks import KifReporter
from kif_mrg.text import ReportTokenizer

TRAIN_COMMAND = "python -m monai.bundle run training --config_file bundles/kif_mrg/configs/train.json"
WEIGHTS, TOKENIZER, MEMORY = "reporter.pt", "tokenizer", "memory.npz"
DECODER_WEIGHTS = ("fp32", "bf16")


def load_reporter(
    build: Callable[..., KifReporter], folder: str | Path, decoder_weights: str = "fp32"
) -> tuple[KifReporter, ReportMemory | None]:
    """The trained reporter of a folder in eval mode, and its report memory if the diagnosis reads one.

    Args:
        build: KifReporter with every argument but `tokenizer`.
        folder: holds `reporter.pt`, `tokenizer/` and `memory.npz`, as training leaves them.
        decoder_weights: "fp32", or "bf16" for those of the text decoder, see `half_weights`.

    Raises:
        FileNotFoundError: one of them is missing; says which and how to train.
        ValueError: weights of another architecture, a tokenizer or memory that cannot be used; other
            `decoder_weights`.
    """
    if decoder_weights not in DECODER_WEIGHTS:
        known = " or ".join(map(repr, DECODER_WEIGHTS))
        raise ValueError(f"decoder_weights must be {known}, got {decoder_weights!r}")
    folder = Path(folder).absolute()
    missing = [name for name in (WEIGHTS, TOKENIZER) if not (folder / name).exists()]
    if missing:
        raise _untrained(folder, missing)
    reporter = build(tokenizer=ReportTokenizer.load(folder / TOKENIZER))
    load_weights(reporter, folder / WEIGHTS, "reporter")
    memory = None
    if reporter.diagnosis.aggregator is not None:
        if not (folder / MEMORY).is_file():
            raise _untrained(folder, [MEMORY])
        memory = ReportMemory.load(folder / MEMORY)
    return (half_weights(reporter) if decoder_weights == "bf16" else reporter.eval()), memory


def _untrained(folder: Path, missing: Sequence[str]) -> FileNotFoundError:
    return FileNotFoundError(
        f"no trained reporter in {folder}, it lacks {', '.join(missing)}: train one with `{TRAIN_COMMAND}`, "
        "or name the folder of one with --ckpt_dir"
    )


def checkpoint_sums(folder: str | Path) -> list[str]:
    """SHA-256 of every file that decides what the reporter of this folder says."""
    folder = Path(folder)
    files = [folder / WEIGHTS, folder / MEMORY, *sorted((folder / TOKENIZER).iterdir())]
    return [sha256(file) for file in files if file.is_file()]
