"""The concepts of query fusion: by a CLIP on disk where the memory is one's, otherwise learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from kif_mrg.concepts import finding_concepts
from kif_mrg.diagnosis import DiagnosisNet
from kif_mrg.query_fusion import TERMS
from kif_tiny_clip import DIM, make_clip
from kif_training_runs import BUNDLE
from medbundles.engines.checkpointing import load_weights
from monai.bundle import ConfigParser
from torch import nn

SMALL: dict[str, Any] = {"memory_dim": DIM, "heads": 2, "ff": 16}


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_clip(tmp_path_factory.mktemp("clip"))


def of_paper(**changes: Any) -> DiagnosisNet:
    """network_def of paper.json, of a small size."""
    configs = [str(BUNDLE / "configs" / f"{name}.json") for name in ("train", "paper")]
    parser = ConfigParser(ConfigParser.load_config_files(configs))
    sizes = {"memory_dim": DIM, "network_def#encoder": "small", "network_def#heads": 2, "network_def#ff": 16}
    parser.update(sizes | changes)
    return parser.get_parsed_content("network_def")


def test_a_row_per_term_as_clip_words_it(clip_folder: str) -> None:
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(clip_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(clip_folder)
    expected = []
    for term in TERMS:  # one by one, so that no padding is needed
        with torch.no_grad():
            found = model.get_text_features(**tokenizer(term, return_tensors="pt")).pooler_output[0]
        expected.append(found / found.norm())
    concepts = finding_concepts("clip", clip_folder, DIM)
    assert concepts is not None
    torch.testing.assert_close(concepts, torch.stack(expected), atol=1e-5, rtol=0)
    assert (concepts @ concepts.T)[~torch.eye(len(TERMS), dtype=torch.bool)].max() < 0.999  # none alike
    joint = finding_concepts("clip", clip_folder, DIM, "joint")
    assert joint is not None
    assert joint.shape == (1, DIM)


@pytest.mark.parametrize(("query_fusion", "rows"), [("terms", 20), ("joint", 1)])
def test_paper_takes_them_from_the_clip_of_its_memory(query_fusion: str, rows: int, clip_folder: str) -> None:
    given = {"memory_backend": "clip", "memory_source": clip_folder, "network_def#query_fusion": query_fusion}
    fusion: Any = of_paper(**given).query_fusion
    assert fusion.concepts.shape == (rows, DIM)
    assert not isinstance(fusion.concepts, nn.Parameter)
    assert torch.equal(fusion.concepts, finding_concepts("clip", clip_folder, DIM, query_fusion))


def test_without_clip_they_are_learned_and_without_fusion_there_are_none(clip_folder: str) -> None:
    learned: Any = of_paper().query_fusion
    assert isinstance(learned.concepts, nn.Parameter)
    given = {"memory_backend": "clip", "memory_source": clip_folder, "network_def#query_fusion": "none"}
    assert isinstance(of_paper(**given).query_fusion, nn.Identity)


def test_what_was_trained_with_them_is_used_without_the_clip(clip_folder: str, tmp_path: Path) -> None:
    """inference.json names no CLIP for its network: the concepts are among the weights."""
    trained = DiagnosisNet(**SMALL, concepts=finding_concepts("clip", clip_folder, DIM)).eval()
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    plain = DiagnosisNet(**SMALL).eval()
    load_weights(plain, tmp_path / "model.pt")
    image, memory = torch.randn(2, 3, 64, 64), torch.randn(2, 3, DIM)
    assert torch.equal(plain(image, memory), trained(image, memory))
    inference = json.loads((BUNDLE / "configs" / "inference.json").read_text())
    assert "concepts" not in inference["network_def"]


def test_a_clip_that_does_not_fit_is_refused(clip_folder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"dim must be the projection_dim .*, {DIM}, got 512"):
        finding_concepts("clip", clip_folder, 512)
    with pytest.raises(FileNotFoundError, match=r"CLIP folder must hold config\.json"):
        finding_concepts("clip", str(tmp_path), DIM)
    with pytest.raises(ValueError, match="'clip' needs source"):
        finding_concepts("clip", None, DIM)
