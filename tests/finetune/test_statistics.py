import numpy as np
import pytest

from neurofm.errors import ProtocolError
from neurofm.finetune.statistics import bootstrap, paired_difference


@pytest.mark.parametrize(("n", "least"), [(5, 0.88), (12, 0.92), (24, 0.92)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(n, least):
    rng = np.random.default_rng(0)
    samples = rng.normal(0.6, 0.1, size=(400, n))
    found = [bootstrap(values, n_draws=1000) for values in samples]
    coverage = np.mean([e.low <= 0.6 <= e.high for e in found])
    assert least <= coverage <= 0.985


def test_the_order_of_subjects_does_not_matter():
    values = np.random.default_rng(1).random(9)
    assert bootstrap(values) == bootstrap(values[::-1])
    other = np.random.default_rng(2).random(9)
    assert paired_difference(values, other) == paired_difference(values[::-1], other[::-1])


def test_one_subject_has_a_mean_and_no_interval():
    estimate = bootstrap(np.array([0.7]))
    assert (estimate.mean, estimate.low, estimate.high, estimate.n_subjects) == (0.7, None, None, 1)


def test_equal_values_have_an_interval_of_no_width():
    estimate = bootstrap(np.full(6, 0.5))
    assert estimate.low == estimate.high == 0.5


@pytest.mark.parametrize("n", [4, 16])
def test_the_smallest_p_value_is_that_of_all_signs_alike(n):
    rng = np.random.default_rng(0)
    ours = rng.random(n)
    difference = paired_difference(ours, ours - 0.1 - 0.01 * rng.random(n))
    expected = 2 / 2**n if n <= 14 else 1 / 10_000
    assert difference.p_value == pytest.approx(expected, abs=2e-4)
    assert difference.estimate.low > 0


def test_p_values_are_uniform_when_nothing_differs():
    rng = np.random.default_rng(3)
    p = [
        paired_difference(rng.normal(size=8), rng.normal(size=8), n_draws=50).p_value
        for _ in range(400)
    ]
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.085


def test_a_model_against_itself_does_not_differ():
    values = np.random.default_rng(0).random(5)
    difference = paired_difference(values, values)
    assert (difference.estimate.mean, difference.p_value) == (0.0, 1.0)


def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(ProtocolError, match="1 of the values are not finite"):
        bootstrap(np.array([0.5, np.nan]))
    with pytest.raises(ProtocolError, match="expected one value a subject"):
        bootstrap(np.empty(0))
    with pytest.raises(ProtocolError, match="tested on different subjects"):
        paired_difference(np.zeros(3), np.zeros(4))
