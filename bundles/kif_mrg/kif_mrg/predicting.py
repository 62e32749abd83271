"""A trained reporter over a loader: one row per study with its words, its diagnoses and the reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

import torch
from medbundles.precision import Precision
from torch.utils.data import DataLoader

from kif_mrg.networks import KifReporter

__all__ = ["Prediction", "predict"]


class Prediction(TypedDict, total=False):
    """What a reporter says of one record; `retrieved` only with a report memory.

    reference: the clean report of the record. probs: (4, C), over the states, without class prior. states:
    (C,) most probable state. labels: (C,), IGNORE where unknown. retrieved: study ids, nearest first.
    """

    id: str
    study_id: str
    report: str
    reference: str
    probs: list[list[float]]
    states: list[int]
    labels: list[int]
    retrieved: list[str]


def predict(
    reporter: KifReporter,
    loader: DataLoader,
    precision: Precision,
    num_beams: int = 3,
    max_new_tokens: int = 100,
    min_new_tokens: int = 8,
    desc: str = "reports",
    shuffle_images: bool = False,
    progress: bool = True,
) -> list[Prediction]:
    """Write a report for every record of `loader`, in its order, with a progress bar.

    The reporter is in eval mode meanwhile and then as it was before.

    Args:
        reporter: on the device of `precision`.
        loader: of a ReportDataset, see `eval_loader`.
        precision: device and autocast.
        num_beams, max_new_tokens, min_new_tokens: of the beam search.
        desc: name of the progress bar.
        shuffle_images: show every record the image of another study, always the same one, with the reports
            retrieved for its own: what remains of the metrics does not come from the image.
        progress: show the bar.

    Raises:
        ValueError: shuffled images of a dataset in which more than half of the records are of one study.
    """
    from tqdm import tqdm

    if shuffle_images:
        loader = _with_shuffled_images(loader)
    search: dict[str, Any] = {
        "num_beams": num_beams, "max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens
    }  # fmt: skip
    rows: list[Prediction] = []
    with _in_eval_mode(reporter):
        for batch in tqdm(loader, desc=desc, ncols=110, disable=not progress):
            moved = precision.batch(batch)
            with torch.inference_mode(), precision.autocast():
                said = reporter.generate(moved["image"], moved.get("memory"), **search)
            rows += _rows(said, batch)
    return rows


def _with_shuffled_images(loader: DataLoader) -> DataLoader:
    return DataLoader(
        loader.dataset.with_shuffled_images(),  # type: ignore[attr-defined]
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
    )


@contextmanager
def _in_eval_mode(reporter: KifReporter) -> Iterator[None]:
    was_training = {name: module.training for name, module in reporter.named_modules()}
    reporter.eval()
    try:
        yield
    finally:
        for name, module in reporter.named_modules():
            module.training = was_training[name]


def _rows(said: dict[str, Any], batch: dict[str, Any]) -> list[Prediction]:
    columns: dict[str, Any] = {
        "id": batch["id"],
        "study_id": batch["study_id"],
        "report": said["reports"],
        "reference": batch["report"],
        "probs": said["class_logits"].float().softmax(dim=1).tolist(),
        "states": said["states"].tolist(),
        "labels": batch["labels"].tolist(),
    }
    if "retrieved" in batch:
        columns["retrieved"] = batch["retrieved"]
    return [
        Prediction(**dict(zip(columns, values, strict=True)))  # type: ignore[typeddict-item]
        for values in zip(*columns.values(), strict=True)
    ]
