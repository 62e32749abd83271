"""The report generator of a training with a language model that fits no process as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from rect_vlm import cohort
from rect_vlm.model import ReCTVLM
from rect_vlm.records import Record
from rect_vlm.sharding import ShardedPlan


def add_generator(
    model: ReCTVLM,
    records: Mapping[str, Sequence[Record]],
    folder: str,
    tiny_steps: int = 1000,
    load_in_4bit: bool = False,
    shard: bool = False,
) -> None:
    """As `cohort.add_generator`, with the language model in 4 bits, in shares, or both.

    Args:
        model, records, folder, tiny_steps: see there.
        load_in_4bit: NF4 weights through bitsandbytes.
        shard: one share of the frozen weights per process, see `sharding.shard_frozen`.

    Raises:
        ValueError: shares in one process, or of a cohort with a scan without a report: the process that reads
            it would not run the language model, whose shares the others wait for.
    """
    if model.generator is None and model.plan is not None:
        model.plan = dataclasses.replace(model.plan, load_in_4bit=load_in_4bit)
        if shard:
            silent = [row["id"] for row in records["train"] if not row["report"].strip()]
            if silent:
                raise ValueError(
                    "a sharded language model needs a report of every training scan, "
                    f"{len(silent)} have none: {', '.join(silent[:5])}"
                )
            model.plan = ShardedPlan(**vars(model.plan))
    cohort.add_generator(model, records, folder, tiny_steps)
