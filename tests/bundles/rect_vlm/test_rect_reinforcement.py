"""Phase 3 in several processes: one of them writes, and each samples reports of its own."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ignite.distributed as idist
import pytest
import torch
from medbundles.precision import Precision
from rect_llm import REPORTS, tiny_folder
from rect_tiny_model import trained_model, volumes
from rect_vlm import reinforcement
from rect_vlm.grpo_policy import GeneratorPolicy
from rect_vlm.phases import Phase
from rect_vlm.reinforcement import ReinforcedPhase

STEPS = 2
OPTIONS = {"steps": STEPS, "validate_every": 1, "studies": 2, "group": 2, "max_tokens": 4}
PHASE = Phase("3", {"lora": 1e-3}, {"reward": 1.0}, epochs=1, batch_size=2, options=OPTIONS)


class Loader:
    """One batch of two scans."""

    sampler = None
    dataset = SimpleNamespace(records=[{"report": report} for report in REPORTS])

    def __iter__(self) -> Any:
        image = volumes(2)
        regions = torch.zeros(image.shape, dtype=torch.uint8)
        yield {"image": image, "regions": regions, "labels": torch.ones(2, 18), "report": REPORTS}


def reinforced(rank: int, llm: Path, out: Path, seed: int = 0) -> dict[str, Any]:
    """Train as the process of a rank; the seeds it set and the reports it sampled."""
    found: dict[str, Any] = {"seeds": [], "texts": []}
    seeded, sample = reinforcement.set_determinism, GeneratorPolicy.sample

    def noting_seed(value: int) -> None:
        found["seeds"].append(value)
        seeded(value)

    def noting_texts(*arguments: Any) -> Any:
        rollout = sample(*arguments)
        found["texts"].append(rollout.tokens)
        return rollout

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(idist, "get_rank", lambda: rank)
        patch.setattr(reinforcement, "set_determinism", noting_seed)
        patch.setattr(GeneratorPolicy, "sample", noting_texts)
        torch.manual_seed(0)
        phase = ReinforcedPhase(
            trained_model(llm), Precision("cpu", "off"), lambda batch_size: Loader(), Loader(),
            str(out / "models"), str(out / "eval"), seed,
        )  # fmt: skip
        (out / "models").mkdir(parents=True)
        found["best"] = phase(PHASE, {})
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    llm = tiny_folder(tmp_path_factory.mktemp("llm"))
    places = [tmp_path_factory.mktemp(f"rank{rank}") for rank in range(2)]
    return [{**reinforced(rank, llm, out, seed=5), "out": out} for rank, out in enumerate(places)]


def test_the_first_process_alone_writes(ranks: list[dict[str, Any]]) -> None:
    first, second = (
        sorted(str(file.relative_to(rank["out"])) for file in rank["out"].rglob("*") if file.is_file())
        for rank in ranks
    )
    assert second == []
    assert first[0].startswith("eval/phase_3_history.jsonl")
    assert first[1].startswith("eval/tensorboard/phase_3/events")
    assert first[2:] == ["models/phase_3.pt"]


def test_what_is_logged_is_the_history(ranks: list[dict[str, Any]]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = ranks[0]["out"] / "eval"
    lines = (folder / "phase_3_history.jsonl").read_text().splitlines()
    events = EventAccumulator(str(folder / "tensorboard" / "phase_3")).Reload()
    shown = [event.value for event in events.Scalars("phase_3/val_reward")]
    assert shown == pytest.approx([json.loads(line)["val_reward"] for line in lines], abs=1e-6)
    assert len(shown) == STEPS + 1


def test_processes_sample_apart_and_validate_together(ranks: list[dict[str, Any]]) -> None:
    first, second = (rank["seeds"] for rank in ranks)
    assert first == [5, 5 * 1_000_003, 5, 5 * 1_000_003 + 1, 5]
    assert second[::2] == first[::2]
    assert len({*first, *second}) == 1 + 2 * STEPS
    before, sampled = zip(*(rank["texts"][:2] for rank in ranks), strict=True)
    assert torch.equal(*before)
    assert sampled[0].shape != sampled[1].shape or not torch.equal(*sampled)
