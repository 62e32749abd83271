"""Backends of the report memory other than the default: a tiny real CLIP on disk, and given vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kif_mrg.memory import ReportMemory, make_memory
from kif_mrg.memory_backends import make_backend
from kif_mrg.records import Record
from kif_mrg.validation import check_memory
from kif_studies import make_records, of_split
from kif_tiny_clip import DIM, NORMALISATION, SIZE, make_clip
from PIL import Image


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    return make_records(tmp_path / "images")


def test_clip_compares_pictures_with_reports(records: list[Record], clip_folder: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, CLIPModel

    for i, record in enumerate(of_split(records, "train")):
        record["report"] = f"finding {i} . " + record["report"]
    memory = make_memory("-", tmp_path / "memory.npz", "clip", DIM, clip_folder)
    memory.ensure(records)
    memory.attach(records, 5)

    model, tokenizer = (
        CLIPModel.from_pretrained(clip_folder).eval(),
        AutoTokenizer.from_pretrained(clip_folder),
    )
    reports = [record["report"] for record in of_split(records, "train")]
    words = tokenizer(reports, padding=True, truncation=True, max_length=24, return_tensors="pt")
    pixels = torch.stack([_pixels(record["image_path"][0]) for record in records])
    with torch.inference_mode():
        said = model(**words, pixel_values=pixels)
    torch.testing.assert_close(memory.features, said.text_embeds, atol=1e-5, rtol=0)
    scores = said.image_embeds @ said.text_embeds.T
    scores[range(16), range(16)] = -torch.inf  # each training picture's own study
    found = torch.tensor([record["retrieved"] for record in records])
    best = scores.topk(5).values  # PIL rounds otherwise than torch, so that near ties may change places
    torch.testing.assert_close(scores.gather(1, found), best, atol=1e-3, rtol=0)
    assert best.std() > 0.02
    assert ReportMemory.load(memory.path).study_ids == memory.study_ids


def _pixels(path: str) -> torch.Tensor:
    """CLIP's preprocessing by PIL, without rounding to 8 bits: shorter side to SIZE, middle, normalised."""
    grey = Image.open(path).convert("F")
    grey = grey.resize((SIZE, round(grey.height * SIZE / grey.width)), Image.Resampling.BICUBIC)
    top = (grey.height - SIZE) // 2
    array = (np.asarray(grey)[top : top + SIZE] / 255).clip(0, 1)
    channels = [(array - mean) / std for mean, std in zip(*NORMALISATION.values(), strict=True)]
    return torch.from_numpy(np.stack(channels).astype(np.float32))


def test_clip_says_what_is_wrong(records: list[Record], clip_folder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"dim must be the projection_dim .*, {DIM}, got 512"):
        make_memory("-", tmp_path / "m.npz", "clip", 512, clip_folder).ensure(records)
    assert not (tmp_path / "m.npz").exists()
    with pytest.raises(FileNotFoundError, match=r"CLIP folder must hold config\.json"):
        make_backend("clip", str(tmp_path))
    with pytest.raises(ValueError, match="'clip' needs source"):
        make_backend("clip")
    with pytest.raises(ValueError, match=r'backend must be "image_knn".*, got \'knn\''):
        make_backend("knn")


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Six vectors of other people's making; the row of study strain1 comes twice."""
    rng = np.random.default_rng(0)
    studies = np.array(["strain0", "strain1", "strain1", "x1", "x2", "x3"])
    np.savez(tmp_path / "given.npz", features=3 * rng.standard_normal((6, 8)), study_ids=studies)
    return tmp_path / "given.npz"


