from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm.errors import LeakError, ProtocolError
from neurofm.finetune.protocols import FewShotConfig, Folds, LosoConfig


def loso(trials, **more):
    (folds,) = LosoConfig(**more).folds(trials)
    return folds


def roles_by_subject(folds, trials):
    table = folds.table.merge(trials.table[["trial_id", "subject"]], on="trial_id")
    rows = table[["fold", "subject", "role"]].drop_duplicates()
    return {(fold, subject): role for fold, subject, role in rows.itertuples(index=False)}


def test_loso_tests_each_subject_once_and_never_trains_on_it(make_trials):
    trials = make_trials()
    roles = roles_by_subject(loso(trials), trials)

    assert len(roles) == 16  # one role a subject and fold
    assert [s for (_, s), role in roles.items() if role == "test"] == ["a", "b", "c", "d"]
    assert all(roles[f"d/{s}", s] == "test" for s in "abcd")
    assert sum(role == "validation" for role in roles.values()) == 4


@given(newcomers=st.sets(st.sampled_from(["n1", "n2", "n3", "n4", "n5"]), min_size=1))
@settings(max_examples=20)
def test_subjects_who_join_move_nobody_but_by_taking_a_place_in_validation(newcomers):
    from_names = LosoConfig(validation_subjects=2)
    old = [f"s{i}" for i in range(7)]
    for tested in old:
        others = [s for s in old if s != tested]
        before = set(sorted(others, key=lambda p: from_names._rank(tested, p))[:2])
        after = set(sorted([*others, *newcomers], key=lambda p: from_names._rank(tested, p))[:2])
        assert after - before <= newcomers  # nobody who was there moves into validation


def test_adding_a_subject_keeps_every_old_test_and_training_role(make_trials):
    small, grown = make_trials("abcdef"), make_trials("abcdefg")
    before = roles_by_subject(loso(small), small)
    after = roles_by_subject(loso(grown), grown)
    moved = {key for key in before if before[key] != after[key]}
    assert all(before[key] == "validation" and after[key] == "train" for key in moved)


def test_few_shot_trains_on_the_first_k_of_each_class(make_trials):
    trials = make_trials("ab", per_class=5)
    one, three = FewShotConfig(k=(1, 3)).folds(trials)

    assert (one.name, three.name) == ("few_shot_k1", "few_shot_k3")
    table = three.table.merge(trials.table, on="trial_id")
    for _, rows in table.groupby(["fold", "label"]):
        train, test = (rows[rows["role"] == role]["onset_s"] for role in ("train", "test"))
        assert (len(train), len(test)) == (3, 2)
        assert train.max() < test.min()
    assert set(table[table["fold"] == "d/a"]["subject"]) == {"a"}


def test_few_shot_within_a_session_has_a_fold_a_session(make_trials):
    trials = make_trials("ab", sessions=("1", "2"))
    (folds,) = FewShotConfig(k=(2,), within="session").folds(trials)
    assert folds.names == ["d/a/1", "d/a/2", "d/b/1", "d/b/2"]


def test_random_few_shot_is_seeded_and_says_so_in_its_name(make_trials):
    trials = make_trials("ab")

    def draw(seed):
        (folds,) = FewShotConfig(k=(2,), order="random", draws=3, seed=seed).folds(trials)
        return folds

    assert draw(0).digest() == draw(0).digest() != draw(1).digest()
    assert draw(0).name == "few_shot_k2_random"
    assert len(draw(0)) == 6
    chosen = draw(0).table[draw(0).table["role"] == "train"].groupby("fold")["trial_id"].agg(set)
    assert len(set(map(frozenset, chosen))) > 2  # draws differ


def test_the_digest_ignores_row_order_and_sees_every_role(make_trials):
    folds = loso(make_trials())
    shuffled = replace(folds, table=folds.table.sample(frac=1, random_state=0))
    assert shuffled.digest() == folds.digest()

    table = folds.table.copy()
    table.loc[5, "role"] = "validation" if table.loc[5, "role"] != "validation" else "train"
    assert replace(folds, table=table).digest() != folds.digest()


