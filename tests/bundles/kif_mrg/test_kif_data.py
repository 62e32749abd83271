"""Records to batches: what an item holds, what is cached, and that order and augmentation can be repeated."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from kif_mrg.data import ReportDataset, collate, eval_loader, train_loader
from kif_mrg.memory import make_memory
from kif_mrg.records import Record
from kif_mrg.text import ReportTokenizer
from kif_mrg.transforms import eval_transform, train_transform
from kif_studies import REPORTS, make_records, of_split

K, DIM = 3, 16


@pytest.fixture(scope="module")
def tokenizer() -> ReportTokenizer:
    return ReportTokenizer.build(REPORTS)


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    return make_records(tmp_path / "images")


@pytest.fixture
def train_set(records: list[Record], tokenizer: ReportTokenizer, tmp_path: Path) -> ReportDataset:
    memory = make_memory("-", tmp_path / "memory.npz", dim=DIM)
    memory.ensure(records)
    return ReportDataset(of_split(records, "train"), tokenizer, train_transform(32, 36), memory, K)


def test_an_item_holds_a_study(train_set: ReportDataset, tokenizer: ReportTokenizer) -> None:
    item, record, memory = train_set[6], train_set.records[6], train_set.memory
    assert memory is not None
    assert type(item["image"]) is torch.Tensor
    assert item["image"].shape == (3, 32, 32)
    assert item["labels"].dtype == torch.int64
    assert item["labels"].tolist() == record["labels"]
    assert item["tokens"][-1] == tokenizer.sep_id
    assert tokenizer.decode(item["tokens"]) == record["report"] == item["report"]
    assert (item["id"], item["study_id"]) == ("train6", "strain6")
    torch.testing.assert_close(item["memory"], memory.features[record["retrieved"]])
    assert item["retrieved"] == [memory.study_ids[row] for row in record["retrieved"]]
    assert item["study_id"] not in item["retrieved"]


def test_nothing_is_opened_before_use(tokenizer: ReportTokenizer, tmp_path: Path) -> None:
    records = make_records(tmp_path / "images", images=False)
    memory = make_memory("-", tmp_path / "memory.npz", dim=DIM)
    val = ReportDataset(of_split(records, "val"), tokenizer, eval_transform(32, 36), memory, K)
    loader = eval_loader(val, 4)
    make_records(tmp_path / "images")
    memory.ensure(records)
    batch = next(iter(loader))
    assert batch["memory"].shape == (4, K, DIM)


def test_filling_the_cache_reads_every_image_once(
    train_set: ReportDataset, capfd: pytest.CaptureFixture[str]
) -> None:
    train_set.fill_cache("training images")
    assert "training images: 100%" in capfd.readouterr().err
    for record in train_set.records:
        Path(record["image_path"][0]).unlink()
    before = [train_set.images[i]["views"][0].clone() for i in range(16)]
    for _ in range(2):
        assert torch.stack([train_set[i]["image"] for i in range(16)]).isfinite().all()
    for i in range(16):
        torch.testing.assert_close(train_set.images[i]["views"][0], before[i], rtol=0, atol=0)


def test_cached_and_uncached_images_are_equal(train_set: ReportDataset, tokenizer: ReportTokenizer) -> None:
    plain = ReportDataset(train_set.records, tokenizer, train_transform(32, 36), cache="none")
    for dataset in (train_set, plain):
        dataset.fill_cache()
    for _ in range(2):
        torch.manual_seed(3)
        cached = train_set[5]["image"]
        torch.manual_seed(3)
        torch.testing.assert_close(plain[5]["image"], cached)
    assert "memory" not in plain[5]


def test_augmentation_follows_torch_seed(train_set: ReportDataset) -> None:
    torch.manual_seed(1)
    first, second = train_set[0]["image"], train_set[0]["image"]
    torch.manual_seed(1)
    torch.testing.assert_close(train_set[0]["image"], first, rtol=0, atol=0)
    assert not torch.equal(first, second)


def test_validation_takes_no_random_number(records: list[Record], tokenizer: ReportTokenizer) -> None:
    val = ReportDataset(of_split(records, "val"), tokenizer, eval_transform(32, 36))
    state = torch.get_rng_state()
    first = val[1]["image"]
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(val[1]["image"], first, rtol=0, atol=0)


def test_tokens_are_cut_and_padded(records: list[Record], tokenizer: ReportTokenizer) -> None:
    dataset = ReportDataset(of_split(records, "val"), tokenizer, eval_transform(32, 36), max_words=4)
    assert tokenizer.decode(dataset[0]["tokens"]) == "the heart is normal"
    assert dataset[0]["report"] == REPORTS[0]
    whole = ReportDataset(dataset.records, tokenizer, eval_transform(32, 36))
    items = [whole[i] for i in range(4)]
    batch = pickle.loads(pickle.dumps(collate(tokenizer.pad_id)))(items)  # noqa: S301 - as a worker gets it
    longest = max(len(item["tokens"]) for item in items)
    assert batch["tokens"].shape == (4, longest)
    for row, item in zip(batch["tokens"].tolist(), items, strict=True):
        assert row == item["tokens"] + [tokenizer.pad_id] * (longest - len(item["tokens"]))
    assert batch["image"].shape == (4, 3, 32, 32)
    assert batch["labels"].shape == (4, 18)
    assert batch["id"] == ["val0", "val1", "val2", "val3"]


def test_training_order_is_a_function_of_seed_and_epoch(train_set: ReportDataset) -> None:
    def order(seed: int, epoch: int, num_workers: int = 0) -> list[str]:
        loader = train_loader(train_set, 5, seed, num_workers)
        loader.sampler.set_epoch(epoch)
        return [name for batch in loader for name in batch["id"]]

    assert order(0, 1) == order(0, 1, num_workers=1)
    assert len(set(order(0, 1))) == 15  # 16 in batches of 5, the incomplete one is left out
    assert order(0, 1) != order(0, 2) != order(1, 2)
    assert [len(batch["id"]) for batch in train_loader(train_set, 20)] == [16]


def test_evaluation_keeps_the_order(train_set: ReportDataset) -> None:
    batches = [batch["id"] for batch in eval_loader(train_set, 7)]
    assert [len(batch) for batch in batches] == [7, 7, 2]
    assert [name for batch in batches for name in batch] == [record["id"] for record in train_set.records]


def test_shuffled_images_are_of_another_study(records: list[Record], tokenizer: ReportTokenizer) -> None:
    for twin in (3, 5):  # three images of one study
        records[twin]["study_id"] = records[0]["study_id"]
    dataset = ReportDataset(records, tokenizer, eval_transform(32, 36))
    shuffled, again = dataset.with_shuffled_images(), dataset.with_shuffled_images()
    assert sorted(shuffled.image_of) == list(range(len(records)))
    for i, other in enumerate(shuffled.image_of):
        assert records[i]["study_id"] != records[other]["study_id"]
        torch.testing.assert_close(shuffled[i]["image"], dataset[other]["image"])
        torch.testing.assert_close(again[i]["image"], shuffled[i]["image"])
        assert {**shuffled[i], "image": 0, "labels": 0} == {**dataset[i], "image": 0, "labels": 0}
    assert dataset.image_of == list(range(len(records)))
    for record in records[:13]:
        record["study_id"] = "one"
    with pytest.raises(ValueError, match=r"got 13 of 24 in study one"):
        dataset.with_shuffled_images()


def test_bad_arguments_are_named(records: list[Record], tokenizer: ReportTokenizer) -> None:
    with pytest.raises(ValueError, match="at least one record"):
        ReportDataset([], tokenizer, eval_transform(32, 36))
    with pytest.raises(ValueError, match='cache must be "memory" or "none", got \'disk\''):
        ReportDataset(records, tokenizer, eval_transform(32, 36), cache="disk")
