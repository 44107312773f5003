"""What does not fit is refused by name."""

from dataclasses import replace

import pytest
from encoder_cases import build_encoder, make_windows

from neurofm.config import parse_config
from neurofm.encoder import EncoderConfig
from neurofm.errors import ConfigError, ContractError, SignalError


def test_a_batch_of_another_rate_is_refused():
    with pytest.raises(ContractError, match="sampled at 250 Hz, the tokenizer is for 50 Hz"):
        build_encoder()(replace(make_windows(), sfreq=250.0))


def test_a_tensor_of_the_wrong_shape_is_named():
    batch = make_windows()
    with pytest.raises(SignalError, match=r"position has shape \(2, 4, 3\), expected \(2, 5, 3\)"):
        build_encoder()(replace(batch, position=batch.position[:, :4]))
    with pytest.raises(SignalError, match=r"signal has shape \(5, 100\), expected \(B, C, T\)"):
        build_encoder()(replace(batch, signal=batch.signal[0]))


def test_half_a_patch_at_the_end_of_a_window_is_refused():
    with pytest.raises(SignalError, match=r"4.5 patches of 20 samples.*\n.*multiple of 0.4 s"):
        build_encoder()(make_windows(n_times=90))


def test_an_unknown_tokenizer_names_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown name 'linear_pach'.*\n.*'linear_patch'"):
        parse_config(EncoderConfig, {"tokenizer": {"name": "linear_pach"}}, where="x.yaml")
