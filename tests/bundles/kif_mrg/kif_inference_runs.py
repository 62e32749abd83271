"""Runs of kif_mrg's inference.json in this process with an untrained reporter, for tests of inference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from kif_mrg import phantom
from kif_mrg.annotation import read_annotation
from kif_mrg.conditions import CONDITIONS
from kif_mrg.memory import make_memory
from kif_mrg.text import ReportTokenizer
from monai.bundle import ConfigParser, ConfigWorkflow

BUNDLE = Path(__file__).parents[3] / "bundles" / "kif_mrg"
CONFIG = BUNDLE / "configs" / "inference.json"
# Short reports, for an untrained decoder never ends one by itself; the same numbers on any machine.
QUICK = {"num_beams": 1, "max_new_tokens": 9, "amp": "off", "device": torch.device("cpu"), "batch_size": 3}
ALWAYS_POSITIVE = "cardiomegaly"  # what the untrained diagnosis always states


def small_cohort(folder: Path) -> Path:
    """Eight training, one validation and four test cases, images included."""
    root = phantom.simulated_cohort(sizes={"train": 8, "val": 1, "test": 4}, folder=folder / "cohort")
    phantom.ensure(root, progress=False)
    return Path(root)


def untrained(cohort: Path, folder: Path, seed: int = 0, **overrides: Any) -> str:
    """Write reporter.pt, tokenizer/ and memory.npz for the reporter of inference.json; return the folder."""
    annotation = cohort / "annotation.json"
    reports = [record["report"] for record in read_annotation(annotation)["train"]]
    torch.manual_seed(seed)
    parser = ConfigParser(ConfigParser.load_config_file(str(CONFIG)))
    parser.update({"device": torch.device("cpu"), **overrides})
    build = parser.get_parsed_content("reporter")
    reporter = build(tokenizer=ReportTokenizer.build(reports, folder / "tokenizer"))
    with torch.no_grad():
        reporter.diagnosis.classify.weight.normal_(std=0.1)
        reporter.diagnosis.classify.bias.view(4, len(CONDITIONS))[1, CONDITIONS.index(ALWAYS_POSITIVE)] = 9
    torch.save(reporter.state_dict(), folder / "reporter.pt")
    make_memory(annotation, folder / "memory.npz", dim=64).ensure()
    return str(folder)


def workflow(models: str, data: str | Path, out: Path, **overrides: Any) -> ConfigWorkflow:
    """The initialised inference workflow."""
    folders = {"ckpt_dir": models, "dataset_dir": str(data), "output_dir": str(out)}
    settings = {**folders, "bundle_root": str(BUNDLE), **QUICK, **overrides}
    run = ConfigWorkflow(str(CONFIG), logging_file=False, workflow_type="inference", **settings)
    run.initialize()
    return run


def write_reports(models: str, data: str | Path, out: Path, **overrides: Any) -> dict[str, dict[str, Any]]:
    """Run inference.json and return the lines by id; raises what MONAI's config wraps."""
    run = workflow(models, data, out, **{"page_cases": 0, **overrides})
    try:
        run.run()
    except RuntimeError as error:
        raise _cause(error) from None
    return lines(out)


def lines(out: Path) -> dict[str, dict[str, Any]]:
    """The lines of reports.jsonl by id."""
    rows = [json.loads(line) for line in (out / "reports.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def _cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None and str(error).startswith("Failed to "):
        error = error.__cause__
    return error
