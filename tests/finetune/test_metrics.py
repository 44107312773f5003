import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from neurofm.errors import ProtocolError
from neurofm.finetune.metrics import balanced_accuracy, score


def one_hot(predicted, n_classes):
    return np.eye(n_classes)[predicted]


def test_metrics_by_hand():
    # truth: 4 of class 0 (3 found), 2 of class 1 (1 found)
    y = np.array([0, 0, 0, 0, 1, 1])
    p1 = np.array([0.1, 0.2, 0.3, 0.8, 0.9, 0.4])
    values = score(y, np.stack([1 - p1, p1], axis=1)).values

    assert values["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    # observed agreement 4/6; by chance (4 * 4 + 2 * 2) / 36
    assert values["kappa"] == pytest.approx((4 / 6 - 20 / 36) / (1 - 20 / 36))
    assert values["weighted_f1"] == pytest.approx(4 / 6 * (6 / 8) + 2 / 6 * (2 / 4))
    assert values["auroc"] == pytest.approx(7 / 8)  # of 8 pairs, one is the wrong way round


def test_auroc_of_several_classes_is_the_mean_against_the_rest():
    y = np.array([0, 1, 2, 2])
    p = np.array([[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.1, 0.6, 0.3]])
    # 0 against the rest: all 3 pairs; 1: 0.3 over .1 and .2 but not .6 -> 2/3; 2: all 4
    assert score(y, p).values["auroc"] == pytest.approx((1 + 2 / 3 + 1) / 3)


def test_balanced_accuracy_agrees_with_sklearn():
    rng = np.random.default_rng(0)
    y, predicted = rng.integers(3, size=(2, 50))
    assert balanced_accuracy(y, predicted) == pytest.approx(balanced_accuracy_score(y, predicted))


def test_a_class_predicted_but_not_present_is_a_miss():
    assert balanced_accuracy(np.array([0, 0, 1]), np.array([2, 0, 1])) == pytest.approx(0.75)


def test_what_is_not_defined_is_missing_with_a_reason():
    scores = score(np.zeros(4, int), one_hot([0, 0, 0, 0], 2))
    assert "needs every class in the test part, found 1 of 2" in scores.missing["auroc"]
    assert "0/0" in scores.missing["kappa"]
    assert set(scores.values) == {"balanced_accuracy", "weighted_f1"}
    assert np.isfinite(list(scores.values.values())).all()


def test_nothing_to_score_and_broken_probabilities_are_refused():
    with pytest.raises(ProtocolError, match="the test part is empty"):
        score(np.empty(0, int), np.empty((0, 2)))
    with pytest.raises(ProtocolError, match="not all finite"):
        score(np.array([0, 1]), np.array([[np.nan, 1.0], [0.0, 1.0]]))
