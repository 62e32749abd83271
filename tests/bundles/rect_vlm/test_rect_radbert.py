"""RadBERT: a small RoBERTa checkpoint on disk is loaded strictly and labels as its own weights say."""

from pathlib import Path

import pytest
import torch
from rect_vlm.findings import FINDINGS
from rect_vlm.radbert import RadBertLabeler
from rect_vlm.report_scores import score_reports
from torch import Tensor

WIDTH, POSITIONS = 128, 34
REPORTS = ["No nodule.", "Cardiomegaly is present. A nodule in the left lung. " * 8, "", "Emphysema."]


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import RobertaTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        REPORTS, trainers.BpeTrainer(vocab_size=280, special_tokens=special, initial_alphabet=alphabet)
    )
    bpe.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    folder = tmp_path_factory.mktemp("tokenizer")
    RobertaTokenizerFast(tokenizer_object=bpe).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def weights(tokenizer_folder: Path) -> dict[str, Tensor]:
    """Random weights under the keys of the published checkpoint."""
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(str(tokenizer_folder))),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=96,
        max_position_embeddings=POSITIONS,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        initializer_range=0.3,  # so that different reports get different labels
    )
    state = {f"model.{key}": value for key, value in RobertaModel(config).state_dict().items()}
    state["classifier.weight"] = torch.randn(len(FINDINGS), WIDTH)
    state["classifier.bias"] = torch.randn(len(FINDINGS))
    return state


@pytest.fixture
def checkpoint(tmp_path: Path, weights: dict[str, Tensor]) -> Path:
    ids = torch.arange(POSITIONS)[None]
    torch.save({**weights, "model.embeddings.position_ids": ids}, tmp_path / "RadBertClassifier.pth")
    return tmp_path / "RadBertClassifier.pth"


def test_labels_are_those_of_the_weights(
    checkpoint: Path, tokenizer_folder: Path, weights: dict[str, Tensor]
) -> None:
    labeler = RadBertLabeler(checkpoint, tokenizer_folder)
    assert all(torch.equal(value, weights[key]) for key, value in labeler.state_dict().items())
    assert not labeler.training
    labels = labeler.label(REPORTS)
    assert labels.shape == (4, 18)
    assert len({tuple(row) for row in labels}) > 1
    for n, text in enumerate(REPORTS):  # one at a time, without padding, by the layers themselves
        ids = labeler.tokenizer(text, truncation=True, max_length=POSITIONS - 2, return_tensors="pt")[
            "input_ids"
        ]
        with torch.no_grad():
            pooled = labeler.model(input_ids=ids).pooler_output
        logits = pooled @ weights["classifier.weight"].T + weights["classifier.bias"]
        assert labels[n].tolist() == (logits[0] >= 0).long().tolist()


def test_batches_and_order_do_not_matter(checkpoint: Path, tokenizer_folder: Path) -> None:
    labeler = RadBertLabeler(checkpoint, tokenizer_folder)
    whole = labeler.probabilities(REPORTS)
    assert torch.allclose(whole, labeler.probabilities(REPORTS, batch_size=1), atol=1e-5)
    assert torch.allclose(whole.flip(0), labeler.probabilities(REPORTS[::-1], batch_size=3), atol=1e-5)
    assert labeler.label([]).shape == (0, 18)
    with pytest.raises(TypeError, match="sequence of reports"):
        labeler.label("one report")


def test_it_labels_for_the_report_scores(checkpoint: Path, tokenizer_folder: Path) -> None:
    label = RadBertLabeler(checkpoint, tokenizer_folder).label
    scores = score_reports(REPORTS, REPORTS, labeler=label, labeler_name="RadBERT")
    assert scores["RadBERT micro f1"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classifier.weight": torch.zeros(14, WIDTH)}, "must have 18 labels, got 14"),
        ({"model.pooler.dense.weight": None}, "pooler.dense.weight"),
        ({"model.embeddings.word_embeddings.weight": None}, "word_embeddings.weight' is missing"),
        ({"model.extra": torch.zeros(1)}, "model.extra"),
        ({"model.embeddings.word_embeddings.weight": torch.zeros(7, WIDTH)}, "7 word pieces"),
    ],
)
def test_other_weights_are_refused(
    tmp_path: Path,
    tokenizer_folder: Path,
    weights: dict[str, Tensor],
    change: dict[str, Tensor | None],
    words: str,
) -> None:
    state = {key: value for key, value in {**weights, **change}.items() if value is not None}
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=words):
        RadBertLabeler(tmp_path / "other.pth", tokenizer_folder)


def test_missing_and_foreign_files_are_named(
    tmp_path: Path, checkpoint: Path, tokenizer_folder: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        RadBertLabeler(tmp_path / "nowhere.pth", tokenizer_folder)
    with pytest.raises(FileNotFoundError, match="local folder"):
        RadBertLabeler(checkpoint, tmp_path / "nothing")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"text\.pth"):
        RadBertLabeler(tmp_path / "text.pth", tokenizer_folder)
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="state dict"):
        RadBertLabeler(tmp_path / "list.pth", tokenizer_folder)
