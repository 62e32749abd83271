"""Chains of thought about CT cases: one schema, adapters for two others, and the texts a model is tuned on.

They are text only and join the report task of phases 1.3 and 2 with a small weight: 2-D pictures that some of
them belong to are not shown to the 3-D encoder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

from medbundles.problems import Problems

SCHEMA_FILE = Path(__file__).with_name("cot_schema.json")
QUESTION = "Reason step by step about this chest CT finding and name it:"
FAILURES = "failures.json"  # of a generation, beside its cases
_MARK = re.compile(r"^\s*(?:(?:step\s*)?\d+\s*[.):]|[-*•])\s+", re.IGNORECASE | re.MULTILINE)


class CoTStep(TypedDict):
    """One step: its text, the anatomy it names, and the part of the mask it speaks of ("" = none)."""

    step: int
    text: str
    anatomical_entities: list[str]
    mask_region: str


class _CoTRequired(TypedDict):
    case_id: str
    image_path: str
    mask_path: str
    region: str
    category: str
    cot_reasoning: list[CoTStep]
    generated_by: str


class CoTCase(_CoTRequired, total=False):
    """One case; `question` and `answer` where the source has them."""

    question: str
    answer: str


def read_cot(source: str | Path) -> list[CoTCase]:
    """Cases of a .json file (one or a list), a .jsonl file or a folder of .json files, checked by the schema.

    Two other layouts are translated: `{"volumename", "question", "answer"}` of CT-RATE's reasoning data and
    `{"image_id", "findings": [{disease, present, confidence, location}], "reasoning", "summary"}`.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: all faults at once, each with file, entry and key.
    """
    source = Path(source).expanduser()
    if not source.exists():
        raise FileNotFoundError(f"chains of thought must be a .json or .jsonl file or a folder, got {source}")
    files = sorted(source.glob("*.json")) if source.is_dir() else [source]
    problems, cases = Problems(), []
    for file in files:
        if file.name == FAILURES:
            continue
        for place, entry in _entries(file, problems):
            case = translate(entry)
            found = cot_problems(case)
            for problem in found:
                problems.add("cot", f"{file}, {place}: {problem}")
            if not found:
                cases.append(case)
    problems.raise_if_any(str(source))
    if not cases:
        raise ValueError(f"{source} must hold chains of thought, it has none")
    return cases  # type: ignore[return-value]


def cot_problems(case: Any) -> list[str]:
    """What the schema finds wrong with a case, each with its key."""
    errors = sorted(_validator().iter_errors(case), key=lambda error: list(map(str, error.absolute_path)))
    return [f"key {'.'.join(map(str, e.absolute_path)) or 'case'}: {e.message:.200}" for e in errors]


def translate(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of one of the other layouts in the canonical one; anything else comes back as it is."""
    if "volumename" in entry:
        steps = parse_steps(str(entry.get("answer", "")))
        return _case(
            entry["volumename"], image_path=str(entry["volumename"]), steps=steps,
            question=str(entry.get("question", "")), by="CT-RATE",
        )  # fmt: skip
    if "image_id" in entry and "findings" in entry:
        return _from_findings(entry)
    return dict(entry)


def sft_pair(case: CoTCase) -> tuple[str, str]:
    """(prompt, target) for supervised tuning: the question, and numbered steps that end in the answer."""
    about = f"{case['category']} ({case['region']})" if case["region"] else case["category"]
    prompt = case.get("question") or QUESTION
    lines = [f"{step['step']}. {step['text']}" for step in case["cot_reasoning"]]
    answer = case.get("answer") or ("" if case.get("question") else about)
    return prompt, "\n".join([*lines, f"Answer: {answer}"] if answer else lines)


def parse_steps(text: str) -> list[CoTStep]:
    """Steps of a text: lines that begin with "1.", "Step 1:" or "-"; without any the whole is one step."""
    parts = [" ".join(part.split()) for part in _MARK.split(text)]
    if len(parts) > 1:
        parts = parts[1:]  # before the first mark there is only an introduction
    texts = [part for part in parts if part]
    return [CoTStep(step=i, text=t, anatomical_entities=[], mask_region="") for i, t in enumerate(texts, 1)]


def _from_findings(entry: Mapping[str, Any]) -> dict[str, Any]:
    findings = [finding for finding in entry["findings"] if isinstance(finding, Mapping)]
    present = [finding for finding in findings if finding.get("present")]
    reasoning = entry.get("reasoning", "")
    text = reasoning if isinstance(reasoning, str) else "\n".join(f"- {line}" for line in reasoning)
    case = _case(entry["image_id"], image_path=str(entry["image_id"]), steps=parse_steps(text), by="unknown")
    case["category"] = ", ".join(str(finding.get("disease", "")) for finding in present)
    case["region"] = ", ".join(dict.fromkeys(str(f["location"]) for f in present if f.get("location")))
    case["answer"] = str(entry.get("summary", ""))
    return case


def _case(name: Any, image_path: str, steps: Sequence[CoTStep], by: str, **more: str) -> dict[str, Any]:
    return {
        "case_id": str(name), "image_path": image_path, "mask_path": "", "region": "", "category": "",
        "cot_reasoning": list(steps), "generated_by": by, **more,
    }  # fmt: skip


def _entries(file: Path, problems: Problems) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place, entry) of all entries of a file that are objects."""
    text = file.read_text(encoding="utf-8")
    found: list[tuple[str, Any]] = []
    try:
        if file.suffix == ".jsonl":
            lines = enumerate(text.splitlines(), 1)
            found = [(f"line {number}", json.loads(line)) for number, line in lines if line.strip()]
        else:
            content = json.loads(text)
            several = content if isinstance(content, list) else [content]
            found = [(f"entry {number}", entry) for number, entry in enumerate(several)]
    except ValueError as error:
        problems.add("json", f"{file}: must be JSON: {error}")
    for place, entry in found:
        if isinstance(entry, Mapping):
            yield place, entry
        else:
            problems.add("json", f"{file}, {place}: must be an object, got {entry!r:.60}")


@lru_cache(maxsize=1)
def _validator() -> Any:
    import jsonschema

    return jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