def test_precomputed_takes_the_rows_of_the_annotation(records: list[Record], given: Path) -> None:
    memory = make_memory("-", given, "precomputed", 8)
    memory.ensure(records)
    torch.testing.assert_close(memory.features.norm(dim=1), torch.ones(6))
    rows = records[:3]
    for record in rows:
        record["retrieved"] = [1, 0, 2, 5]
    for _ in range(2):  # a second time changes nothing
        memory.attach(rows, 4)
        assert [record["retrieved"] for record in rows] == [[1, 2, 5, 1], [0, 5, 0, 5], [1, 0, 2, 5]]
    assert memory.reports == []
    torch.testing.assert_close(memory.gather([5, 0]), memory.features[[5, 0]])
    assert ReportMemory.load(given).dim == 8
    with pytest.raises(ValueError, match="precomputed memory has no encoder for new pictures"):
        memory.nearest(torch.zeros(3, 8, 8), 2)


def test_precomputed_vectors_are_taken_over(records: list[Record], given: Path, tmp_path: Path) -> None:
    memory = make_memory("-", tmp_path / "run" / "memory.npz", "precomputed", 8, str(given))
    memory.ensure(records)
    torch.testing.assert_close(memory.features, ReportMemory.load(given).features)
    given.rename(given.with_name("gone.npz"))  # what a run leaves behind needs nothing else
    later = ReportMemory.load(memory.path)
    records[0]["retrieved"] = [0, 4]
    later.attach(records[:1], 2)
    assert records[0]["retrieved"] == [4, 4]
    with pytest.raises(ValueError, match=r"dim must be the width of the vectors in .*gone\.npz, 8, got 16"):
        make_memory("-", memory.path, "precomputed", 16, str(given.with_name("gone.npz"))).ensure(records)
    assert ReportMemory.load(memory.path).dim == 8


def test_rows_of_a_precomputed_memory_mean_nothing_to_another(records: list[Record], tmp_path: Path) -> None:
    for record in records:
        record["retrieved"] = [0, 270_000]  # PromptMRG's, of all of MIMIC-CXR
    memory = make_memory("-", tmp_path / "memory.npz", dim=16)
    memory.ensure(records)
    check_memory({split: of_split(records, split) for split in ("train", "val", "test")}, memory)
    memory.attach(records, 2)
    assert all(max(record["retrieved"]) < len(memory) for record in records)


def test_precomputed_names_every_record_without_usable_rows(records: list[Record], given: Path) -> None:
    memory = make_memory("-", given, "precomputed", 8)
    records[1]["retrieved"], records[2]["retrieved"] = [1, 2], [0, 6]
    with pytest.raises(ValueError) as caught:
        memory.attach(records[:3], 4)
    message = str(caught.value)
    assert "given.npz" in message
    assert "entry train0, key retrieved: rows of the precomputed memory are required, missing" in message
    assert "entry train1, key retrieved: must name another study, got only rows of strain1" in message
    assert "entry train2, key retrieved: rows must be in 0..5, got [0, 6]" in message


def test_precomputed_is_checked_and_never_overwritten(records: list[Record], given: Path) -> None:
    before = given.read_bytes()
    with pytest.raises(ValueError, match="not made here and is not overwritten"):
        make_memory("-", given, "image_knn", 8).ensure(records)
    with pytest.raises(ValueError, match=r"must be made with \{'dim': 512\}, got one with \{'dim': 8\}"):
        make_memory("-", given, "precomputed", 512).ensure(records)
    assert given.read_bytes() == before
    records[-1]["study_id"] = "x2"
    with pytest.raises(ValueError, match=r"no study of validation or test, got 1: x2 \(test\)"):
        make_memory("-", given, "precomputed", 8).ensure(records)
    with pytest.raises(FileNotFoundError, match="report memory not found"):
        make_memory("-", given.with_name("nothing.npz"), "precomputed", 8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": np.ones((3, 8))}, "key study_ids: required"),
        ({"features": np.ones(8), "study_ids": np.arange(8)}, "key features: required .* 2 axes"),
        ({"features": np.ones((3, 8)), "study_ids": np.arange(2)}, "key study_ids: .* got 2 for 3"),
        ({"features": np.full((3, 8), np.nan), "study_ids": np.arange(3)}, "key features: must be finite"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    path = tmp_path / "broken.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=rf"broken\.npz, {message}"):
        ReportMemory.load(path)
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"is an npz file, got .*broken\.npz"):
        ReportMemory.load(path)
