"""Datasets, caches and loaders: one reconstruction per scan, a cache that follows the content of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from medbundles.resampling import other_group
from rect_tiny_ctrate import GEOMETRY, REPORT, tiny_ctrate
from rect_vlm import case_steps
from rect_vlm.cache_building import build_cache
from rect_vlm.ctrate import read_ctrate
from rect_vlm.data import CtDataset, eval_loader, train_loader
from rect_vlm.findings import FINDINGS, LESIONS
from rect_vlm.geometry import GEOMETRIES, Geometry
from rect_vlm.records import Record
from rect_vlm.sampling import ScanSampler
from rect_vlm.transforms import eval_transform, train_transform
from rect_vlm.volume_cache import VolumeCache


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_ctrate(tmp_path_factory.mktemp("ctrate"))


@pytest.fixture
def records(root: Path) -> list[Record]:
    return read_ctrate(root)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The volumes that have been read, as they are read."""
    names: list[str] = []
    real = case_steps.read_volume

    def counted(source: str, **options: object) -> object:
        names.append(Path(source).name)
        return real(source, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(case_steps, "read_volume", counted)
    return names


def test_a_batch_has_every_key(records: list[Record]) -> None:
    dataset = CtDataset(records, train_transform(GEOMETRY), evidence=lambda item: [f"[FINDING] {item['id']}"])
    loader = train_loader(dataset, batch_size=2)
    batch = next(iter(loader))
    size = GEOMETRY.img_size
    shapes = {key: tuple(value.shape) for key, value in batch.items() if isinstance(value, torch.Tensor)}
    assert shapes == {
        "image": (2, 1, *size), "regions": (2, 1, *size), "masks": (2, 5, *size), "labels": (2, 18),
        "regions_known": (2,), "mask_known": (2, 5), "affine": (2, 4, 4), "source_affine": (2, 4, 4),
        "source_shape": (2, 3),
    }  # fmt: skip
    types = [batch[key].dtype for key in ("image", "regions", "masks", "labels", "mask_known")]
    assert types == [torch.float32, torch.uint8, torch.uint8, torch.float32, torch.bool]
    assert batch["report"][0] == f"FINDINGS:\n{REPORT[0]}\n\nIMPRESSION:\n{REPORT[1]}"
    assert batch["evidence"] == [[f"[FINDING] {name}"] for name in batch["id"]]
    assert all(name.startswith(scan) for name, scan in zip(batch["id"], batch["scan"], strict=True))


def test_unknown_labels_and_reports_have_their_values(records: list[Record]) -> None:
    bare: Record = {**records[0], "labels": None, "report": ""}
    item = CtDataset([bare], eval_transform(GEOMETRY))[0]
    assert (item["labels"] == -1).all()
    assert item["report"] == ""
    with pytest.raises(ValueError, match="at least one record"):
        CtDataset([], eval_transform(GEOMETRY))
    with pytest.raises(ValueError, match="cache must be one of none, memory, persistent, got 'disk'"):
        CtDataset(records, eval_transform(GEOMETRY), cache="disk")


def test_evaluation_keeps_the_affine_of_every_volume(records: list[Record]) -> None:
    batch = next(iter(eval_loader(CtDataset(records[:2], eval_transform(GEOMETRY)), batch_size=2)))
    assert batch["id"] == ["train_1_a_1", "train_1_a_2"]
    torch.testing.assert_close(batch["image"].affine[0].double(), batch["affine"][0])


def test_one_reconstruction_of_every_scan_per_epoch() -> None:
    scans = ["a", "a", "b", "c", "c", "c", "d", "e", "e"]
    sampler = ScanSampler(scans, seed=3)
    drawn = set()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        chosen = list(sampler)
        assert sorted(scans[i] for i in chosen) == ["a", "b", "c", "d", "e"]
        assert chosen == list(sampler)
        drawn |= set(chosen)
    assert drawn == set(range(9))
    parts = [ScanSampler(scans, 3, replicas=2, rank=rank) for rank in (0, 1)]
    assert [len(list(part)) for part in parts] == [3, 3]
    assert {scans[i] for part in parts for i in part} == set("abcde")


def test_training_follows_torch_s_generator(records: list[Record]) -> None:
    dataset = CtDataset(records, train_transform(GEOMETRY), cache="memory")
    images = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        images.append(dataset[0]["image"])
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


@pytest.mark.parametrize("cache", ["memory", "persistent"])
def test_a_cached_volume_is_read_once_and_stays_as_it_is(
    records: list[Record], opened: list[str], tmp_path: Path, cache: str
) -> None:
    plain = CtDataset(records[:2], train_transform(GEOMETRY, augment=False))
    wanted = [plain[i] for i in range(2)]
    opened.clear()
    dataset = CtDataset(records[:2], train_transform(GEOMETRY), cache, tmp_path)
    dataset.fill_cache()
    _ = [dataset[i] for i in (0, 1, 0, 1)]
    assert sorted(opened) == ["train_1_a_1.nii.gz", "train_1_a_2.nii.gz"]
    calm = CtDataset(records[:2], train_transform(GEOMETRY, augment=False), cache, tmp_path)
    for i in range(2):
        for key in ("image", "regions", "masks", "mask_known", "affine", "source_shape"):
            torch.testing.assert_close(calm[i][key], wanted[i][key])
    assert len(opened) == (2 if cache == "persistent" else 4)


def test_the_cache_follows_files_and_settings_but_not_labels(
    records: list[Record], opened: list[str], tmp_path: Path
) -> None:
    def read(record: Record, geometry: Geometry = GEOMETRY) -> bool:
        opened.clear()
        CtDataset([record], train_transform(geometry), "persistent", tmp_path)[0]
        return bool(opened)

    record = records[0]
    assert [read(record), read(record)] == [True, False]
    assert not read({**record, "labels": None, "report": "other"})
    assert read({**record, "lesion_masks": {}})
    assert read(record, Geometry((16, 40, 40), (16.0, 8.0, 8.0), (4, 8, 8)))
    for path in (record["image"], record["lesion_masks"]["lung_nodule"], record["regions"] or ""):
        facts = os.stat(path)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1_000_000_000))
        assert [read(record), read(record)] == [True, False]


