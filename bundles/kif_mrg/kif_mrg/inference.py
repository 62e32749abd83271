"""Inference: write a report for every radiograph with a trained reporter, and show what it rests on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from medbundles.atomic import write_text
from medbundles.contract.weights import sha256
from medbundles.folders import check_writable
from medbundles.precision import Precision
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer
from torch import Tensor, nn
from torch.utils.data import Subset

from kif_mrg.case_images import ImageCases, read_and_failed
from kif_mrg.case_page import CaseView, write_page
from kif_mrg.case_sources import Case, cases_from
from kif_mrg.conditions import CONDITIONS
from kif_mrg.explain import explain, findings_to_show
from kif_mrg.memory import ReportMemory
from kif_mrg.memory_backends import Precomputed
from kif_mrg.networks import KifReporter
from kif_mrg.report_lines import ReportLines, Row
from kif_mrg.trained_reporter import checkpoint_sums, load_reporter

__all__ = ["BeamSearch", "ImageCases", "ReportWriter", "cases_from", "load_reporter"]

logger = logging.getLogger(__name__)

STATE_NAMES = ("blank", "positive", "negative", "uncertain")  # in the order of conditions.STATES


class BeamSearch(Inferer):
    """Inferer that lets a reporter word its reports; arguments as in KifReporter.generate."""

    def __init__(self, num_beams: int = 3, max_new_tokens: int = 100, min_new_tokens: int = 8) -> None:
        super().__init__()
        self.settings = {
            "num_beams": num_beams, "max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens
        }  # fmt: skip

    def __call__(self, inputs: Tensor, network: nn.Module, memory: Tensor | None = None) -> dict[str, Any]:  # type: ignore[override]
        """`network.generate` of the images (B, 3, H, W) with the retrieved reports (B, K, Dm)."""
        return network.generate(inputs, memory, **self.settings)  # type: ignore[operator]


class ReportWriter(SupervisedEvaluator):
    """Evaluator that writes a line per case to reports.jsonl, and a page with the evidence.

    The reporter is loaded when `run` is called. A case that cannot be read is listed in failed.json and the
    others go on; `run` raises at the end. Cases that an earlier run finished with the same image, weights and
    settings are skipped; lines of other cases stay in the file.

    Args:
        precision: device and autocast.
        network: the DiagnosisNet that `reporter` is built around.
        dataset: cases, with the preprocessing as its transform.
        output_dir: gets reports.jsonl, reports.html and failed.json.
        inferer: words the reports.
        reporter: KifReporter with every argument but `tokenizer`.
        ckpt_dir: folder that load_reporter reads.
        size: pixels of the square that the network sees.
        resize: pixels of the shorter side that the square is cut from.
        val_handlers: further handlers.
        views: images of a case that it sees.
        retrieved: K, the number of reports that the diagnosis reads.
        decoder_weights: "fp32" or "bf16", see load_reporter.
        batch_size: images worded at once.
        num_workers: processes that read images ahead.
        overwrite: do finished cases again.
        page_cases: cases on the page, the first ones; 0 writes no page.
    """

    def __init__(
        self,
        precision: Precision,
        network: nn.Module,
        dataset: ImageCases,
        output_dir: str,
        inferer: BeamSearch,
        reporter: Callable[..., KifReporter],
        ckpt_dir: str,
        size: int,
        resize: int,
        val_handlers: Sequence[Any] | None = None,
        views: int = 1,
        retrieved: int = 5,
        decoder_weights: str = "fp32",
        batch_size: int = 8,
        num_workers: int = 0,
        overwrite: bool = False,
        page_cases: int = 24,
    ) -> None:
        loader = DataLoader(dataset, batch_size=batch_size, collate_fn=read_and_failed)
        super().__init__(
            precision.device, loader, network, inferer=inferer, val_handlers=val_handlers, decollate=False
        )
        self.dataset, self.precision = dataset, precision
        self.build, self.ckpt_dir = reporter, Path(ckpt_dir)
        self.output = Path(output_dir).expanduser().absolute()
        self.lines = ReportLines(self.output / "reports.jsonl")
        self.size, self.resize, self.views, self.retrieved = size, resize, views, retrieved
        self.search, self.decoder_weights = inferer.settings, decoder_weights
        self.batch_size, self.num_workers = batch_size, num_workers
        self.overwrite, self.page_cases = overwrite, page_cases
        self.memory: ReportMemory | None = None
        self.fingerprints: dict[str, str] = {}
        self.failures: list[Row] = []

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Write the reports of the cases that are not finished, then the page.

        Raises:
            FileNotFoundError: no trained reporter.
            ValueError: a checkpoint or reports.jsonl that cannot be used; unknown `decoder_weights`.
            OSError: the output folder cannot be written; what is there stays.
            RuntimeError: some images could not be read; all others are done.
        """
        cases = self.dataset.data
        check_writable(self.output)
        reporter, self.memory = load_reporter(self.build, self.ckpt_dir, self.decoder_weights)
        self.network = self.precision.prepare(reporter)
        if self.memory is not None and isinstance(self.memory.backend, Precomputed):
            self.memory.attach(cases, self.retrieved)
        self.fingerprints, self.failures = self._fingerprints(), []
        pending = self._pending()
        if pending:
            todo: Any = Subset(self.dataset, pending)
            self.data_loader = DataLoader(
                todo, batch_size=self.batch_size, num_workers=self.num_workers, collate_fn=read_and_failed
            )
            self.state.epoch_length = len(self.data_loader)
            super().run(global_epoch)
        rows = self.lines.order([case["id"] for case in cases])
        self._write_page(rows)
        done, before = len(pending) - len(self.failures), len(cases) - len(pending)
        logger.info("%d reports written, %d finished before: %s", done, before, self.lines.path)
        self._report_failures(len(cases))

    def _pending(self) -> list[int]:
        """Places of the cases that are not finished; their old lines leave the file."""
        rows, cases = self.lines.read(), self.dataset.data
        finished = {row["id"] for row in rows if self.fingerprints.get(row["id"]) == row.get("fingerprint")}
        pending = [i for i, case in enumerate(cases) if self.overwrite or case["id"] not in finished]
        stale = {cases[i]["id"] for i in pending}
        self.lines.write(row for row in rows if row["id"] not in stale)
        return pending

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> Any:
        for sample in batchdata["failed"]:
            case = self.dataset.data[sample["index"]]
            logger.error("case %s failed: %s", case["id"], sample["error"])
            failure = {"id": case["id"], "image": case["image_path"], "error": sample["error"]}
            self.failures.append(failure)
        samples = batchdata["read"]
        if not samples:
            return {}
        retrieved = [self._retrieve(sample) for sample in samples]
        image = self.precision.to(torch.stack([sample["image"] for sample in samples]))
        with engine.mode(engine.network), self.precision.autocast():
            said = engine.inferer(image, engine.network, memory=self._features(retrieved))
        engine.state.output = said
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        for i, sample in enumerate(samples):
            self.lines.add(self._row(self.dataset.data[sample["index"]], said, i, retrieved[i]))
        return said

    def _row(self, case: Case, said: Mapping[str, Any], i: int, retrieved: Sequence[int]) -> Row:
        chances = said["class_logits"][i].float().softmax(dim=0).T.tolist()  # C rows of 4
        known = self.network.known().tolist()  # type: ignore[operator]
        places = [c for c, is_known in enumerate(known) if is_known]
        return {
            "id": case["id"],
            "study_id": case["study_id"],
            "image": case["image_path"],
            "report": said["reports"][i],
            "states": {CONDITIONS[c]: STATE_NAMES[int(said["states"][i, c])] for c in places},
            "probabilities": {
                CONDITIONS[c]: {state: _short(p) for state, p in zip(STATE_NAMES, chances[c], strict=True)}
                for c in places
            },
            "retrieved": [self.memory.study_ids[k] for k in retrieved] if self.memory else [],
            "fingerprint": self.fingerprints[case["id"]],
        }

    def _retrieve(self, sample: Mapping[str, Any]) -> list[int]:
        """Rows of the memory for one case, none of its own study."""
        if self.memory is None:
            return []
        case = self.dataset.data[sample["index"]]
        if isinstance(self.memory.backend, Precomputed):
            return case["retrieved"]
        return self.memory.nearest(sample["pictures"][0], self.retrieved, case["study_id"])

    def _features(self, retrieved: Sequence[Sequence[int]]) -> Tensor | None:
        if self.memory is None:
            return None
        return torch.stack([self.memory.gather(rows) for rows in retrieved]).to(self.precision.device)

    def _write_page(self, rows: Sequence[Row]) -> None:
        from tqdm import tqdm

        page, shown = self.output / "reports.html", rows[: self.page_cases]
        if not shown:
            page.unlink(missing_ok=True)
            return
        places = {case["id"]: i for i, case in enumerate(self.dataset.data)}
        views = [self._view(row, places[row["id"]]) for row in tqdm(shown, desc="page", ncols=110)]
        write_page(page, views, len(rows), self.size / self.resize)

    def _view(self, row: Row, place: int) -> CaseView:
        sample = self.dataset[place]
        retrieved = self._retrieve(sample)
        features = self._features([retrieved])
        stated = {CONDITIONS.index(name): STATE_NAMES.index(state) for name, state in row["states"].items()}
        positive = {CONDITIONS.index(name): p["positive"] for name, p in row["probabilities"].items()}
        evidence = explain(
            self.network,  # type: ignore[arg-type]
            sample["image"].to(self.precision.device),
            None if features is None else features[0],
            findings_to_show(positive, stated),
        )
        found = [self._entry(k) for k in retrieved]
        return CaseView(row, sample["pictures"], evidence, found, self.dataset.data[place].get("report"))

    def _entry(self, row: int) -> Row:
        assert self.memory is not None
        text = self.memory.reports[row] if self.memory.reports else ""
        return {"study": self.memory.study_ids[row], "report": text}

    def _fingerprints(self) -> dict[str, str]:
        """For each case id, a key of its images, the checkpoint and the settings that its line depends on."""
        settings = [
            self.size, self.resize, self.views, self.retrieved, self.search, self.decoder_weights
        ]  # fmt: skip
        common = [*checkpoint_sums(self.ckpt_dir), *settings]
        return {case["id"]: _digest([*common, _digest_images(case)]) for case in self.dataset.data}

    def _report_failures(self, cases: int) -> None:
        listed = self.output / "failed.json"
        if not self.failures:
            listed.unlink(missing_ok=True)
            return
        write_text(listed, json.dumps(self.failures, indent=1) + "\n")
        first = f"{self.failures[0]['id']}: {self.failures[0]['error']}"
        raise RuntimeError(f"{len(self.failures)} of {cases} cases failed, see {listed}; first {first}")


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _digest_images(case: Case) -> list[str]:
    # a file that is not there is reported when its turn comes
    return [sha256(Path(path)) if Path(path).is_file() else "" for path in case["image_path"]]
