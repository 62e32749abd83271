"""Folders of BERT and of pre-trained decoders: exactly the weights that may be missing are drawn afresh."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from kif_mrg.decoder import decoder_digest, load_decoder, make_decoder, save_decoder
from kif_mrg.decoding import prompts, report_logits
from kif_mrg.text import ReportTokenizer
from kif_tiny_reporter import SMALL, bert_folder, make_tokenizer, padded
from safetensors.torch import load_file, save_file

DV = 10


@pytest.fixture(scope="module")
def tokenizer() -> ReportTokenizer:
    return make_tokenizer()


def test_unknown_numbers_are_refused(tokenizer: ReportTokenizer) -> None:
    with pytest.raises(ValueError, match=r"got \['hidden_sizes'\]"):
        make_decoder(tokenizer, DV, {"hidden_sizes": 24})


def test_a_bert_folder_lacks_cross_attention_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = bert_folder(tmp_path)
    with caplog.at_level(logging.INFO, logger="kif_mrg"):
        decoder, tokenizer = load_decoder(folder, DV)
    assert "fresh are bert.encoder.layer.*.crossattention.output.LayerNorm.bias (x2)" in caplog.text
    assert "left out are bert.embeddings.token_type_embeddings.weight, bert.pooler.dense.bias" in caplog.text
    stored, state = load_file(folder / "model.safetensors"), decoder.state_dict()
    rows = len(tokenizer) - 5
    assert len(state["bert.embeddings.word_embeddings.weight"]) == len(tokenizer)
    shared = [name for name in state if name in stored]
    assert len(shared) > 30
    for name in shared:
        assert torch.equal(state[name][: len(stored[name])], stored[name]), name
    assert torch.equal(
        state["cls.predictions.decoder.weight"], state["bert.embeddings.word_embeddings.weight"]
    )
    assert state["cls.predictions.decoder.bias"][rows:].tolist() == [0] * 5
    fresh = state["bert.encoder.layer.1.crossattention.self.key.weight"]
    assert fresh.shape == (24, DV)
    assert 0.015 < fresh.std() < 0.025
    ids = prompts(torch.zeros(2, 4, dtype=torch.int64), tokenizer)
    assert report_logits(decoder, ids, padded(tokenizer)[:2], torch.randn(2, 3, DV)).shape[2] == len(
        tokenizer
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("bert.encoder.layer.1.output.dense.weight"), r"missing .*output\.dense\.weight"),
        (lambda w: w.update({"bert.adapter.weight": torch.zeros(2)}), r"unexpected bert\.adapter\.weight"),
        (lambda w: w.pop("cls.predictions.transform.dense.bias"), r"missing .*transform\.dense\.bias"),
    ],
)
def test_any_other_weight_missing_or_left_over_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    folder = bert_folder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=message):
        load_decoder(folder, DV)


def test_folders_that_do_not_fit_are_refused(tmp_path: Path, tokenizer: ReportTokenizer) -> None:
    with pytest.raises(ValueError, match="language-model head"):
        load_decoder(bert_folder(tmp_path / "encoder", head=False), DV)
    other = ReportTokenizer.build(["another vocabulary of the heart"])
    with pytest.raises(ValueError, match="share one vocabulary"):
        make_decoder(other, DV, bert_folder(tmp_path / "bert"))
    config = json.loads((tmp_path / "bert" / "config.json").read_text())
    (tmp_path / "bert" / "config.json").write_text(json.dumps({**config, "vocab_size": 20}))
    with pytest.raises(ValueError, match="vocab_size of"):
        make_decoder(tokenizer, DV, tmp_path / "bert")
    with pytest.raises(ValueError, match=r"must hold config\.json"):
        make_decoder(tokenizer, DV, tmp_path)


def test_a_decoder_trained_on_text_alone_comes_back(tokenizer: ReportTokenizer, tmp_path: Path) -> None:
    decoder = make_decoder(tokenizer, DV, SMALL).eval()
    save_decoder(decoder, tokenizer, tmp_path)
    (tmp_path / "other").touch()
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 6
    assert set(modes.values()) == {modes["other"]}  # the umask decides, and not safetensors
    assert not any("crossattention" in name for name in load_file(tmp_path / "model.safetensors"))
    loaded, words = load_decoder(tmp_path, encoder_width=31)
    assert words.hf.get_vocab() == tokenizer.hf.get_vocab()
    prompt, tokens = prompts(torch.zeros(4, 3, dtype=torch.int64), tokenizer), padded(tokenizer)
    expected = report_logits(decoder, prompt, tokens)
    assert torch.equal(report_logits(loaded.eval(), prompt, tokens), expected)
    assert loaded.config.encoder_hidden_size == 31
    assert not torch.allclose(report_logits(loaded, prompt, tokens, torch.randn(4, 9, 31)), expected)


def test_digest_follows_the_content_of_a_folder(tmp_path: Path) -> None:
    first = bert_folder(tmp_path / "first")
    before = decoder_digest(first)
    copied = shutil.copytree(first, tmp_path / "copied")
    assert decoder_digest(str(copied)) == before  # wherever it lies
    (first / "README.md").touch()
    assert decoder_digest(first) == before
    bert_folder(first)  # other weights of the same sizes
    changed = decoder_digest(first)
    assert [name for name, _ in changed] == ["config.json", "model.safetensors", "vocab.txt"]
    assert [new == old for new, old in zip(changed, before, strict=True)] == [True, False, True]


@pytest.mark.parametrize("decoder", [None, SMALL, "no/such/folder"])
def test_what_is_no_folder_is_its_own_digest(decoder: Any) -> None:
    assert decoder_digest(decoder) == decoder
