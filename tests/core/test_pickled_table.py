"""A pickled table is read like pandas reads it, and nothing else in a pickle is run."""

from __future__ import annotations

import csv
import os
import pickle
from pathlib import Path

import pytest
from medbundles.pickled_table import pickled_table_to_csv, read_pickled_table


def _frame():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(
        {
            "pid": [3, 4, 5],
            "age": [50.5, float("nan"), 61.0],
            "grade": pandas.Categorical(["well", None, "poor"]),
            "code": pandas.Categorical(pandas.array([1, 2, 1], dtype="Int32")),
            "time": [7, 8, 9],
        }
    )


def test_columns_equal_those_of_pandas(tmp_path: Path) -> None:
    frame = _frame()
    frame.to_pickle(tmp_path / "t.pickle")
    table = read_pickled_table(tmp_path / "t.pickle")
    assert list(table) == list(frame.columns)
    for name in frame.columns:
        assert table[name] == [None if value != value else value for value in frame[name].tolist()], name


def test_csv_holds_the_same_rows(tmp_path: Path) -> None:
    _frame().to_pickle(tmp_path / "t.pickle")
    pickled_table_to_csv(tmp_path / "t.pickle", tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[1] == {"pid": "4", "age": "", "grade": "", "code": "2", "time": "8"}


class _Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "t.pickle"
    path.write_bytes(pickle.dumps(_Payload(tmp_path / "ran")))
    with pytest.raises(ValueError, match="mkdir"):
        read_pickled_table(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps({"a": 1})])
def test_anything_but_a_table_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.pickle"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.pickle must be a pickled pandas table"):
        read_pickled_table(path)
