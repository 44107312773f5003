import pytest

from neurofm.config import parse_config
from neurofm.errors import ConfigError, ProtocolError
from neurofm.finetune.cohort import Cohort
from neurofm.finetune.tasks import TaskConfig
from neurofm.finetune.trials import find_trials
from neurofm.signals import Event

RULES = [{"event": "slow", "label": "slow"}, {"event": "fast", "label": "fast"}]


def task_of(rules=RULES, classes=("slow", "fast"), **more):
    values = {"name": "rhythm", "classes": list(classes), "trials": rules, **more}
    return parse_config(TaskConfig, values, where="test")


def found_in(store, task):
    return find_trials(Cohort([str(store)]), task, sfreq=64.0, window_s=1.0)


def test_every_event_becomes_one_window_of_its_class(tiny_store):
    trials = found_in(tiny_store, task_of())

    assert trials.counts().to_numpy().tolist() == [[6, 6]] * 4
    first = trials.table.iloc[0]
    assert (first["label"], first["start"], first["n_times"]) == ("fast", 64, 64)
    assert trials.classes[trials.y[0]] == "fast"


def test_the_window_starts_after_the_event_by_offset_and_start(tiny_store):
    rules = [{**RULES[0], "offset_s": 0.25}, RULES[1]]
    table = found_in(tiny_store, task_of(rules, start_s=0.5, window_s=0.5)).table

    slow = table[table["label"] == "slow"].iloc[0]
    assert (slow["start"], slow["n_times"], slow["onset_s"]) == (64 * 3.75, 32, 3.25)


def test_the_same_event_means_what_its_run_says(tiny_store):
    rules = [
        {"event": "slow", "run": "1", "label": "slow"},
        {"event": ["slow"], "run": ["2"], "label": "fast"},
    ]
    table = found_in(tiny_store, task_of(rules)).table
    assert set(zip(table["run"], table["label"], strict=True)) == {("1", "slow"), ("2", "fast")}


def test_a_window_claimed_by_two_rules_is_refused(tiny_store):
    rules = [*RULES, {"event": "slow", "run": "2", "label": "fast"}]
    with pytest.raises(
        ProtocolError, match="claimed by more than one rule.*'fast' and 'slow'|'slow' and 'fast'"
    ):
        found_in(tiny_store, task_of(rules))


def test_tiles_cover_a_recording_without_overlap(tiny_store):
    rules = [
        {"tile": True, "run": "1", "label": "slow"},
        {"tile": True, "run": "2", "label": "fast"},
    ]
    table = found_in(tiny_store, task_of(rules, window_s=2.0)).table
    one = table[table["recording_id"] == table["recording_id"].iloc[0]]
    assert one["start"].tolist() == [128 * i for i in range(7)]  # 14 s


def test_windows_on_bad_spans_and_past_the_end_are_dropped_and_counted(make_store):
    store = make_store(("01", "1", {"bad": ((1.5, 0.2),)}), ("02", "1", {}))
    trials = found_in(store, task_of(window_s=3.25))

    reasons = trials.dropped.groupby("reason").size().to_dict()
    assert reasons == {
        "the window runs beyond the recording": 2,
        "the window touches a BAD span": 1,
    }
    assert len(trials) == 12 - 3
    bad = trials.dropped[trials.dropped["reason"].str.contains("BAD")]
    assert bad["recording_id"].tolist() == ["tiny_sub-01_task-rhythm_run-1"]


def test_an_unknown_event_names_the_nearest_and_what_was_found(tiny_store):
    with pytest.raises(
        ProtocolError,
        match=r"(?s)no event is called 'slwo'; found: 'fast', 'slow'.*did you mean 'slow'",
    ):
        found_in(tiny_store, task_of([{"event": "slwo", "label": "slow"}, RULES[1]]))


def test_an_unknown_run_names_what_was_found(tiny_store):
    with pytest.raises(
        ProtocolError, match="wants run '01', which the store does not have; found: '1', '2'"
    ):
        found_in(tiny_store, task_of([{**RULES[0], "run": "01"}, RULES[1]]))


def test_rules_that_match_no_recording_together_are_refused(make_store):
    store = make_store(("01", "1", {}), ("02", "2", {}))
    with pytest.raises(ProtocolError, match="matches no recording"):
        found_in(store, task_of([{**RULES[0], "subject": "01", "run": "2"}, RULES[1]]))


def test_a_class_without_a_trial_says_why(make_store):
    store = make_store(("01", "1", {"n_trials": 2}), ("02", "1", {"n_trials": 2}))
    with pytest.raises(
        ProtocolError, match=r"class 'slow' has no trial \(2 dropped: the window runs"
    ):
        found_in(store, task_of(window_s=3.5))


def test_excluding_everybody_is_refused(tiny_store):
    with pytest.raises(ProtocolError, match="no subject left"):
        found_in(tiny_store, task_of(exclude_subjects=["01", "02", "03", "04"]))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [{"event": "slow", "label": "slwo"}, RULES[1]],
            "label 'slwo' is none.*did you mean 'slow'",
        ),
        ([RULES[0]], "class 'fast' has no rule"),
        ([{"label": "slow"}, RULES[1]], "needs either `event: NAME` or `tile: true`"),
        ([{**RULES[0], "tile": True}, RULES[1]], "needs either `event: NAME` or `tile: true`"),
        ([{**RULES[0], "run": 5}, RULES[1]], r"task|run.*found 5"),
    ],
)
def test_rules_are_checked_where_they_are_written(rules, message):
    with pytest.raises(ConfigError, match=message):
        task_of(rules)


def test_classes_may_not_repeat():
    with pytest.raises(ConfigError, match="classes occur twice"):
        task_of(classes=("slow", "fast", "fast"))


def test_the_digest_knows_windows_and_labels(tiny_store):
    swapped = [{"event": "slow", "label": "fast"}, {"event": "fast", "label": "slow"}]
    digests = {
        found_in(tiny_store, task).digest()
        for task in (task_of(), task_of(swapped), task_of(window_s=0.5), task_of(start_s=0.25))
    }
    assert len(digests) == 4
    assert found_in(tiny_store, task_of()).digest() == found_in(tiny_store, task_of()).digest()


def test_a_rule_finds_events_by_the_label_a_map_gave_them(tiny_store):
    labels = ("left fist", "both fists")

    class Labelled:
        index = Cohort([str(tiny_store)]).index

        def events(self, recording_id):
            return tuple(
                Event(onset_s=2.0 + i, duration_s=0.0, description="T1", label=label)
                for i, label in enumerate(labels)
            )

    rules = [{"event": labels[0], "label": "slow"}, {"event": labels[1], "label": "fast"}]
    table = find_trials(Labelled(), task_of(rules), sfreq=64.0, window_s=1.0).table
    assert set(zip(table["label"], table["onset_s"], strict=True)) == {("slow", 2.0), ("fast", 3.0)}
