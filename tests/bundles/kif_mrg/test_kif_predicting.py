"""Prediction over a loader: rows belong to their records, and nothing about the reporter changes."""

from __future__ import annotations

import pytest
import torch
from kif_mrg.data import ReportDataset, eval_loader
from kif_mrg.diagnosis import DiagnosisNet
from kif_mrg.memory import make_memory
from kif_mrg.networks import KifReporter
from kif_mrg.predicting import predict
from kif_mrg.text import ReportTokenizer
from kif_mrg.transforms import eval_transform
from kif_studies import REPORTS, make_records, of_split
from medbundles.precision import Precision

LIMITS = {"num_beams": 2, "max_new_tokens": 9, "min_new_tokens": 2}
PRECISION = Precision("cpu", amp="off")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ReportDataset:
    folder = tmp_path_factory.mktemp("studies")
    records = make_records(folder / "images", test=5)
    memory = make_memory("-", folder / "memory.npz", dim=16)
    memory.ensure(records)
    tokenizer = ReportTokenizer.build(REPORTS)
    return ReportDataset(of_split(records, "test"), tokenizer, eval_transform(64, 64), memory, k=3)


@pytest.fixture(scope="module")
def reporter(dataset: ReportDataset) -> KifReporter:
    torch.manual_seed(0)
    decoder = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    diagnosis = DiagnosisNet(memory_dim=16, heads=2, ff=16)
    # Untrained networks say the same of every image; larger weights make the image count.
    torch.nn.init.normal_(diagnosis.classify.weight)
    return KifReporter(
        diagnosis, dataset.tokenizer, dim=24, tag_heads=2, fusion_heads=2, ff=16, decoder=decoder
    ).train()


def test_rows_are_what_generate_says_of_each_record(dataset: ReportDataset, reporter: KifReporter) -> None:
    reporter.diagnosis.visual.eval()  # part of it kept in eval mode, as a frozen encoder is
    modes = {name: module.training for name, module in reporter.named_modules()}
    weights = {name: value.clone() for name, value in reporter.state_dict().items()}
    rows = predict(reporter, eval_loader(dataset, 2), PRECISION, **LIMITS)
    assert {name: module.training for name, module in reporter.named_modules()} == modes
    for name, value in reporter.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)

    assert [row["id"] for row in rows] == [record["id"] for record in dataset.records]
    twin = reporter.eval()
    for row, item in zip(rows, (dataset[i] for i in range(5)), strict=True):
        said = twin.generate(item["image"][None], item["memory"][None], **LIMITS)
        assert row["report"] == said["reports"][0]
        assert row["states"] == said["states"][0].tolist()
        torch.testing.assert_close(
            torch.tensor(row["probs"]), said["class_logits"][0].softmax(dim=0), atol=1e-5, rtol=0
        )
        assert row["labels"] == item["labels"].tolist()
        assert (row["reference"], row["study_id"]) == (item["report"], item["study_id"])
        assert row["retrieved"] == item["retrieved"]
    reporter.train()


def test_shuffled_images_change_the_image_alone(dataset: ReportDataset, reporter: KifReporter) -> None:
    loader = eval_loader(dataset, 5)
    plain = predict(reporter, loader, PRECISION, **LIMITS)
    shuffled = predict(reporter, loader, PRECISION, **LIMITS, shuffle_images=True)
    assert shuffled == predict(reporter, loader, PRECISION, **LIMITS, shuffle_images=True)
    for one, other in zip(plain, shuffled, strict=True):
        for key in ("id", "study_id", "reference", "labels", "retrieved"):
            assert one[key] == other[key]
        assert one["probs"] != other["probs"]
    assert plain == predict(reporter, loader, PRECISION, **LIMITS)


def test_modes_come_back_after_an_error(dataset: ReportDataset, reporter: KifReporter) -> None:
    reporter.train()
    with pytest.raises(ValueError):
        predict(reporter, eval_loader(dataset, 2), PRECISION, min_new_tokens=9, max_new_tokens=3)
    assert all(module.training for module in reporter.modules())


def test_shows_a_bar_and_needs_no_memory(dataset: ReportDataset, capfd: pytest.CaptureFixture[str]) -> None:
    without = ReportDataset(dataset.records, dataset.tokenizer, eval_transform(64, 64))
    decoder = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    reporter = KifReporter(
        DiagnosisNet(use_memory=False), dataset.tokenizer, decoder=decoder, use_graph=False
    )
    rows = predict(reporter, eval_loader(without, 3), PRECISION, **LIMITS, desc="validation reports")
    assert "validation reports: 100%" in capfd.readouterr().err
    assert len(rows) == 5
    assert all("retrieved" not in row for row in rows)
