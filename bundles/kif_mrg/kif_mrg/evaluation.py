"""Evaluation: a trained reporter on a split, beside the floors that any report generator must beat.

What is written is in evaluation_report.py. N cases, C conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from medbundles.folders import check_writable
from medbundles.precision import Precision
from medbundles.text.assertion import POSITIVE, UNCERTAIN
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from tqdm import tqdm

from kif_mrg import evaluation_floors as floors
from kif_mrg import phantom
from kif_mrg.data import ReportDataset, eval_loader
from kif_mrg.diagnosis_scores import common_states, score_diagnosis
from kif_mrg.evaluated import Evaluated
from kif_mrg.evaluation_report import write_evaluation
from kif_mrg.evaluation_texts import Labeler, States, make_labeler, reference_text
from kif_mrg.inference import BeamSearch
from kif_mrg.memory import ReportMemory
from kif_mrg.networks import KifReporter
from kif_mrg.predicting import Prediction, predict
from kif_mrg.records import SPLITS, Record, Splits
from kif_mrg.report_scores import ReportScores
from kif_mrg.scored import Scored
from kif_mrg.text import ReportTokenizer
from kif_mrg.trained_reporter import checkpoint_sums, load_reporter
from kif_mrg.validation import check_memory, check_records


@dataclass(frozen=True)
class Scoring:
    """How reports are compared.

    reference_mode: "full" or "promptmrg", see reference_text. uncertain, empty: see clinical_efficacy.
    chexbert, chexbert_tokenizer: local checkpoint and BERT folder; without them the rule labeler.
    n_bootstrap, seed: of the intervals; `seed` also of the random floor.
    """

    reference_mode: str = "full"
    uncertain: str = "negative"
    empty: str = "zero"
    chexbert: str | None = None
    chexbert_tokenizer: str | None = None
    n_bootstrap: int = 1000
    seed: int = 0

    @property
    def efficacy(self) -> dict[str, Any]:
        return {"uncertain": self.uncertain, "empty": self.empty}

    @property
    def positive(self) -> tuple[int, ...]:
        """The states that count as positive."""
        return (POSITIVE, UNCERTAIN) if self.uncertain == "positive" else (POSITIVE,)


class ReportEvaluation:
    """Evaluates what training left in `ckpt_dir`; `metrics` holds the reporter's own values after `run`.

    Tokenizer and report memory are those of the checkpoint, whatever the data set.

    Args:
        precision: device and autocast.
        reporter: KifReporter with every argument but `tokenizer`.
        dataset: ReportDataset with every argument but `records`, `tokenizer` and `memory`.
        records: of all splits; those of training and validation make the floors.
        split: the one that is evaluated.
        inferer: words the reports.
        scoring: how they are compared.
        ckpt_dir: holds reporter.pt, tokenizer/ and memory.npz.
        output_dir: gets tables, figures and the page.
        batch_size, num_workers: of the images.
        gallery: cases on the page, spread evenly from the worst to the best.
        verify_images: decode every image to its end before anything is computed.
        decoder_weights: "fp32" or "bf16", see load_reporter.
    """

    def __init__(
        self,
        precision: Precision,
        reporter: Callable[..., KifReporter],
        dataset: Callable[..., ReportDataset],
        records: Splits,
        split: str,
        inferer: BeamSearch,
        scoring: Scoring,
        ckpt_dir: str,
        output_dir: str,
        batch_size: int = 16,
        num_workers: int = 0,
        gallery: int = 12,
        verify_images: bool = True,
        decoder_weights: str = "fp32",
    ) -> None:
        self.precision, self.build, self.build_dataset = precision, reporter, dataset
        self.records, self.split, self.scoring = records, split, scoring
        self.search: dict[str, Any] = inferer.settings
        self.ckpt_dir, self.output_dir = Path(ckpt_dir).absolute(), Path(output_dir).absolute()
        self.batch_size, self.num_workers = batch_size, num_workers
        self.gallery, self.verify_images, self.decoder_weights = gallery, verify_images, decoder_weights
        self.metrics: dict[str, float] = {}

    def run(self) -> None:
        """Check everything, write the reports, measure them, and leave tables, figures and a page.

        Raises:
            FileNotFoundError: no trained reporter; says which command trains one.
            ValueError: a split without records, broken records, weights of another architecture, unknown
                `decoder_weights`.
            OSError: the output folder cannot be written.
        """
        chosen = self._chosen()
        reporter, memory = load_reporter(self.build, self.ckpt_dir, self.decoder_weights)
        labeler = make_labeler(self.scoring.chexbert, self.scoring.chexbert_tokenizer, self.precision.device)
        check_writable(self.output_dir)
        phantom.ensure(_folder(chosen))
        cases = {self.split: chosen}
        check_records(cases, tokenizer=reporter.tokenizer, verify_images=self.verify_images)
        dataset = self.build_dataset(records=chosen, tokenizer=reporter.tokenizer, memory=memory)
        dataset.fill_cache()
        if memory is not None:
            check_memory(cases, memory)  # type: ignore[arg-type]
        self.precision.prepare(reporter)
        found = self._evaluate(reporter, memory, dataset, labeler)
        self.metrics = dict(found.scores[floors.MODEL].values)
        write_evaluation(self.output_dir, found, self.gallery)

    def _chosen(self) -> list[Record]:
        chosen = self.records.get(self.split, [])
        if self.split not in SPLITS or not chosen:
            sizes = ", ".join(f"{name} {len(self.records.get(name, []))}" for name in SPLITS)
            raise ValueError(f"split must be one with records, got {self.split!r}; there are {sizes}")
        return chosen

    def _evaluate(
        self,
        reporter: KifReporter,
        memory: ReportMemory | None,
        dataset: ReportDataset,
        labeler: tuple[str, Labeler],
    ) -> Evaluated:
        records, positive, comparable = dataset.records, self.scoring.positive, reporter.tokenizer.comparable
        loader = eval_loader(dataset, self.batch_size, self.num_workers)
        compare = self._compare(records, reporter.tokenizer, labeler[1])
        made, missing = self._floors(reporter, memory, len(records))
        said, notes = self._predict(reporter, loader)
        reports = {name: [comparable(row["report"]) for row in rows] for name, rows in said.items()} | made
        states = {name: compare.labeler(rows) for name, rows in reports.items()}
        labels = np.array([record["labels"] for record in records])
        probs = self._diagnoses(reporter, loader, said)
        return Evaluated(
            records=records,
            predictions=said[floors.MODEL],
            compare=compare,
            reports=reports,
            states=states,
            scores=_scores(compare, reports, states),
            probs=probs,
            labels=labels,
            diagnosis={
                name: score_diagnosis(values, labels, positive, compare.weights)
                for name, values in probs.items()
            },
            positive=positive,
            views=_views(dataset),
            facts=self._facts(labeler[0], records),
            notes=[*notes, *missing],
        )

    def _compare(
        self, records: Sequence[Record], tokenizer: ReportTokenizer, labeler: Labeler
    ) -> ReportScores:
        scoring = self.scoring
        references = [
            tokenizer.comparable(reference_text(record, scoring.reference_mode)) for record in records
        ]
        studies = [record["study_id"] for record in records]
        return ReportScores(references, studies, labeler, scoring.efficacy, scoring.n_bootstrap, scoring.seed)

    def _predict(
        self, reporter: KifReporter, loader: DataLoader
    ) -> tuple[dict[str, list[Prediction]], list[str]]:
        """What the reporter says of each case, by the name of the arm, and notes on a missing arm."""
        said = {floors.MODEL: predict(reporter, loader, self.precision, **self.search)}
        try:
            loader.dataset.with_shuffled_images()  # type: ignore[attr-defined]
        except ValueError as reason:
            return said, [f"There is no row with shuffled images: {reason}."]
        shuffled = predict(
            reporter, loader, self.precision, **self.search, desc="shuffled images", shuffle_images=True
        )
        return said | {floors.SHUFFLED: shuffled}, []

    def _floors(
        self, reporter: KifReporter, memory: ReportMemory | None, n: int
    ) -> tuple[dict[str, list[str]], list[str]]:
        """Floors of the annotation's own training reports or, if it has none, of the checkpoint's."""
        comparable = reporter.tokenizer.comparable

        def texts(split: str) -> list[str]:
            references = (reference_text(r, self.scoring.reference_mode) for r in self.records.get(split, []))
            return [comparable(reference) for reference in references]

        training = texts("train") or [comparable(report) for report in (memory.reports if memory else [])]
        return floors.floor_reports(training, texts("val"), n, self.scoring.seed)

    def _diagnoses(
        self, reporter: KifReporter, loader: DataLoader, said: dict[str, list[Prediction]]
    ) -> dict[str, NDArray]:
        """Probabilities (N, 4, C) of the diagnosis head, by the name of the arm."""
        probs = {name: np.array([row["probs"] for row in rows]) for name, rows in said.items()}
        if reporter.diagnosis.aggregator is not None:
            probs[floors.UNRETRIEVED] = self._without_retrieval(reporter, loader)
        if training := self.records.get("train"):
            shares = common_states([record["labels"] for record in training])
            probs[floors.COMMON_STATES] = np.broadcast_to(shares, probs[floors.MODEL].shape)
        return probs

    @torch.inference_mode()
    def _without_retrieval(self, reporter: KifReporter, loader: DataLoader) -> NDArray:
        rows = []
        for batch in tqdm(loader, desc="without retrieval", ncols=110):
            with self.precision.autocast():
                logits = reporter.diagnosis(self.precision.to(batch["image"]))
            rows.append(logits.float().softmax(dim=1).cpu())
        return torch.cat(rows).double().numpy()

    def _facts(self, labeler: str, records: Sequence[Record]) -> dict[str, Any]:
        scoring = self.scoring
        return {
            "annotation": records[0].get("annotation", ""),
            "simulated": phantom.is_simulated(_folder(records)),
            "split": self.split,
            "n_reports": len(records),
            "n_studies": len({record["study_id"] for record in records}),
            "reference_mode": scoring.reference_mode,
            "labeler": labeler,
            **scoring.efficacy,
            "beam_search": self.search,
            "decoder_weights": self.decoder_weights,
            "bootstrap": {"replicates": scoring.n_bootstrap, "seed": scoring.seed, "unit": "study"},
            "checkpoint": {"folder": str(self.ckpt_dir), "sha256": checkpoint_sums(self.ckpt_dir)},
        }


def _folder(records: Sequence[Record]) -> Path:
    """Folder of the annotation file; the images of a simulated cohort are made beside it."""
    return Path(records[0].get("annotation", "")).parent


def _scores(
    compare: ReportScores, reports: Mapping[str, Sequence[str]], states: Mapping[str, States]
) -> dict[str, Scored]:
    return {
        name: compare.score(rows, states[name], java=name == floors.MODEL)
        for name, rows in tqdm(reports.items(), desc="scores and intervals", ncols=110)
    }


def _views(dataset: ReportDataset) -> int:
    """How many images of a record the network is given."""
    image = dataset.image(0)
    return len(image) if image.ndim == 4 else 1