def test_damaged_cache_files_are_made_again_and_no_part_is_left(
    records: list[Record], opened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = CtDataset(records[:1], train_transform(GEOMETRY, augment=False), "persistent", tmp_path)
    wanted = dataset[0]["image"]
    assert isinstance(dataset.volumes, VolumeCache)
    file = dataset.volumes.file_of(0)
    for content in (b"", b"damaged", file.read_bytes()[:1000]):
        file.write_bytes(content)
        opened.clear()
        assert torch.equal(dataset[0]["image"], wanted)
        assert len(opened) == 1
    file.unlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        dataset[0]
    assert list(tmp_path.iterdir()) == []


def test_shuffled_images_are_of_other_patients(records: list[Record]) -> None:
    dataset = CtDataset(records, eval_transform(GEOMETRY, keep_meta=False), cache="memory")
    shuffled = dataset.with_shuffled_images(seed=1)
    for i in range(len(records)):
        assert records[shuffled.volume_of[i]]["patient"] != records[i]["patient"]
        assert shuffled[i]["id"] == records[i]["id"]
        assert torch.equal(shuffled[i]["image"], dataset[shuffled.volume_of[i]]["image"])
    with pytest.raises(ValueError, match="got 2 of 3 of patient a"):
        other_group(["a", "a", "b"], where="of patient")


def test_the_cache_can_be_built_ahead(root: Path, tmp_path: Path, cache: Path, opened: list[str]) -> None:
    build_cache(str(root), "cpu", "valid", cache_dir=str(tmp_path / "volumes"), read_voxels=0)
    assert len(opened) == 1
    records = read_ctrate(root, "valid")
    transform = train_transform(GEOMETRIES["cpu"])
    item = CtDataset(records, transform, "persistent", tmp_path / "volumes")[0]
    assert len(opened) == 1
    assert item["mask_known"].tolist() == [lesion == "lung_nodule" for lesion in LESIONS]
    assert item["labels"][FINDINGS.index("Lung nodule")] == 1
    with pytest.raises(ValueError, match="geometry must be one of ctrate, seed, cpu, got 'large'"):
        build_cache(str(root), "large")
