"""Our metadata schema refuses what MONAI's schema of 2024-07-25 refuses, and more."""

import json

import pytest
from medbundles.contract.metadata import schema_problems
from medbundles.scaffold import TEMPLATE

METADATA = json.loads((TEMPLATE / "configs" / "metadata.json").read_text())
TENSOR = METADATA["network_data_format"]["inputs"]["image"]


@pytest.mark.parametrize("key", ["schema", "name", "version", "changelog", "authors", "network_data_format"])
def test_the_schema_requires(key):
    assert schema_problems({k: v for k, v in METADATA.items() if k != key})


REQUIRED = ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"]
WRONG_TENSORS = [{k: v for k, v in TENSOR.items() if k != key} for key in REQUIRED] + [
    TENSOR | change
    for change in (
        {"num_channels": "3"},
        {"num_channels": 0},
        {"spatial_shape": [1.5]},
        {"spatial_shape": ["import os"]},
        {"dtype": "float31"},
        {"value_range": ["0", "1"]},
        {"channel_def": {"zero": "image"}},
    )
]


@pytest.mark.parametrize("tensor", WRONG_TENSORS)
def test_the_schema_refuses_the_tensor(tensor):
    network = {"inputs": {"image": tensor}, "outputs": METADATA["network_data_format"]["outputs"]}
    assert schema_problems(METADATA | {"network_data_format": network})
    assert schema_problems(METADATA | {"teacher_data_format": network})


@pytest.mark.parametrize(
    "change",
    [{"supported_apps": ["monai-label"]}, {"references": [1]}, {"version": "one"}, {"changelog": {}},
     {"required_packages_version": {"torch": "2"}}, {"task": ""}, {"schema": "meta_schema.json"}],
)  # fmt: skip
def test_the_schema_refuses_the_entry(change):
    assert schema_problems(METADATA) == []
    assert len(schema_problems(METADATA | change)) == 1
