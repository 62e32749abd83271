import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from medbundles import tables


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
