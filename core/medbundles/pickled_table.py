"""Read a pickled pandas table without pandas and without running any code it names.

Only the classes below may occur. Those of pandas are replaced by stand-ins that keep what they were given;
numpy arrays, of which a pickle can hold nothing but data, are rebuilt as arrays.
"""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import numpy as np

_PANDAS = {
    ("pandas.core.frame", "DataFrame"),
    ("pandas.core.internals.managers", "BlockManager"),
    ("pandas._libs.internals", "_unpickle_block"),
    ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"),
    ("pandas.core.arrays.categorical", "Categorical"),
    ("pandas.core.dtypes.dtypes", "CategoricalDtype"),
    ("pandas.core.arrays.integer", "IntegerArray"),
    ("pandas.core.arrays.integer", "Int32Dtype"),
    ("pandas.core.arrays.integer", "Int64Dtype"),
    ("pandas.core.indexes.base", "Index"),
    ("pandas.core.indexes.base", "_new_Index"),
    ("pandas.core.indexes.range", "RangeIndex"),
}


class _Record:
    """Stand-in for a pandas object: its constructor arguments and its pickled state."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    return np.frombuffer(buffer, dtype).reshape(shape, order="F" if order == "F" else "C")


_NUMPY: dict[str, Any] = {
    "_reconstruct": np.empty(0).__reduce__()[0],  # type: ignore[index]
    "_frombuffer": _from_buffer,
    "dtype": np.dtype,
    "ndarray": np.ndarray,
}


class _TableUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PANDAS:
            return type(name, (_Record,), {"__module__": module})
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") and name in _NUMPY:
            return _NUMPY[name]
        if (module, name) in {("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer")}:
            return _NUMPY[name]
        if (module, name) == ("builtins", "slice"):
            return slice
        raise pickle.UnpicklingError(
            f"a pickled table must hold pandas and numpy data only, names {module}.{name}"
        )


def read_pickled_table(path: Path) -> dict[str, list]:
    """Return the columns of a pickled DataFrame (pandas 2 layout) as lists; missing values are None.

    Raises ValueError naming the file when it holds anything but such a table.
    """
    try:
        with path.open("rb") as stream:
            frame = _TableUnpickler(stream).load()
        blocks, axes = frame.state["_mgr"].args
        names = [str(name) for name in _values(axes[0])]
        columns: dict[str, list] = {}
        for block in blocks:
            values, placement, _ = block.args
            rows = values if isinstance(values, np.ndarray) else [_values(values)]
            for index, row in zip(range(*placement.indices(len(names))), rows, strict=True):
                columns[names[index]] = [_cell(value) for value in row]
        return {name: columns[name] for name in names}
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        IndexError,
    ) as error:
        raise ValueError(f"{path} must be a pickled pandas table: {error}") from error


def pickled_table_to_csv(source: Path, destination: Path) -> None:
    """Write the table of `source` as CSV with a header; missing values are empty."""
    columns = read_pickled_table(source)
    with destination.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _values(item: Any) -> list:
    """Plain values of an array, an index, a masked integer array or a categorical."""
    if isinstance(item, np.ndarray):
        return item.tolist()
    kind = type(item).__name__
    if kind == "_new_Index":
        return _values(item.args[1]["data"])
    if kind == "IntegerArray":
        pairs = zip(item.state["_data"].tolist(), item.state["_mask"].tolist(), strict=True)
        return [None if masked else value for value, masked in pairs]
    if kind == "__pyx_unpickle_NDArrayBacked" and item.args[0].__name__ == "Categorical":
        dtype, codes = item.state[:2]
        categories = _values(dtype.state["categories"])
        return [None if code < 0 else categories[code] for code in codes.reshape(-1).tolist()]
    raise ValueError(f"no reader for a column of type {kind}")


def _cell(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value
