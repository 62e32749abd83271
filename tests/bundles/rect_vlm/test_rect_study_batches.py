"""Studies of the reinforcement: those without a report are left out, and the log says how many."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from medbundles.precision import Precision
from rect_tiny_model import tiny_model, volumes
from rect_vlm.reinforcement import StudyBatches

REPORTS = ["a", "", "b", " \n", "", "", "c"]
CPU = Precision("cpu", "off")


class Loader:
    """Batches of two studies; labels tell which study it is."""

    def __init__(self, reports: list[str]) -> None:
        self.dataset = SimpleNamespace(records=[{"report": report} for report in reports])
        self.sampler = None
        self.reports, self.image = reports, volumes(len(reports))

    def __iter__(self) -> Any:
        for i in range(0, len(self.reports), 2):
            image = self.image[i : i + 2]
            labels = torch.arange(i, i + len(image)).float()[:, None].expand(-1, 18)
            regions = torch.zeros(image.shape, dtype=torch.uint8)
            yield {"image": image, "regions": regions, "labels": labels, "report": self.reports[i : i + 2]}


def test_studies_without_a_report_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model, loader = tiny_model(generator=None), Loader(REPORTS)
    with caplog.at_level(logging.INFO):
        batches = StudyBatches(model, loader, CPU)
    assert "4 of 7 volumes have no report and are left out" in caplog.text
    rows = list(batches)
    assert [row.references for row in rows] == [["a"], ["b"], ["c"]]
    for row, place in zip(rows, (0, 2, 6), strict=True):
        assert row.labels is not None
        assert row.labels.tolist() == [[place] * 18]
        vision, lines = row.prompt
        alone = model.encode(loader.image[place : place + 1], torch.zeros_like(loader.image[:1]))
        torch.testing.assert_close(vision["global_features"], alone["global_features"])
        assert vision["lesion_weights"].shape[:2] == (1, 5)
        assert len(lines) == 1


def test_the_limit_counts_what_is_kept() -> None:
    batches = StudyBatches(tiny_model(generator=None), Loader(REPORTS), CPU, limit=2)
    assert [row.references for row in batches] == [["a"], ["b"]]


def test_no_report_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="needs scans with a report, none of 2 has one"):
        StudyBatches(tiny_model(generator=None), Loader(["", " "]), CPU)
