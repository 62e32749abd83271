"""The tables of the comparison: title, note and rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rect_vlm import evaluation_floors as floors
from rect_vlm.comparison.plan import ARMS, FULL
from rect_vlm.comparison.results import Results, difference_cells, spread
from rect_vlm.evaluation_results import ALL

Row = dict[str, Any]
F1 = "rule labeler micro f1"
REPORTS: Mapping[str, str] = {
    F1: "clinical F1",
    "rule labeler macro f1": "macro F1",
    "rule labeler example f1": "example F1",
    "bleu4": "BLEU-4",
    "rouge_l": "ROUGE-L",
}
LESION_TITLES = {
    "dice": "Dice on positives",
    "false_ml": "false volume on negatives, ml",
    "false_alarm": "share of negatives with a false voxel",
}
OUTLINES = {f"{score}/{ALL}": title for score, title in LESION_TITLES.items()}
# What each phase is compared by: its paths with their titles.
MEASURES: Mapping[str, Mapping[str, str]] = {
    "1.1": {"auroc/macro": "macro AUROC", "ap/macro": "macro average precision"},
    "1.2": OUTLINES,
    "2": {
        "auroc/macro": "macro AUROC",
        **OUTLINES,
        **{f"reports/{floors.MODEL}/{score}": title for score, title in REPORTS.items()},
    },
}
REWARD_PARTS = ("clinical", "factual", "fluency", "format")
REWARDS = ("reward", *(f"reward_{part}" for part in REWARD_PARTS), "ended", "tokens")


class Table(NamedTuple):
    """What a reader is shown: `note` says how to read it."""

    title: str
    note: str
    rows: list[Row]


def all_tables(results: Results) -> list[Table]:
    """Every table that has rows."""
    tables = [
        _phases(results),
        _findings(results),
        _lesions(results),
        _reports(results),
        _floors(results),
        _reinforcement(results),
        _ablations(results),
    ]
    return [table for table in tables if table.rows]


def _phases(results: Results) -> Table:
    rows = []
    for alone in ("1.1", "1.2"):
        for path, title in MEASURES[alone].items():
            before, after = (results.values(FULL, phase, path) for phase in (alone, "2"))
            rows.append(
                {
                    "measure": title,
                    "phase alone": f"{spread(before)} ({alone})",
                    "joint phase": spread(after),
                    **difference_cells(after, before),
                }
            )
    return Table("Findings and lesions", "The full method; differences are joint minus alone.", rows)


def _findings(results: Results) -> Table:
    rows = [
        {
            "finding": finding,
            "AUROC, 1.1": spread(results.values(FULL, "1.1", f"auroc/{finding}")),
            "AUROC, joint": spread(results.values(FULL, "2", f"auroc/{finding}")),
        }
        for finding in results.paths("2", "auroc/")
    ]
    return Table("AUROC of each finding", "– where the test scans hold one class only.", rows)


def _lesions(results: Results) -> Table:
    rows = []
    for lesion in results.paths("2", "dice/"):
        row: Row = {"lesion": lesion.replace("_", " ")}
        for score, title in LESION_TITLES.items():
            for phase, name in (("1.2", "1.2"), ("2", "joint")):
                row[f"{title}, {name}"] = spread(results.values(FULL, phase, f"{score}/{lesion}"))
        rows.append(row)
    note = "On the voxels of the files; all lesions: all pairs of a scan and a lesion."
    return Table("Each lesion", note, rows)


def _reports(results: Results) -> Table:
    def row(name: str, phase: str, arm: str) -> Row:
        cells = {
            title: spread(results.values(FULL, phase, f"reports/{arm}/{score}"))
            for score, title in REPORTS.items()
        }
        return {"reports": name, **cells}

    names = dict.fromkeys(path.rpartition("/")[0] for path in results.paths("2", "reports/"))
    last = [row("model, after reinforcement", "3", floors.MODEL)]
    rows = [row(f"{name}, joint phase" if name == floors.MODEL else name, "2", name) for name in names]
    note = (
        "Greedy reports with the evidence the model finds itself, below them the floors. Clinical F1: micro "
        "F1 of the 18 findings read by the rule labeler, against the true labels. The references' own F1 is "
        "what the labeler allows."
    )
    return Table("Reports", note, rows[:1] + last + rows[1:] if rows else [])


def _floors(results: Results) -> Table:
    rows = []
    for floor in (floors.SHUFFLED, floors.CONSTANT):
        for score, title in REPORTS.items():
            own, other = (
                results.values(FULL, "2", f"reports/{arm}/{score}") for arm in (floors.MODEL, floor)
            )
            rows.append({"floor": floor, "measure": title, **difference_cells(own, other)})
    return Table("Reports minus floors", "The joint phase; above 0 the model is better.", rows)


def _reinforcement(results: Results) -> Table:
    pairs = {
        name.replace("_", " "): [results.values(FULL, "3", f"{name}/{when}") for when in ("before", "after")]
        for name in REWARDS
    }
    for score, title in REPORTS.items():
        path = f"reports/{floors.MODEL}/{score}"
        pairs[f"{title}, greedy"] = [results.values(FULL, phase, path) for phase in ("2", "3")]
    rows = [
        {
            "measure": name,
            "before": spread(before),
            "after": spread(after),
            **difference_cells(after, before),
        }
        for name, (before, after) in pairs.items()
    ]
    note = (
        "Rewards of sampled reports about the test scans; fluency before and after by the policy before. "
        "The other rows are of greedy reports."
    )
    return Table("Reinforcement", note, rows)


def _ablations(results: Results) -> Table:
    rows = []
    for name, arm in ARMS.items():
        for phase in arm.phases if name != FULL and results.seeds_of(name) else ():
            for path, title in MEASURES.get(phase, {}).items():
                own, whole = (results.values(which, phase, path) for which in (name, FULL))
                rows.append(
                    {
                        "left out": name.removeprefix("no_").replace("_", " "),
                        "measure": f"{title} (phase {phase})",
                        "with": spread(whole),
                        "without": spread(own),
                        **difference_cells(own, whole),
                    }
                )
    note = "Differences are without minus with: below 0 the part helps, but for false volumes and alarms."
    return Table("What each part is worth", note, rows)
