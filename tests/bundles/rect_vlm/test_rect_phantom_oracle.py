"""What can be seen of the simulated findings on the grid of the CPU preset: chance, by hand, and at best."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from rect_phantom_statistics import MEASURES, View, on_cpu_grid
from rect_vlm.findings import FINDINGS
from rect_vlm.phantom_facts import Facts, Fluid, Focus, fact_labels
from rect_vlm.phantom_rates import draw_facts
from rect_vlm.phantom_volume import draw_scan
from scipy.stats import rankdata

CASES = 32
BUSY = 6  # findings at least in one case, so that few cases hold enough of each


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    ranks, positive = rankdata(scores), labels == 1
    count = positive.sum()
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(labels) - count)))


@pytest.fixture(scope="module")
def measured() -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,18) and hand-made measures (n,18) of n random cases."""
    facts = [draw_facts(np.random.default_rng([3, k])) for k in range(600)]
    facts = [found for found in facts if sum(fact_labels(found)) >= BUSY][:CASES]
    rows = []
    for k, found in enumerate(facts):
        scan = draw_scan(found, np.random.default_rng([4, k]), np.random.default_rng([5, k]))
        view = View(on_cpu_grid(scan, scan.hu, 1), on_cpu_grid(scan, scan.structures, 0))
        rows.append([MEASURES[finding](view) for finding in FINDINGS])
    return np.array([fact_labels(found) for found in facts]), np.array(rows)


def test_hand_made_measures_find_every_finding_and_chance_does_not(
    measured: tuple[np.ndarray, np.ndarray],
) -> None:
    labels, scores = measured
    reached = {name: auroc(scores[:, k], labels[:, k]) for k, name in enumerate(FINDINGS)}
    assert min(reached.values()) > 0.55, reached  # an AUROC of 32 cases has a standard error near 0.1
    assert 0.8 < np.mean(list(reached.values())) < 0.99, reached
    shuffled = np.random.default_rng(0).permutation(len(labels))
    chance = [auroc(scores[:, k], labels[shuffled, k]) for k in range(len(FINDINGS))]
    assert abs(np.mean(chance) - 0.5) < 0.06


MILDEST: dict[str, dict[str, Any]] = {
    "Medical material": {"material": "sternal wires"},
    "Arterial wall calcification": {"arterial_calcification": "mild"},
    "Cardiomegaly": {"cardiomegaly": "mild"},
    "Pericardial effusion": {"pericardial_mm": 9},
    "Coronary artery wall calcification": {"coronary_calcification": "mild"},
    "Hiatal hernia": {"hernia_mm": 50},
    "Lymphadenopathy": {"nodes": ("prevascular", "subcarinal"), "nodes_mm": 22},
    "Emphysema": {"emphysema": "mild"},
    "Atelectasis": {"atelectasis": ("right middle",)},
    "Lung nodule": {"nodules": (Focus("left upper", 16),)},
    "Lung opacity": {"ground_glass": (Focus("right upper", 50),)},
    "Pulmonary fibrotic sequela": {"sequela": ("left",)},
    "Pleural effusion": {"effusion": Fluid(("right",), 14)},
    "Mosaic attenuation pattern": {"mosaic": "mild"},
    "Peribronchial thickening": {"peribronchial": "mild"},
    "Consolidation": {"consolidation": (Focus("left lower", 56),)},
    "Bronchiectasis": {"bronchiectasis": ("right lower",)},
    "Interlobular septal thickening": {"septal": "mild"},
}


def test_every_finding_at_its_mildest_stands_out_from_the_noise() -> None:
    """An observer who knew its exact place would see it: signal over noise, both on the CPU grid."""
    assert set(MILDEST) == set(FINDINGS)

    def image(facts: Facts, noise: int) -> np.ndarray:
        scan = draw_scan(facts, np.random.default_rng(8), np.random.default_rng([9, noise]))
        return on_cpu_grid(scan, scan.hu, 1)

    normal = image(Facts(), 0)
    for finding, fact in MILDEST.items():
        facts = dataclasses.replace(Facts(), **fact)
        assert fact_labels(facts)[FINDINGS.index(finding)] == 1
        change = np.abs(image(facts, 0) - normal)
        assert (change > 60).sum() >= 12, (finding, (change > 60).sum())
        assert (change > 60).mean() < 0.1, finding
