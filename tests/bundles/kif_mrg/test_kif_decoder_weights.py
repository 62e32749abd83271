"""The option `decoder_weights` of inference and evaluation: bf16 for the text decoder, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kif_evaluation_runs as runs
import pytest
import torch
from kif_inference_runs import write_reports
from kif_mrg import evaluation
from kif_mrg.evaluated import Evaluated
from kif_mrg.networks import KifReporter
from medbundles.errors import without_wrappers

Dtypes = set[torch.dtype]
Calls = list[tuple[Dtypes, Dtypes]]
FP32, BF16 = {torch.float32}, {torch.bfloat16}
UNKNOWN = "decoder_weights must be 'fp32' or 'bf16', got 'fp8'"


@pytest.fixture
def dtypes(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """For each call of generate the dtypes of the decoder's weights, and of all others."""
    found: Calls = []
    generate = KifReporter.generate

    def recording(self: KifReporter, *given: Any, **options: Any) -> dict[str, Any]:
        parts: dict[bool, Dtypes] = {True: set(), False: set()}
        for name, value in self.named_parameters():
            parts[name.startswith("decoder.")].add(value.dtype)
        found.append((parts[True], parts[False]))
        return generate(self, *given, **options)

    monkeypatch.setattr(KifReporter, "generate", recording)
    return found


def test_inference_writes_a_line_for_each(
    models: str, folder: Path, tmp_path: Path, dtypes: list[tuple[Dtypes, Dtypes]]
) -> None:
    plain, half, again = (
        write_reports(models, folder, tmp_path, decoder_weights=kind) for kind in ("fp32", "bf16", "fp32")
    )
    assert dtypes == [(FP32, FP32), (BF16, FP32), (FP32, FP32)]
    assert list(half) == list(plain)
    assert again == plain
    for name, row in half.items():
        assert row["report"]
        assert row["probabilities"] == plain[name]["probabilities"]  # the diagnosis is no part of the decoder
        assert row["fingerprint"] != plain[name]["fingerprint"]


def test_evaluation_says_which(
    tmp_path: Path, cache: Path, dtypes: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.write_cohort(tmp_path)
    runs.write_checkpoint(tmp_path)
    written: list[Evaluated] = []
    monkeypatch.setattr(evaluation, "write_evaluation", lambda _, found, *__: written.append(found))
    runs.run(tmp_path, decoder_weights="bf16")
    assert dtypes
    assert all(found == (BF16, FP32) for found in dtypes)
    (found,) = written
    assert found.facts["decoder_weights"] == "bf16"
    assert len(found.predictions) == runs.SIZES["test"]
    assert all(row["report"] for row in found.predictions)


def test_anything_else_is_refused(models: str, folder: Path, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ValueError, match=UNKNOWN):
        write_reports(models, folder, tmp_path / "out", decoder_weights="fp8")
    assert not (tmp_path / "out" / "reports.jsonl").exists()
    runs.write_cohort(tmp_path)
    with pytest.raises(RuntimeError) as error:
        runs.run(tmp_path, ckpt_dir=models, decoder_weights="fp8")
    assert UNKNOWN in str(without_wrappers(error.value))
    assert not (tmp_path / "output_dir").exists()
