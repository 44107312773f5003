import pickle

import pytest

from neurofm.errors import ConfigError, LeakError, NeurofmError, unknown_name


def test_an_error_keeps_its_type_and_hint_across_processes():
    error = pickle.loads(pickle.dumps(LeakError("subject 3 has two roles", hint="split again")))
    assert type(error) is LeakError
    assert str(error) == "subject 3 has two roles\n  hint: split again"


def test_an_unknown_name_lists_what_exists_and_the_nearest():
    with pytest.raises(
        ConfigError, match=r"unknown mask 'tim_span'; known: random, time_span\n.*mean 'time_span'"
    ):
        raise unknown_name("mask", "tim_span", ["time_span", "random"])


def test_an_unknown_name_far_from_all_gets_no_guess():
    assert "did you mean" not in str(unknown_name("mask", "zzz", ["random"]))


def test_every_error_is_a_neurofm_error():
    import neurofm.errors as module

    kinds = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Exception)]
    assert len(kinds) > 8
    assert all(issubclass(kind, NeurofmError) for kind in kinds)
