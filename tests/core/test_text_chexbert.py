"""CheXbert: a small BERT checkpoint on disk is loaded strictly and labels as its own weights say."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from medbundles.text.chest_phrases import CHEXPERT_CONDITIONS
from medbundles.text.chexbert import CheXbert, load_chexbert
from torch import Tensor

pytest.importorskip("transformers")

WORDS = [
    "no",
    "the",
    "heart",
    "is",
    "enlarged",
    "small",
    "left",
    "pleural",
    "effusion",
    "lungs",
    "are",
    "clear",
    ".",
]
REPORTS = [
    "no pleural effusion .",
    "the heart is enlarged . small left pleural effusion .",
    "",
    "lungs are clear .",
]
WIDTH, POSITIONS = 128, 32


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n"
    )
    return folder


@pytest.fixture
def weights() -> dict[str, Tensor]:
    """Random weights under the keys of the published checkpoint, saved from a DataParallel model."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=96,
        max_position_embeddings=POSITIONS,
        initializer_range=0.5,  # so that different reports get different labels
    )
    weights = {f"module.bert.{key}": value for key, value in BertModel(config).state_dict().items()}
    for head in range(14):
        states = 4 if head < 13 else 2
        weights[f"module.linear_heads.{head}.weight"] = torch.randn(states, WIDTH)
        weights[f"module.linear_heads.{head}.bias"] = torch.randn(states)
    return weights


@pytest.fixture
def checkpoint(tmp_path: Path, weights: dict[str, Tensor]) -> Path:
    torch.save({"epoch": 8, "model_state_dict": weights}, tmp_path / "chexbert.pth")
    return tmp_path / "chexbert.pth"


@pytest.fixture
def labeler(checkpoint: Path, tokenizer_folder: Path) -> CheXbert:
    return load_chexbert(checkpoint, tokenizer_folder)


def test_labels_follow_from_the_weights(labeler: CheXbert, weights: dict[str, Tensor]) -> None:
    labels = labeler.label(REPORTS)
    assert labels.dtype == np.int64
    assert labels.shape == (len(REPORTS), len(CHEXPERT_CONDITIONS))
    for report, states in zip(REPORTS, labels, strict=True):
        ids = [2, *(5 + WORDS.index(word) for word in report.split()), 3]  # [CLS] words [SEP]
        with torch.no_grad():
            first = labeler.bert(torch.tensor([ids])).last_hidden_state[0, 0]
        expected = [
            int(torch.argmax(weights[f"{head}.weight"] @ first + weights[f"{head}.bias"]))
            for head in (f"module.linear_heads.{n}" for n in range(14))
        ]
        assert states.tolist() == expected
    assert len({tuple(states) for states in labels}) > 1


def test_every_weight_comes_from_the_checkpoint(labeler: CheXbert, weights: dict[str, Tensor]) -> None:
    loaded = labeler.state_dict()
    assert {f"module.{key}" for key in loaded} == set(weights)
    assert all(torch.equal(value, weights[f"module.{key}"]) for key, value in loaded.items())
    assert not labeler.training


def test_neighbours_in_the_batch_and_their_padding_change_nothing(labeler: CheXbert) -> None:
    together = labeler.label(REPORTS)
    assert np.array_equal(together, np.concatenate([labeler.label([report]) for report in REPORTS]))
    assert np.array_equal(together, labeler.label(REPORTS, batch_size=2))
    assert labeler.label([]).shape == (0, 14)


def test_a_long_report_is_cut_at_the_last_position(labeler: CheXbert) -> None:
    kept = "heart is enlarged " * 10  # 30 words, [CLS] and [SEP]: the 32 positions of this model
    assert np.array_equal(labeler.label([kept + "no effusion " * 40]), labeler.label([kept]))


@pytest.mark.parametrize("nested", [True, False])
def test_plain_state_dicts_and_position_ids_are_understood(
    nested: bool,
    tmp_path: Path,
    tokenizer_folder: Path,
    weights: dict[str, Tensor],
    labeler: CheXbert,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = {key.removeprefix("module."): value for key, value in weights.items()}
    plain["bert.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    torch.save({"model_state_dict": plain} if nested else plain, tmp_path / "plain.pth")
    with caplog.at_level(logging.INFO, logger="medbundles"):
        again = load_chexbert(tmp_path / "plain.pth", tokenizer_folder)
    assert np.array_equal(again.label(REPORTS), labeler.label(REPORTS))
    assert "left out bert.embeddings.position_ids" in caplog.text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("module.linear_heads.13.bias", None),
        ("module.bert.encoder.layer.1.output.dense.weight", None),
        ("module.bert.embeddings.word_embeddings.weight", None),
        ("module.linear_heads.0.weight", torch.zeros(3, WIDTH)),
        ("module.linear_heads.14.bias", torch.zeros(4)),
    ],
)
def test_weights_that_do_not_match_are_refused(
    key: str, value: Tensor | None, tmp_path: Path, tokenizer_folder: Path, weights: dict[str, Tensor]
) -> None:
    changed = {**weights, key: value}
    torch.save({name: kept for name, kept in changed.items() if kept is not None}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=rf"(?s)other\.pth must hold .*{key.removeprefix('module.')}"):
        load_chexbert(tmp_path / "other.pth", tokenizer_folder)


def test_a_checkpoint_with_code_or_damage_is_refused(
    tmp_path: Path, checkpoint: Path, tokenizer_folder: Path
) -> None:
    torch.save({"model_state_dict": Path}, tmp_path / "code.pth")
    (tmp_path / "cut.pth").write_bytes(checkpoint.read_bytes()[:5000])
    for name in ("code.pth", "cut.pth"):
        with pytest.raises(ValueError, match=rf"{name} must be a checkpoint of tensors"):
            load_chexbert(tmp_path / name, tokenizer_folder)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth must hold a state dict"):
        load_chexbert(tmp_path / "list.pth", tokenizer_folder)


def test_a_tokenizer_of_another_vocabulary_is_refused(checkpoint: Path, tokenizer_folder: Path) -> None:
    with (tokenizer_folder / "vocab.txt").open("a") as file:
        file.write("extra\n")
    with pytest.raises(
        ValueError, match=rf"must hold the {5 + len(WORDS)} word pieces .* got {6 + len(WORDS)}"
    ):
        load_chexbert(checkpoint, tokenizer_folder)
    with pytest.raises(FileNotFoundError, match="local folder"):
        load_chexbert(checkpoint, tokenizer_folder / "absent")
    with pytest.raises(FileNotFoundError, match="local file"):
        load_chexbert(checkpoint.with_name("absent.pth"), tokenizer_folder)
