import numpy as np
import pytest
from medbundles.resampling import bootstrap_weights, paired_difference, percentile_interval
from scipy import stats


def test_bootstrap_draws_whole_patients_and_is_fixed_by_its_seed():
    patients = ["a", "b", "a", "c", "b", "a"]
    weights = bootstrap_weights(patients, 200, seed=1)
    np.testing.assert_array_equal(weights, bootstrap_weights(patients, 200, seed=1))
    assert not np.array_equal(weights, bootstrap_weights(patients, 200, seed=2))
    for name in "abc":
        columns = weights[:, [i for i, p in enumerate(patients) if p == name]]
        assert (columns == columns[:, :1]).all()
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)


def test_replicates_without_a_value_are_left_out_of_the_interval():
    low, high = percentile_interval([[1.0, np.nan], [np.nan, np.nan], [3.0, np.nan]], confidence=0.5)
    np.testing.assert_allclose([low[0], high[0]], [1.5, 2.5])
    assert np.isnan([low[1], high[1]]).all()


def test_paired_difference_equals_scipy_and_keeps_the_pairs():
    rng = np.random.default_rng(0)
    level = rng.normal(size=12)  # differs from run to run far more than the methods do
    a, b = level + 0.05 + 0.01 * rng.normal(size=12), level
    result = paired_difference(a, b)
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert result["mean"] == pytest.approx(np.mean(a - b))
    np.testing.assert_allclose([result["t_low"], result["t_high"]], interval)
    theirs = stats.bootstrap((a - b,), np.mean, method="percentile", random_state=np.random.default_rng(1))
    ours = [result["bootstrap_low"], result["bootstrap_high"]]
    np.testing.assert_allclose(ours, theirs.confidence_interval, atol=5e-4)
    assert paired_difference(b, a)["t_low"] == pytest.approx(-result["t_high"])


def test_paired_difference_drops_undefined_runs_and_has_no_interval_for_one():
    result = paired_difference([0.8, np.nan, 0.7], [0.7, 0.6, np.nan])
    assert (result["n"], result["dropped"]) == (1, 2)
    assert result["mean"] == pytest.approx(0.1)
    assert np.isnan([result["t_low"], result["bootstrap_high"]]).all()
    with pytest.raises(ValueError, match="same runs"):
        paired_difference([1, 2], [1, 2, 3])
