import re

import numpy as np
import pytest
from react_evaluation_runs import run, write_cohort
from react_kd.cases import CLASSES
from react_kd.evaluation import measure
from react_kd.evaluation_conditions import CT, PETCT, EvaluationSplit
from react_kd.evaluation_sections import interval


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDBUNDLES_CACHE", str(folder / "cache"))
        write_cohort(folder)
        yield folder


def origin(error):
    """MONAI wraps what a config raises in RuntimeError."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"ckpt_dir": "/nowhere"}, FileNotFoundError, "monai.bundle run training"),
        ({"network_def#channels": 8}, ValueError, "another architecture"),
        ({"split": "validation"}, ValueError, "split validation of .* must hold a graded case, got 1 cases"),
        ({"split": "holdout"}, ValueError, "split must be one of .*'test'"),
        ({"noise_models": "poisson"}, ValueError, "noise_models must be of .*got 'poisson'"),
        ({"dose_levels": [0]}, ValueError, "dose_levels must be positive"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(place, tmp_path, change, kind, message):
    with pytest.raises(RuntimeError) as caught:
        run(place, output_dir=str(tmp_path / "out"), **change)
    assert isinstance(origin(caught.value), kind)
    assert re.search(message, str(origin(caught.value)))
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_written_is_named(place, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeError) as caught:
        run(place, output_dir=str(tmp_path / "file"))
    assert isinstance(origin(caught.value), OSError)
    assert re.search("output folder must be writable, got .*file", str(origin(caught.value)))


def cohort(labels):
    graded = [
        {"patient_id": f"p{i}", "scan_id": f"s{i}", "label": k, "pet_fdg": "f"} for i, k in enumerate(labels)
    ]
    return EvaluationSplit("c", CLASSES, "test", 0, graded, 0)


def test_logits_that_are_not_finite_are_refused():
    logits = {("student", "ct"): np.array([[0.0, 1, 2], [np.nan, 0, 0], [1, 0, 0]])}
    with pytest.raises(
        ValueError, match=r"student, ct: logits must be finite, got \[nan, 0.0, 0.0\] for case s1"
    ):
        measure(logits, cohort([0, 1, 2]), [CT], n_bootstrap=3)


@pytest.mark.filterwarnings("ignore:AUC is undefined")
def test_an_absent_grade_leaves_a_dash():
    (row,) = measure({("student", "petct"): np.eye(3)}, cohort([0, 1, 1]), [PETCT], n_bootstrap=3)
    assert interval(row, "auc_poor") == interval(row, "auc_macro") == "–"
    assert interval(row, "auc_well").startswith("1.000")
