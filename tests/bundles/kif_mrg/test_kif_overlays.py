"""Overlays of train.json: the sizes of the paper."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from kif_mrg.rounds import METRIC
from kif_mrg.text import ReportTokenizer
from kif_mrg.workflow import ReportEvaluator
from kif_tiny_reporter import REPORTS
from kif_training_runs import BUNDLE, train
from monai.bundle import ConfigParser
from torch import nn

NAMES = ("train", "paper")
PAPER: dict[str, Any] = {
    "size": 224, "resize": 256, "lr": 5e-5, "clip": 0.1, "clip_by": "value", "batch_size": 16, "epochs": 10,
    "rounds": 2, "weight_decay": 0.05, "style": "mimic", "max_words": 100, "retrieved": 21, "memory_dim": 512,
    "num_beams": 3, "max_new_tokens": 150, "min_new_tokens": 81, "weights#class_weight": 4.0,
    "weights#sequence_weight": 0.01, "weights#relation_weight": 16.0, "weights#temperature": 4.0, "views": 1,
}  # fmt: skip
# Of BERT-base but with one of its twelve layers and few words, or the file would have 440 MB.
BERT: dict[str, Any] = {
    "hidden_size": 768,
    "num_attention_heads": 12,
    "num_hidden_layers": 1,
    "intermediate_size": 3072,
}


@pytest.fixture(scope="module")
def bert_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local folder as bert-base-uncased comes in."""
    from transformers import BertConfig, BertForPreTraining

    folder = tmp_path_factory.mktemp("bert")
    words = ReportTokenizer.build(REPORTS).hf.get_vocab()
    pieces = sorted(words, key=lambda word: words[word])[:-5]  # BERT knows neither [DEC] nor the states
    BertForPreTraining(BertConfig(vocab_size=len(pieces), **BERT)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return folder


@pytest.fixture(scope="module")
def paper(bert_dir: Path, tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> ConfigParser:
    configs = [str(BUNDLE / "configs" / f"{name}.json") for name in NAMES]
    parser = ConfigParser(ConfigParser.load_config_files(configs))
    out = str(tmp_path_factory.mktemp("paper"))
    parser.update(
        {
            "bert_dir": str(bert_dir),
            "dataset_dir": str(tiny_cohort),
            "ckpt_dir": out,
            "device": torch.device("cpu"),
        }
    )
    parser.parse()
    return parser


@pytest.fixture(scope="module")
def reporter(paper: ConfigParser) -> nn.Module:
    return paper.get_parsed_content("reporter").eval()


@pytest.mark.parametrize("key", PAPER)
def test_paper_numbers(key: str, paper: ConfigParser) -> None:
    assert paper[key] == PAPER[key]


def test_overlay_says_nothing_of_its_own(paper: ConfigParser) -> None:
    """Every id of the overlay is one of train.json, or is used by one: a typo would be ignored silently."""
    train, overlay = (json.loads((BUNDLE / "configs" / f"{name}.json").read_text()) for name in NAMES)
    new = {key.split("#")[0] for key in overlay} - set(train)
    assert new == {"bert_dir", "encoder_weights"}
    text = json.dumps({key: value for key, value in overlay.items() if key not in new})
    assert all(f"@{key}" in text for key in new)


def millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def test_paper_sizes(reporter: Any, paper: ConfigParser) -> None:
    diagnosis, words = reporter.diagnosis, len(reporter.tokenizer)
    assert millions(diagnosis.visual) == pytest.approx(42.5, abs=0.05)
    for part in (diagnosis.aggregator, diagnosis.query_fusion):
        assert millions(part) == pytest.approx(14.7, abs=0.05)
    assert millions(reporter.fusion.layers) == pytest.approx(7.9, abs=0.05)
    assert millions(reporter.tags) == pytest.approx(31.3 - (30527 - words) * 768 / 1e6, abs=0.05)
    assert {layer.attention.num_heads for layer in reporter.fusion.layers} == {16}
    assert {
        layer.self_attn.num_heads for layer in reporter.tags.modules() if hasattr(layer, "self_attn")
    } == {6}
    assert {layer.self_attention.num_heads for layer in diagnosis.aggregator.transformer.decoder} == {8}
    config = reporter.decoder.config
    assert {key: getattr(config, key) for key in BERT} == BERT
    assert (config.encoder_hidden_size, config.hidden_dropout_prob) == (2048, 0.1)
    memory = paper.get_parsed_content("memory")
    assert (memory.dim, paper.get_parsed_content("train#dataset").k) == (512, 21)


def test_paper_size_forward(reporter: Any) -> None:
    image, memory, labels = torch.randn(1, 3, 224, 224), torch.randn(1, 21, 512), torch.zeros(1, 18).long()
    tokens = torch.tensor([[*reporter.tokenizer.encode(REPORTS[0]), reporter.tokenizer.sep_id]])
    with torch.no_grad():
        said = reporter(image, memory, labels, tokens)
    assert said["patches"].shape == said["graph"].shape == (1, 49, 2048)
    assert said["class_logits"].shape == (1, 4, 18)
    assert said["retrieved"].shape == (1, 512)
    assert said["logits"].shape == (*tokens.shape, len(reporter.tokenizer))


def test_every_choice_is_made_on_validation() -> None:
    """No epoch or round is chosen by a number of the test cases."""
    config = json.loads((BUNDLE / "configs" / "train.json").read_text())
    used = [handler["metric"] for handler in config["train"]["handlers"] if "metric" in handler]
    assert len(used) == 2  # early stopping and checkpoints
    assert {*used} == {METRIC}
    assert METRIC.startswith("val_")
    evaluated = re.findall(r'"(\w+)": ', inspect.getsource(ReportEvaluator._score))
    assert METRIC in evaluated
    assert all(name.startswith("val_") for name in evaluated)


def test_decoder_and_graph_start_from_the_words_of_bert(bert_dir: Path, reporter: Any) -> None:
    from safetensors.torch import load_file

    words = load_file(bert_dir / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    assert len(reporter.tokenizer) == len(words) + 5  # [DEC] and the states
    assert torch.equal(reporter.decoder.get_input_embeddings().weight[: len(words)], words)
    torch.testing.assert_close(reporter.tags.nodes()[0], words[reporter.tokenizer.cls_id])


def test_missing_bert_is_named(tiny_cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "bert-base-uncased"
    with pytest.raises(ValueError, match=f"must hold tokenizer.json or vocab.txt, got {folder}"):
        train(tiny_cohort, tmp_path, "paper", bert_dir=str(folder), num_workers=0)
    assert list(tmp_path.iterdir()) == []


def test_multi_gpu_overlay_trains_what_the_plain_config_does() -> None:
    plain, several = (
        json.loads((BUNDLE / "configs" / f"{name}.json").read_text()) for name in ("train", "multi_gpu_train")
    )
    assert several["training"][0]["_target_"] == "ignite.distributed.initialize"
    assert several["training"][1:-1] == plain["training"]
    assert several["training"][-1]["_target_"] == "ignite.distributed.finalize"
    assert set(several) == {"_desc_", "backend", "training"}
