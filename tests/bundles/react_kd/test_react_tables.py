import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from react_kd import tables

LOGITS = np.array([[2.0, 0.5, -1.0], [0.1, 0.2, 0.3], [-500.0, 0.0, 900.0]])


def rows(**changes):
    options = {"fold": 1, "epoch": 7, "patient_ids": ["a", "a", "b"], "scan_ids": ["a1", "a2", "b, 1"]}
    return tables.prediction_rows(LOGITS, [0, 2, -1], **{**options, **changes})


def test_prediction_file_has_the_published_header_first_and_reads_back_exactly(tmp_path):
    path = tables.write_csv(tmp_path / "probs_fold1_epoch7.csv", rows(condition="ct_1e4"))
    header = path.read_text().splitlines()[0]
    assert header == (
        "prob_0,prob_1,prob_2,label,pred,fold,epoch,logit_0,logit_1,logit_2,patient_id,scan_id,condition"
    )
    back = tables.read_predictions(path)
    np.testing.assert_array_equal(back["logits"], LOGITS)
    np.testing.assert_allclose(back["probs"].sum(axis=1), 1)
    np.testing.assert_allclose(back["probs"][1], np.exp(LOGITS[1]) / np.exp(LOGITS[1]).sum())
    assert back["label"].tolist() == [0, 2, -1]
    assert back["pred"].tolist() == [0, 2, 2]
    assert back["scan_id"] == ["a1", "a2", "b, 1"]
    assert set(back["condition"]) == {"ct_1e4"}


def test_prediction_rows_need_one_entry_per_case():
    with pytest.raises(ValueError, match="patient_ids"):
        rows(patient_ids=["a", "b"])


def test_a_table_of_something_else_is_named(tmp_path):
    path = tables.write_csv(tmp_path / "log.csv", [{"fold": 0, "epoch": 1}])
    with pytest.raises(ValueError, match=re.escape(f"{path} is not a table of predictions")):
        tables.read_predictions(path)


def test_rows_are_appended_and_missing_values_stay_empty(tmp_path):
    path = tmp_path / "log.csv"
    tables.write_csv(path, [{"epoch": 1, "auc": float("nan")}], append=True)
    tables.write_csv(path, [{"epoch": 2, "auc": 0.5}], append=True)
    assert path.read_text() == "epoch,auc\n1,\n2,0.5\n"
    tables.write_csv(path, [{"epoch": 3, "auc": None}])
    assert path.read_text() == "epoch,auc\n3,\n"


def test_rows_of_other_columns_are_refused_and_the_table_stays(tmp_path):
    path = tables.write_csv(tmp_path / "log.csv", [{"epoch": 1, "loss": 2}])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="must have the columns"):
        tables.write_csv(path, [{"epoch": 2, "auc": 2}], append=True)
    assert path.read_bytes() == before


def test_json_is_strict_and_holds_arrays_and_paths(tmp_path):
    content = {
        "auc": np.float32(0.5),
        "n": np.int64(3),
        "nan": [float("nan"), np.nan, np.inf],
        "curve": np.array([[1.0, np.nan]]),
        "path": Path("a/b"),
        1: (True, None, "x"),
    }
    text = tables.write_json(tmp_path / "deep" / "r.json", content).read_text()

    def reject(name):
        raise AssertionError(name)

    assert json.loads(text, parse_constant=reject) == {
        "auc": 0.5, "n": 3, "nan": [None, None, None], "curve": [[1.0, None]], "path": str(Path("a/b")),
        "1": [True, None, "x"],
    }  # fmt: skip


def test_a_failed_write_keeps_the_old_json(tmp_path, monkeypatch):
    path = tables.write_json(tmp_path / "r.json", {"a": 1})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        tables.write_json(path, {"a": object()})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=re.escape(f"cannot write {path}: No space left")):
        tables.write_json(path, {"a": 2})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["r.json"]


def test_markdown_table_aligns_numbers_and_escapes_bars():
    table = tables.markdown_table(
        [{"method": "a|b\nc", "auc": 0.81251, "n": 3}, {"method": "d", "auc": None}]
    )
    assert table.splitlines() == [
        "| method | auc | n |",
        "| --- | ---: | ---: |",
        r"| a\|b c | 0.813 | 3 |",
        "| d | – | – |",
    ]