def test_a_subject_in_two_roles_is_a_leak(make_trials):
    trials = make_trials()
    folds = loso(trials)
    table = folds.table.copy()
    at = table.index[(table["fold"] == "d/a") & (table["role"] == "train")][0]
    table.loc[at, "role"] = "test"
    with pytest.raises(
        LeakError, match=r"loso, fold 'd/a': subject 'd/\w' is in (train and test|test and train)"
    ):
        replace(folds, table=table).check(trials)


def test_a_trial_in_two_roles_is_a_leak(make_trials):
    trials = make_trials()
    (folds,) = FewShotConfig(k=(2,)).folds(trials)
    first = folds.table[folds.table["role"] == "train"].iloc[[0]].assign(role="test")
    with pytest.raises(LeakError, match="trial 'd_a@0' is in train and test"):
        replace(folds, table=pd.concat([folds.table, first])).check(trials)


@pytest.mark.parametrize("n_times", [101, 250, 1000])
def test_windows_that_share_samples_across_roles_are_a_leak(make_trials, n_times):
    trials = make_trials()
    (folds,) = FewShotConfig(k=(2,)).folds(trials)
    longer = replace(trials, table=trials.table.assign(n_times=n_times))
    with pytest.raises(LeakError, match="shares samples with a window of another role"):
        folds.check(longer)


def test_windows_that_share_samples_within_a_role_are_no_leak(make_trials):
    trials = make_trials()
    loso(trials).check(replace(trials, table=trials.table.assign(n_times=150)))


def test_a_leak_by_a_long_early_window_is_found(make_trials):
    trials = make_trials("a", per_class=3)
    table = trials.table.copy()
    table.loc[0, "n_times"] = 450  # reaches into the fifth window, over four of its own role
    roles = ["train", "train", "train", "train", "test", "test"]
    folds = Folds(
        "planted",
        "trial",
        pd.DataFrame({"fold": "f", "trial_id": table["trial_id"], "role": roles}),
    )
    folds.check(trials)
    with pytest.raises(LeakError, match="d_a@4"):
        folds.check(replace(trials, table=table))


def test_unknown_trials_and_roles_are_refused(make_trials):
    trials = make_trials()
    folds = loso(trials)
    with pytest.raises(ProtocolError, match="trial 'nobody' is not one of the task's"):
        replace(folds, table=folds.table.replace("d_a@0", "nobody")).check(trials)
    with pytest.raises(ProtocolError, match="unknown role 'trian'"):
        replace(folds, table=folds.table.replace("train", "trian")).check(trials)


@pytest.mark.parametrize(("subjects", "validation"), [("a", 0), ("ab", 1), ("abcd", 3)])
def test_fewer_subjects_than_loso_needs_are_refused(make_trials, subjects, validation):
    with pytest.raises(
        ProtocolError, match=f"needs at least {validation + 2} subjects, found {len(subjects)}"
    ):
        loso(make_trials(subjects), validation_subjects=validation)


def test_k_above_what_is_there_is_refused(make_trials):
    with pytest.raises(
        ProtocolError, match=r"fold 'd/a': class 'x' has 6 trial\(s\); k=6 needs at least 7"
    ):
        FewShotConfig(k=(1, 6)).folds(make_trials())


def test_a_class_missing_from_a_fold_names_fold_and_class(make_trials):
    trials = make_trials()
    table = trials.table[~((trials.table["subject"] == "b") & (trials.table["label"] == "y"))]
    with pytest.raises(ProtocolError, match="loso, fold 'd/b': class 'y' has no trial in test"):
        loso(replace(trials, table=table.reset_index(drop=True)))
    two = table[table["subject"].isin(["a", "b"])].reset_index(drop=True)
    with pytest.raises(ProtocolError, match="fold 'd/a': class 'y' has no trial in train"):
        loso(replace(trials, table=two), validation_subjects=0)


def test_folds_print_their_digest_and_counts(make_trials):
    folds = loso(make_trials())
    assert folds.digest() in str(folds)
    assert "validation" in str(folds)
    assert "d/c" in str(folds)
