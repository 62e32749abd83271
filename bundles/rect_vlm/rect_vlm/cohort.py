"""The scans a training uses, and all that is checked and prepared before it starts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import ignite.distributed as idist
from medbundles.folders import check_outputs

from rect_vlm import phantom
from rect_vlm.ctrate import parse_volume, read_ctrate
from rect_vlm.data import CtDataset
from rect_vlm.evidence import describe
from rect_vlm.findings import LESIONS
from rect_vlm.lesion_masks import FOLDER
from rect_vlm.llm import TARGETS
from rect_vlm.llm_check import check_llm
from rect_vlm.model import ReCTVLM
from rect_vlm.records import Record, first_reconstructions, prevalence
from rect_vlm.sampling import Item
from rect_vlm.tiny_llm import tiny_llm
from rect_vlm.validation import check_records

logger = logging.getLogger(__name__)

Splits = dict[str, list[Record]]
WRITING = {"gen", "reward"}  # tasks that need the report generator
CHECKS = {"cls": "classification", "loc": "localization", "gen": "report", "reward": "report"}


def read_cohort(dataset_dir: str, hu_source: str = "auto", release: str = "auto") -> Splits:
    """Training and validation volumes of a folder in CT-RATE's layout; of a scan that validates, the first.

    Of a simulated cohort the volumes that have not been made yet are among them.

    Raises:
        FileNotFoundError, ValueError: see `read_ctrate`.
    """
    simulated = (Path(dataset_dir) / phantom.SIMULATION).is_file()
    read = partial(read_ctrate, dataset_dir, hu_source=hu_source, release=release, only_found=not simulated)
    splits = {"train": read(split="train"), "valid": first_reconstructions(read(split="valid"))}
    if not simulated:
        return splits
    return {
        split: [_with_planned_files(Path(dataset_dir), record) for record in rows]
        for split, rows in splits.items()
    }


def _with_planned_files(folder: Path, record: Record) -> Record:
    """A simulated record with the files that it will have: the reader finds only those that are there."""
    split, patient, _, reconstruction = parse_volume(record["id"])
    case = phantom.Case(split, int(patient.split("_")[1]) - 1, reconstruction)
    masks = {lesion: str(folder / FOLDER / lesion / f"{case.volume}.nii.gz") for lesion in LESIONS}
    regions = folder / "ts_seg" / "ts_total" / case.place
    return {**record, "lesion_masks": masks if case.outlined else {}, "regions": str(regions)}


def cohort_digest(records: Mapping[str, Sequence[Record]]) -> str:
    """Changes with what a run learns from: volumes, labels, reports and masks of both splits."""
    digest = hashlib.sha256()
    for rows in records.values():
        for record in rows:
            facts = [record["id"], record["labels"], record["report"], sorted(record["lesion_masks"])]
            digest.update(json.dumps(facts).encode())
    return digest.hexdigest()[:16]


def true_evidence(item: Item) -> list[str]:
    """Evidence lines of an item's true masks and labels, as a report writer is shown them."""
    known = item["mask_known"].reshape(-1, 1, 1, 1)
    return describe(
        (item["masks"] * known).float(),
        item["regions"][0] if bool(item["regions_known"]) else None,
        item["affine"][:3, :3].norm(dim=0).tolist(),
        item["labels"].clamp_min(0),
    )


def prepare(
    dataset_dir: str,
    records: Mapping[str, Sequence[Record]],
    datasets: Sequence[CtDataset],
    output_dirs: Sequence[str],
    model: ReCTVLM,
    tasks: Sequence[str] = ("cls", "loc", "gen"),
    check_files: bool = True,
    prior: bool = True,
) -> None:
    """All that can fail before training does so here: folders, language model, files; then caches and text.

    Args:
        dataset_dir: made or completed if it is a simulated cohort.
        records: of both splits.
        datasets: whose caches are filled.
        output_dirs: must be writable.
        model: is given the texts of its prompts and the prevalence of the findings.
        tasks: what the phases to come train: the records must serve them.
        check_files: open the files of the records.
        prior: start the classifier at the prevalence of the findings; not with weighted positives, where
            positives and negatives balance.

    Raises:
        ValueError: with all that is wrong with the records at once (volume, file, key).
        OSError: an output folder that cannot be written, or too little space.
        And those of `check_generator`, where reports are to be written.
    """
    check_outputs(output_dirs)
    with idist.one_rank_first():
        if WRITING.intersection(tasks):
            check_generator(model)
        phantom.ensure(dataset_dir)
        if check_files:
            check_records(records, sorted({CHECKS[task] for task in tasks}))
        for dataset in datasets:
            dataset.fill_cache()
    model.read_texts()
    if prior and model.classifier is not None:
        model.classifier.set_prevalence(prevalence(records["train"]))


def check_generator(model: ReCTVLM) -> None:
    """Check what the report generator will be made from, before anything is trained; loads no weights.

    Raises:
        ValueError: a model without one, a language model without tokenizer, or without a target of LoRA.
        FileNotFoundError, ImportError: see `check_llm`.
    """
    if model.generator is not None:
        return
    if model.plan is None:
        raise ValueError("phases that write reports need entry 'generator' of the model's config, got None")
    plan = model.plan
    check_llm(plan.llm_name, plan.arguments.get("lora_targets", TARGETS), plan.local_files_only)


def add_generator(
    model: ReCTVLM, records: Mapping[str, Sequence[Record]], folder: str, tiny_steps: int = 1000
) -> None:
    """Give the model its report generator; the language model "tiny" is first taught the training reports.

    Args:
        model: all parts but the generator.
        records: the training reports are the texts.
        folder: where a tiny language model is kept: beside the checkpoints that need it.
        tiny_steps: steps it is taught for.
    """
    if model.generator is None and model.plan is not None and model.plan.llm_name == "tiny":
        texts = [record["report"] for record in records["train"] if record["report"]]
        with idist.one_rank_first():
            made = tiny_llm(texts, folder=folder, steps=tiny_steps)
        model.plan = dataclasses.replace(model.plan, llm_name=str(made))
    model.load_generator()
