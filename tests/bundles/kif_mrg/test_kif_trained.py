"""A tiny reporter trained on a few pictures: what it says comes from the image, on the side where it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from kif_mrg.conditions import CONDITIONS, IGNORE
from kif_mrg.data import ReportDataset, collate, train_loader
from kif_mrg.diagnosis import DiagnosisNet
from kif_mrg.losses import IsdLoss
from kif_mrg.memory import make_memory
from kif_mrg.networks import KifReporter
from kif_mrg.phantom_facts import SIDES, Effusion, Facts
from kif_mrg.phantom_picture import draw_picture
from kif_mrg.records import Record
from kif_mrg.text import ReportTokenizer
from kif_mrg.transforms import eval_transform, train_transform
from PIL import Image
from torch import Tensor

EPOCHS, BATCH, RATE = 44, 16, 5e-3
HEART = CONDITIONS.index("cardiomegaly")
DECODER = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def make_record(folder: Any, number: int, split: str) -> Record:
    """An effusion on one side; only the heart has a label, so that no prompt tells the side."""
    side, large = SIDES[number % 2], bool(number // 2 % 2)
    facts = Facts("severe" if large else "normal", Effusion((side,), "large"), None, None, None, 0.03)
    path = folder / f"{split}{number}.png"
    Image.fromarray(draw_picture(facts, np.random.default_rng(number), 64)).save(path)
    report = f"{side} effusion ."
    labels = [IGNORE] * len(CONDITIONS)
    labels[HEART] = 1 if large else 2
    return Record(
        id=f"{split}{number}", study_id=f"{split}{number}", image_path=[str(path)], report=report, raw=report,
        labels=labels, split=split,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[KifReporter, ReportDataset]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("trained")
    records = [make_record(folder, number, "train") for number in range(32)]
    tokenizer = ReportTokenizer.build([record["report"] for record in records])
    memory = make_memory("-", folder / "memory.npz", dim=16)
    memory.ensure(records)
    dataset = ReportDataset(records, tokenizer, train_transform(64, 68), memory, k=3)
    diagnosis = DiagnosisNet(memory_dim=16, heads=2, ff=32)
    reporter = KifReporter(diagnosis, tokenizer, dim=24, tag_heads=2, fusion_heads=2, ff=32, decoder=DECODER)
    loader, loss = train_loader(dataset, BATCH), IsdLoss(tokenizer.pad_id)
    prior = torch.zeros(len(CONDITIONS))
    optimizer = torch.optim.AdamW(reporter.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * len(loader))
    reporter.train()
    for epoch in range(EPOCHS):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for batch in loader:
            said = reporter(batch["image"], batch["memory"], batch["labels"], batch["tokens"])
            optimizer.zero_grad()
            torch.stack(list(loss(said, None, batch, prior).values())).sum().backward()
            torch.nn.utils.clip_grad_norm_(reporter.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return reporter.eval(), dataset


def sides(reporter: KifReporter, image: Tensor) -> list[str]:
    """The side that each report names, read from the image alone."""
    said = reporter.generate(image, num_beams=1, max_new_tokens=6, min_new_tokens=2)["reports"]
    return [" and ".join(side for side in SIDES if side in report.split()) for report in said]


def test_the_side_of_an_effusion_is_that_of_the_image_and_turns_with_it(trained, tmp_path) -> None:
    reporter, _ = trained
    # Normal hearts: one that is enlarged lies on the wrong side in a mirror.
    records = [make_record(tmp_path, number, "test") for number in range(100, 132) if not number // 2 % 2]
    transform = eval_transform(64, 68)
    image = torch.stack([transform({"image_path": record["image_path"]})["image"] for record in records])
    other = dict(zip(SIDES, reversed(SIDES), strict=True))
    true = [record["report"].split()[0] for record in records]
    assert len(true) == 16
    assert sum(a == b for a, b in zip(sides(reporter, image), true, strict=True)) >= 14
    mirrored = sides(reporter, image.flip(-1))
    assert sum(a == other[b] for a, b in zip(mirrored, true, strict=True)) >= 14


def test_the_reports_of_others_do_not_raise_the_training_accuracy(trained) -> None:
    """Only if the memory held a record's own report could its labels be read off what is retrieved."""
    reporter, dataset = trained
    batch = collate(reporter.tokenizer.pad_id)([dataset[i] for i in range(len(dataset))])
    strangers = batch["memory"].roll(1, dims=0)
    assert not torch.equal(strangers, batch["memory"])

    def accuracy(memory: Tensor) -> float:
        with torch.no_grad():
            states = reporter.describe(batch["image"], memory)["class_logits"].argmax(dim=1)
        return (states == batch["labels"])[:, HEART].double().mean().item()

    own = accuracy(batch["memory"])
    assert own > 0.9
    assert accuracy(strangers) <= own
