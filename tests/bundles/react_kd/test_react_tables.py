import re

import numpy as np
import pytest
from medbundles.tables import write_csv
from react_kd import tables

LOGITS = np.array([[2.0, 0.5, -1.0], [0.1, 0.2, 0.3], [-500.0, 0.0, 900.0]])


def rows(**changes):
    options = {"fold": 1, "epoch": 7, "patient_ids": ["a", "a", "b"], "scan_ids": ["a1", "a2", "b, 1"]}
    return tables.prediction_rows(LOGITS, [0, 2, -1], **{**options, **changes})


def test_prediction_file_has_the_published_header_first_and_reads_back_exactly(tmp_path):
    path = write_csv(tmp_path / "probs_fold1_epoch7.csv", rows(condition="ct_1e4"))
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
    path = write_csv(tmp_path / "log.csv", [{"fold": 0, "epoch": 1}])
    with pytest.raises(ValueError, match=re.escape(f"{path} is not a table of predictions")):
        tables.read_predictions(path)
