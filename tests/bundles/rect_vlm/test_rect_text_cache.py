"""Prompts and the text cache: complete, in order, told apart, the same every time, and no encoder kept."""

import json
import logging
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rect_vlm import text_cache
from rect_vlm.findings import FINDINGS, LESIONS
from rect_vlm.prompts import PROMPTS_FILE, read_prompts
from rect_vlm.text_cache import build_text_cache, text_encoder_folder
from torch import Tensor

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_encoder_folder("tiny", tmp_path_factory.mktemp("encoders"))


def mean_cosine(vectors: Tensor) -> float:
    cosine = F.cosine_similarity(vectors[:, None], vectors[None], dim=-1)
    return float(cosine[~torch.eye(len(vectors), dtype=torch.bool)].mean())


def raw(folder: Path, texts: tuple[str, ...]) -> list[Tensor]:
    """What the encoder says of every text alone, (tokens, Dt), without padding."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in texts]


def test_every_finding_and_lesion_has_its_own_prompt_in_canonical_order() -> None:
    prompts = read_prompts()
    assert [text.split(":")[0] for text in prompts.findings] == list(FINDINGS)
    assert len(set(prompts.lesions)) == len(LESIONS)
    for lesion, text in zip(LESIONS, prompts.lesions, strict=True):
        assert text.lower().startswith(lesion.replace("_", " "))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tables: tables["findings"].pop("Emphysema"), "missing=\\['Emphysema'\\]"),
        (lambda tables: tables["lesions"].update(consolidation=" "), "missing=\\['consolidation'\\]"),
        (lambda tables: tables["findings"].update(Pneumothorax="air"), "unknown=\\['Pneumothorax'\\]"),
        (lambda tables: tables.pop("lesions"), "'lesions' must map names to texts, got NoneType"),
    ],
)
def test_incomplete_prompts_are_named(tmp_path: Path, change: object, message: str) -> None:
    tables = json.loads(PROMPTS_FILE.read_text(encoding="utf-8"))
    change(tables)  # type: ignore[operator]
    file = tmp_path / "own.json"
    file.write_text(json.dumps(tables), encoding="utf-8")
    with pytest.raises(ValueError, match=f"own.json: .*{message}"):
        read_prompts(file)


def test_cached_findings_are_apart_where_the_raw_ones_are_nearly_the_same(tiny: Path) -> None:
    cache = build_text_cache(tiny)
    pooled = torch.stack([tokens.mean(0) for tokens in raw(tiny, read_prompts().findings)])
    assert mean_cosine(pooled) > 0.5
    assert mean_cosine(cache["cls_text"]) < 0.3
    # The same vectors, standardised: the mean is over real tokens, whatever the padding.
    standard = (pooled - pooled.mean(0)) / pooled.std(0, correction=0)
    torch.testing.assert_close(cache["cls_text"], standard, rtol=1e-3, atol=1e-3)


def test_lesions_keep_their_tokens_and_know_their_padding(tiny: Path) -> None:
    cache = build_text_cache(tiny, tokens=96)
    tokens, mask = cache["loc_tokens"], cache["loc_mask"]
    assert tokens.shape == (5, 96, 384)
    assert mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [len(one) for one in raw(tiny, read_prompts().lesions)]
    assert tokens[~mask].abs().max() == 0
    torch.testing.assert_close(tokens[mask].mean(0), torch.zeros(384), rtol=0, atol=1e-4)
    assert not any(value.requires_grad for value in (tokens, cache["cls_text"]))


def test_long_prompts_are_cut(tiny: Path) -> None:
    mask = build_text_cache(tiny, tokens=8)["loc_mask"]
    assert mask.shape == (5, 8)
    assert mask.all()


def test_tiny_encoder_is_written_once_and_the_same_everywhere(tiny: Path, tmp_path: Path) -> None:
    stamp = (tiny / "config.json").stat().st_mtime_ns
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    other = text_encoder_folder("tiny", tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert other.name == tiny.name
    assert [item.name for item in tmp_path.iterdir()] == [other.name]
    assert text_encoder_folder("tiny", tiny.parent) == tiny
    assert (tiny / "config.json").stat().st_mtime_ns == stamp
    first, second = build_text_cache(tiny), build_text_cache(other)
    assert all(torch.equal(first[key], second[key]) for key in ("cls_text", "loc_tokens", "loc_mask"))  # type: ignore[literal-required]


def test_auto_takes_what_has_been_fetched(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(text_cache, "sample_path", {"text_encoder_minilm": tmp_path}.get)
    assert text_encoder_folder("auto", tiny.parent) == tmp_path
    monkeypatch.setattr(text_cache, "sample_path", {}.get)
    with caplog.at_level(logging.INFO, logger="rect_vlm"):
        assert text_encoder_folder("auto", tiny.parent) == tiny
    assert "medbundles samples fetch" in caplog.text


def test_a_given_folder_or_hub_id_stays_as_it_is(tmp_path: Path) -> None:
    assert text_encoder_folder(tmp_path) == tmp_path
    assert (
        text_encoder_folder("emilyalsentzer/Bio_ClinicalBERT").as_posix() == "emilyalsentzer/Bio_ClinicalBERT"
    )


def test_a_folder_that_is_no_text_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=f"must be a folder or hub id with a BERT and its tokenizer, got {tmp_path}"
    ):
        build_text_cache(tmp_path)


@pytest.mark.parametrize("tokens", [2, 129])
def test_tokens_must_fit_the_encoder(tiny: Path, tokens: int) -> None:
    with pytest.raises(ValueError, match=f"tokens must be 3 to 128, .* got tokens={tokens}"):
        build_text_cache(tiny, tokens=tokens)
