"""Reasoning from an OpenAI-compatible server: written once, asked again when busy, stopped when refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rect_reasoning_files import Server, omniabnorm
from rect_tiny_ctrate import label_rows, report_rows, write_rows
from rect_vlm import chat_models
from rect_vlm.chat_models import EndpointModel, LocalModel
from rect_vlm.cot import read_cot
from rect_vlm.cot_generation import generate_cot_data, parse_reasoning, reasoning_cases
from rect_vlm.omniabnorm import ReasoningCase

STEPS = [{"step": 1, "text": "A spot."}, {"step": 2, "text": "A nodule.", "anatomical_entities": ["lung"]}]
GOOD = "Sure:\n```json\n" + json.dumps({"cot_reasoning": STEPS}) + "\n```"
CASE = ReasoningCase("7_1", "i.jpeg", "m.jpeg", "lung", "Nodule", "A spot.")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []
    monkeypatch.setattr(chat_models, "MAX_WAIT", 0.0)

    def start(reply: Callable[[int], tuple[int, str]]) -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def run(source: Path, target: Path, server: Server, **options: Any) -> Path:
    options = {"workers": 1, "progress": False, **options}
    return generate_cot_data(source, target, "some-model", server.url, **options)


def test_every_case_is_written_once(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-test")
    server, source = serve(lambda _: (200, GOOD)), omniabnorm(tmp_path / "data", 5)
    folder = run(source, tmp_path / "cot", server, limit=2)
    assert len(list(folder.glob("*.json"))) == len(server.requests) == 2
    run(source, tmp_path / "cot", server, workers=3)
    assert len(server.requests) == 5
    run(source, tmp_path / "cot", server)
    assert len(server.requests) == 5
    cases = read_cot(folder)
    assert {case["case_id"] for case in cases} == {f"{i}_0" for i in range(5)}
    assert cases[0]["generated_by"] == "some-model"
    assert cases[0]["cot_reasoning"][1]["anatomical_entities"] == ["lung"]
    first = server.requests[0]
    assert (first["path"], first["model"]) == ("/v1/chat/completions", "some-model")
    assert "Spot 0." in first["messages"][0]["content"]
    assert server.headers[0]["Authorization"] == "Bearer key-of-the-test"
    assert not any("key-of-the-test" in path.read_text() for path in folder.iterdir())


def test_a_busy_server_is_asked_again(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(lambda number: (503, "busy") if number % 2 else (200, GOOD))
    folder = run(omniabnorm(tmp_path / "data"), tmp_path / "cot", server)
    assert len(read_cot(folder)) == 2
    assert len(server.requests) == 4


def test_a_refusal_stops_the_run_and_keeps_what_is_there(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve(lambda number: (200, GOOD) if number < 3 else (401, "no such key"))
    with pytest.raises(ConnectionError, match=r"/v1/chat/completions: HTTP 401: .*no such key"):
        run(omniabnorm(tmp_path / "data", 30), tmp_path / "cot", server)
    assert len(list((tmp_path / "cot").glob("*_0.json"))) == 2
    assert len(server.requests) < 10


def test_unusable_answers_are_asked_for_again_and_then_listed(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    answers = {1: "I cannot help.", 2: GOOD}
    server = serve(lambda number: (200, answers.get(number, "{}")))
    source = omniabnorm(tmp_path / "data")
    with pytest.raises(
        ValueError, match=r"1 of 2 cases have no usable reasoning, e\.g\. 1_0: must have at least 2 steps"
    ):
        run(source, tmp_path / "cot", server)
    assert len(server.requests) == 2 + EndpointModel.tries
    assert list(json.loads((tmp_path / "cot/failures.json").read_text())) == ["1_0"]
    run(source, tmp_path / "cot", serve(lambda _: (200, GOOD)))
    assert len(read_cot(tmp_path / "cot")) == 2
    assert not (tmp_path / "cot/failures.json").exists()


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    waits: list[float] = []
    model = EndpointModel("m", "http://127.0.0.1:9", attempts=3, wait=waits.append)
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:9/chat/completions: cannot be reached"):
        model.answer("hello")
    assert len(waits) == 2
    assert waits[1] > waits[0] / 2 > 0
    with pytest.raises(ValueError, match="base_url must begin with http"):
        EndpointModel("m", "localhost:9")


def test_something_else_than_a_chat_server(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = EndpointModel("m", "http://127.0.0.1:9")
    monkeypatch.setattr(model, "_post", lambda body: b"<html>")
    with pytest.raises(ValueError, match="sent no chat completion: b'<html>'"):
        model.answer("hello")


def test_answers_are_json_or_numbered_lines() -> None:
    assert [step["text"] for step in parse_reasoning(GOOD, CASE, "m")["cot_reasoning"]] == [
        "A spot.",
        "A nodule.",
    ]
    plain = parse_reasoning("1. Seen.\n2. Named.", CASE, "m")
    assert [step["text"] for step in plain["cot_reasoning"]] == ["Seen.", "Named."]
    with pytest.raises(ValueError, match="at least 2 steps, got 1"):
        parse_reasoning("It is a nodule.", CASE, "m")
    with pytest.raises(ValueError, match=r"key cot_reasoning\.0\.text"):
        parse_reasoning('{"cot_reasoning": [{"text": ""}, {"text": "b"}]}', CASE, "m")


def test_reports_of_ct_rate_are_cases_too(tmp_path: Path) -> None:
    names = ["train_1_a_1", "train_1_a_2", "train_2_a_1"]
    write_rows(tmp_path / "multi_abnormality_labels/train_predicted_labels.csv", label_rows(names))
    write_rows(tmp_path / "radiology_text_reports/train_reports.csv", report_rows(names))
    cases = reasoning_cases(tmp_path)
    assert [case.case_id for case in cases] == ["train_1_a", "train_2_a"]
    assert cases[1].category == "Lung nodule, Pleural effusion"
    assert cases[0].description.startswith("FINDINGS:\n")
    with pytest.raises(FileNotFoundError, match="input_dir must be a folder"):
        reasoning_cases(tmp_path / "none")


def test_a_model_of_this_machine_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random Llama with a byte tokenizer: the same text each time, and only what is new."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    words = {"<eos>": 0, **{letter: i for i, letter in enumerate(sorted(alphabet), 1)}}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(words, []))
    backend.pre_tokenizer, backend.decoder = (
        tokenizers.pre_tokenizers.ByteLevel(False),
        tokenizers.decoders.ByteLevel(),
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>"
    )
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    network = transformers.LlamaForCausalLM(config).eval()
    monkeypatch.setattr("rect_vlm.llm.load_llm", lambda source, **options: (network, tokenizer))
    model = LocalModel("somewhere", max_tokens=6, device="cpu")
    first = model.answer("Is there a nodule?")
    assert first == model.answer("Is there a nodule?")
    assert "Is there" not in first
    tokenizer.chat_template = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    assert isinstance(model.answer("Is there a nodule?"), str)
