"""Chains of thought written by a language model: one file per case, so that a stopped run goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from medbundles.folders import check_writable
from medbundles.tables import write_json

from rect_vlm.chat_models import ChatModel, EndpointModel, LocalModel
from rect_vlm.cot import FAILURES, CoTCase, cot_problems, parse_steps
from rect_vlm.ctrate import read_ctrate
from rect_vlm.findings import FINDINGS
from rect_vlm.omniabnorm import ReasoningCase, read_omniabnorm

logger = logging.getLogger(__name__)

PROMPT = """A radiologist described a CT finding. Explain in 3 to 6 short steps how the description leads to
the finding: what is seen, where it is, what speaks for it and against others, and the conclusion. Use nothing
that the description does not say.

Region: {region}
Finding: {category}
Description: {description}

Answer with JSON only:
{{"cot_reasoning": [{{"step": 1, "text": "...", "anatomical_entities": ["..."], "mask_region": "..."}}]}}
mask_region is the part of the outlined area that the step speaks of, or an empty text."""
MIN_STEPS = 2  # a single one is no chain


def generate_cot_data(
    input_dir: str | Path,
    output_dir: str | Path,
    model_name: str,
    base_url: str | None = None,
    key_variable: str = "OPENAI_API_KEY",
    split: str = "train",
    max_tokens: int = 1024,
    workers: int = 4,
    limit: int | None = None,
    progress: bool = True,
) -> Path:
    """Let a language model write the reasoning of every case that has none yet; returns `output_dir`.

    Args:
        input_dir: OmniAbnorm-CT (a folder with `image` and *.json) or a folder in CT-RATE's layout, whose
            reports are explained.
        output_dir: gets `{case_id}.json` in the layout of cot_schema.json; what is there is not asked again.
        model_name: with `base_url` the model of that server, else a folder, hub id, "smollm2" or "tiny".
        base_url: of any OpenAI-compatible server, such as http://localhost:8000/v1.
        key_variable: environment variable that holds the key of the server, if it wants one.
        split: of CT-RATE.
        max_tokens: of an answer.
        workers: questions asked at once; a local model answers one after the other.
        limit: cases to write in this run.
        progress: show a progress bar.

    Raises:
        ConnectionError: the server refuses or cannot be reached; what was written stays.
        ValueError: no case, or cases without a usable answer, listed in `failures.json` too.
    """
    folder = check_writable(output_dir)
    cases = reasoning_cases(input_dir, split)
    missing = [case for case in cases if not (folder / _file_name(case)).is_file()][:limit]
    logger.info("%d of %d cases are there already", len(cases) - len(missing), len(cases))
    if missing:
        model = (
            EndpointModel(model_name, base_url, key_variable, max_tokens)
            if base_url
            else LocalModel(model_name, max_tokens)
        )
        write_reasoning(missing, model, folder, workers if base_url else 1, progress)
    return folder


def reasoning_cases(input_dir: str | Path, split: str = "train") -> list[ReasoningCase]:
    """Cases of OmniAbnorm-CT, or of the reports of a split of CT-RATE; ValueError when there is none."""
    source = Path(input_dir).expanduser()
    if not source.is_dir():
        raise FileNotFoundError(f"input_dir must be a folder of OmniAbnorm-CT or CT-RATE, got {source}")
    if not (source / "radiology_text_reports").is_dir():
        return read_omniabnorm(source)
    cases = []
    for record in read_ctrate(source, split, reconstructions="first", only_found=False):
        names = [name for name, label in zip(FINDINGS, record["labels"] or (), strict=False) if label == 1]
        category = ", ".join(names) or "no finding"
        if record["report"]:
            text = record["report"]
            cases.append(ReasoningCase(record["scan"], record["image"], "", "chest", category, text))
    if not cases:
        raise ValueError(f"{source}: split {split} must have reports, it has none")
    return cases


def write_reasoning(
    cases: Sequence[ReasoningCase], model: ChatModel, folder: Path, workers: int = 1, progress: bool = True
) -> None:
    """Ask the model about every case and write each answer at once; errors as in `generate_cot_data`."""
    from tqdm import tqdm

    failures: dict[str, str] = {}
    pool = ThreadPoolExecutor(max(workers, 1))
    try:
        answers = pool.map(lambda case: _write(case, model, folder), cases)
        bar = tqdm(answers, total=len(cases), desc="reasoning", unit="case", disable=not progress)
        for case, failure in zip(cases, bar, strict=True):
            if failure:
                failures[case.case_id] = failure
    finally:
        pool.shutdown(cancel_futures=True)  # a server that refuses one question refuses all
    record = folder / FAILURES
    if failures:
        write_json(record, failures)
        name, reason = next(iter(failures.items()))
        raise ValueError(
            f"{len(failures)} of {len(cases)} cases have no usable reasoning, e.g. {name}: {reason}; "
            f"all are in {record}, run the command again to ask for them"
        )
    record.unlink(missing_ok=True)


def parse_reasoning(answer: str, case: ReasoningCase, model_name: str) -> CoTCase:
    """The case with the reasoning of an answer: JSON as asked for, fenced or bare, or numbered lines.

    Raises:
        ValueError: it holds no chain of at least two steps that fits the schema.
    """
    content: dict[str, Any] = {
        "case_id": case.case_id, "image_path": case.image_path, "mask_path": case.mask_path,
        "region": case.region, "category": case.category, "generated_by": model_name,
        "cot_reasoning": _json_steps(answer) or parse_steps(answer),
    }  # fmt: skip
    steps = len(content["cot_reasoning"])
    problems = cot_problems(content)
    if steps < MIN_STEPS:
        problems.insert(0, f"must have at least {MIN_STEPS} steps, got {steps} from {answer!r:.80}")
    if problems:
        raise ValueError("; ".join(problems))
    return content  # type: ignore[return-value]


def _json_steps(answer: str) -> list[dict[str, Any]]:
    """Steps of the JSON object in an answer, numbered anew; empty where there is none."""
    start, end = answer.find("{"), answer.rfind("}")
    try:
        content = json.loads(answer[start : end + 1])
    except ValueError:
        return []
    steps = content.get("cot_reasoning") if isinstance(content, dict) else None
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        return []
    usual: dict[str, Any] = {"text": "", "anatomical_entities": [], "mask_region": ""}
    return [
        {**{key: step.get(key) or value for key, value in usual.items()}, "step": number}
        for number, step in enumerate(steps, 1)
    ]


def _write(case: ReasoningCase, model: ChatModel, folder: Path) -> str:
    """Write one case; returns why it could not be, or ""."""
    prompt = PROMPT.format(
        region=case.region or "not stated", category=case.category, description=case.description or "none"
    )
    failure = ""
    for _ in range(model.tries):
        try:
            content = parse_reasoning(model.answer(prompt), case, model.name)
        except ValueError as error:
            failure = str(error)
            continue
        write_json(folder / _file_name(case), content)
        return ""
    return failure


def _file_name(case: ReasoningCase) -> str:
    return f"{quote(case.case_id, safe='')}.json"
