"""Constructor arguments of mamba_ssm: what they become, and which are refused."""

import pytest

from neurofm.errors import ConfigError
from neurofm.published.mamba import mixer_config


def test_automatic_and_unlimited_values_become_ours():
    assert mixer_config("mamba1", {"d_model": 8, "dt_rank": "auto"}).mixer.dt_rank is None
    limits = {"d_model": 8, "headdim": 4, "dt_limit": ["0.0", "inf"]}
    assert mixer_config("mamba2", limits).mixer.dt_limit == (0.0, None)
    assert mixer_config("mamba2", {**limits, "dt_limit": (0.1, 2)}).mixer.dt_limit == (0.1, 2.0)


def test_what_says_how_weights_are_drawn_or_run_is_ignored():
    values = {"d_model": 8, "use_fast_path": False, "dt_init": "random", "device": "cuda"}
    assert mixer_config("mamba1", values) == mixer_config("mamba1", {"d_model": 8})


@pytest.mark.parametrize(
    ("version", "values", "message"),
    [
        ("mamba1", {"d_model": 8, "d_stat": 4}, r"mamba1: unknown .* 'd_stat'.*\n.*'d_state'"),
        ("mamba1", {"d_model": 8, "headdim": 4}, "mamba1: unknown constructor argument 'headdim'"),
        ("mamba2", {"d_model": 8, "expand": "two"}, "constructor of mamba2: mixer.expand: .*'two'"),
        ("mamba2", {"headdim": 4}, "constructor of mamba2: width: "),
    ],
)
def test_what_has_no_meaning_is_refused(version, values, message):
    with pytest.raises(ConfigError, match=message):
        mixer_config(version, values)
