"""The report memory: what it holds, what it never retrieves, and when it is made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kif_mrg import retrieval
from kif_mrg.images import read_image
from kif_mrg.memory import ReportMemory, make_memory
from kif_mrg.memory_backends import ImageKnn
from kif_mrg.records import Record
from kif_mrg.retrieval import nearest_rows
from kif_mrg.visual import VisualEncoder
from kif_studies import REPORTS, make_records, of_split

K = 3


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    return make_records(tmp_path / "images")


@pytest.fixture
def memory(records: list[Record], tmp_path: Path) -> ReportMemory:
    memory = make_memory("not/read.json", tmp_path / "memory.npz", dim=16)
    memory.ensure(records)
    return memory


def test_nothing_is_read_before_ensure(tmp_path: Path) -> None:
    memory = make_memory("missing.json", tmp_path / "memory.npz")
    with pytest.raises(FileNotFoundError, match=r"memory\.npz is not built yet"):
        _ = memory.features
    with pytest.raises(FileNotFoundError, match=r"missing\.json"):
        memory.ensure()


def test_holds_the_training_reports_and_nothing_else(memory: ReportMemory, records: list[Record]) -> None:
    training = of_split(records, "train")
    assert memory.study_ids == [record["study_id"] for record in training]
    assert memory.reports == [record["report"] for record in training]
    assert memory.features.shape == (16, 16)
    torch.testing.assert_close(memory.features.norm(dim=1), torch.ones(16))
    assert memory.features.dtype == torch.float32
    cosine = memory.features @ memory.features.T
    alike = torch.arange(16)[:, None] % 4 == torch.arange(16) % 4
    assert cosine[alike].min() > 0.999
    assert cosine[~alike].max() < 0.9


def test_similar_pictures_bring_reports_of_their_kind(memory: ReportMemory, records: list[Record]) -> None:
    memory.attach(records, K)
    for record in records:
        assert {memory.reports[row] for row in record["retrieved"]} == {record["report"]}
        assert len(set(record["retrieved"])) == K


def test_a_single_picture_finds_what_attach_finds(memory: ReportMemory, records: list[Record]) -> None:
    memory.attach(records, K)
    for record in records[:2] + records[-2:]:
        found = memory.nearest(read_image(record["image_path"][0]), K, record["study_id"])
        assert found == record["retrieved"]
    own = memory.nearest(read_image(records[5]["image_path"][0]), 1)
    assert own == [5]  # nothing excluded


def test_never_retrieves_the_own_study(tmp_path: Path) -> None:
    records = make_records(tmp_path / "images")
    for twin in (4, 8, 12):  # four views of one study: same report, same picture
        records[twin] |= {"study_id": records[0]["study_id"], "image_path": records[0]["image_path"]}
    memory = make_memory("-", tmp_path / "memory.npz", dim=16)
    memory.ensure(records)
    memory.attach(records, 5)
    for record in records:
        assert record["study_id"] not in {memory.study_ids[row] for row in record["retrieved"]}
    assert {4, 8, 12}.isdisjoint(records[0]["retrieved"])


def test_nearest_rows_is_brute_force_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    keys, queries = rng.standard_normal((40, 6), np.float32), rng.standard_normal((23, 6), np.float32)
    key_studies, studies = [f"s{i % 13}" for i in range(40)], [f"s{i % 17}" for i in range(23)]
    scores = queries @ keys.T
    scores[np.array(studies)[:, None] == np.array(key_studies)] = -np.inf
    expected = np.argsort(-scores, axis=1)[:, :7]
    monkeypatch.setattr(retrieval, "SCORES", 100)  # two queries at a time
    found = nearest_rows(torch.from_numpy(queries), studies, torch.from_numpy(keys), key_studies, 7)
    np.testing.assert_array_equal(found.numpy(), expected)
    with pytest.raises(ValueError, match=r"k must be in 1\.\.36, .* got k=37"):
        nearest_rows(torch.from_numpy(queries), studies, torch.from_numpy(keys), key_studies, 37)


def test_building_twice_gives_the_same_arrays(memory: ReportMemory, records: list[Record]) -> None:
    again = make_memory("-", memory.path.with_name("again.npz"), dim=16)
    again.ensure(records)
    with np.load(memory.path) as first, np.load(again.path) as second:
        assert sorted(first) == sorted(second)
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])


def test_made_again_only_when_something_changed(
    memory: ReportMemory, records: list[Record], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    unchanged = memory.path.stat()
    make_memory("-", memory.path, dim=16).ensure(records)
    assert memory.path.stat() == unchanged
    records[0]["report"] = REPORTS[2]
    changed = make_memory("-", memory.path, dim=16)
    changed.ensure(records)
    assert changed.reports[0] == REPORTS[2]
    assert "changed: entries" in caplog.text
    with pytest.raises(ValueError, match=r"must be made with .*'dim': 8.* got one with .*'dim': 16"):
        _ = make_memory("-", memory.path, dim=8).features
    wider = make_memory("-", memory.path, dim=8, seed=1)
    wider.ensure(records)
    assert wider.features.shape == (16, 8)
    assert "changed: dim, entries" not in caplog.text
    assert "changed: dim, seed" in caplog.text


def test_a_failing_build_leaves_the_old_file(memory: ReportMemory, records: list[Record]) -> None:
    before = memory.path.read_bytes()
    Path(records[0]["image_path"][0]).write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"train0\.png: must be an image"):
        make_memory("-", memory.path, dim=16).ensure(records)
    assert memory.path.read_bytes() == before
    assert [path.name for path in memory.path.parent.glob("*memory*")] == ["memory.npz"]


def test_reads_the_annotation_itself(records: list[Record], tmp_path: Path) -> None:
    splits = {split: of_split(records, split) for split in ("train", "val", "test")}
    memory = make_memory(splits, tmp_path / "memory.npz", dim=16)
    memory.ensure()
    assert len(memory) == 16
    with pytest.raises(ValueError, match="needs training records, got none"):
        memory.ensure(splits["test"])


def test_refuses_a_study_that_is_also_held_out(records: list[Record], tmp_path: Path) -> None:
    records[-1]["study_id"] = records[3]["study_id"]
    memory = make_memory("-", tmp_path / "memory.npz", dim=16)
    with pytest.raises(ValueError, match=r"memory\.npz, key study_ids: .* got 1: strain3 \(test\)"):
        memory.ensure(records)


def test_a_loaded_memory_is_checked_and_not_built(memory: ReportMemory, records: list[Record]) -> None:
    loaded, before = ReportMemory.load(memory.path), memory.path.stat()
    held_out = make_records(memory.path.parent / "elsewhere", train=0)
    loaded.ensure(held_out)
    loaded.attach(held_out, K)
    assert {loaded.reports[row] for row in held_out[1]["retrieved"]} == {REPORTS[1]}
    assert memory.path.stat() == before
    held_out[0]["study_id"] = records[0]["study_id"]
    with pytest.raises(ValueError, match=r"got 1: strain0 \(val\)"):
        loaded.ensure(held_out)


def test_found_rows_are_kept_on_disk(
    memory: ReportMemory, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.attach(records, K)
    expected = [record.pop("retrieved") for record in records]

    def refuse(*_: object) -> None:
        raise AssertionError("pictures are read again")

    monkeypatch.setattr(ImageKnn, "pictures", refuse)
    later = ReportMemory.load(memory.path)
    later.attach(records, K)
    assert [record["retrieved"] for record in records] == expected
    later.attach(records, K - 1)
    assert [record["retrieved"] for record in records] == [rows[: K - 1] for rows in expected]
    with pytest.raises(AssertionError, match="read again"):
        later.attach(records, K + 1)


def test_frozen_encoder_with_given_weights(records: list[Record], tmp_path: Path) -> None:
    weights = tmp_path / "encoder.pt"
    torch.save(VisualEncoder("small").state_dict(), weights)
    memory = make_memory("-", tmp_path / "m.npz", dim=16, source=str(weights), encoder="small")
    memory.ensure(records)
    memory.attach(records, 1)
    assert memory.nearest(read_image(records[6]["image_path"][0]), 1) == [6]
    (tmp_path / "other").mkdir()
    moved = weights.rename(tmp_path / "other" / weights.name)
    with pytest.raises(FileNotFoundError, match=r"encoder weights not found: .*encoder\.pt"):
        ReportMemory.load(memory.path)
    query = read_image(records[-1]["image_path"][0])
    assert ReportMemory.load(memory.path, source=str(moved)).nearest(query, 4) == memory.nearest(query, 4)
