"""The Mamba mixers: streaming, causality, precision, and what they refuse."""

import json

import pytest
import torch

from neurofm.config import parse_config
from neurofm.errors import ConfigError
from neurofm.nn.causal_conv import CausalConv
from neurofm.nn.mamba1 import Mamba1Config
from neurofm.nn.mamba2 import Mamba2Config

MIXERS = {
    "mamba1": Mamba1Config(d_state=4),
    "mamba1_bias": Mamba1Config(d_state=3, d_conv=2, dt_rank=3, bias=True, conv_bias=False),
    "mamba2": Mamba2Config(d_state=4, headdim=8),
    "mamba2_groups": Mamba2Config(d_state=4, headdim=4, ngroups=2, D_has_hdim=True, chunk_size=4),
    "mamba2_beside": Mamba2Config(d_state=4, headdim=4, d_ssm=8, rmsnorm=False),
    "mamba2_norm_first": Mamba2Config(d_state=4, headdim=8, norm_before_gate=True),
}
every_mixer = pytest.mark.parametrize("name", MIXERS)


def build(name, width=16):
    torch.manual_seed(0)
    return MIXERS[name].build(width).eval()


def tokens(n_steps=37, width=16):
    return torch.randn(2, n_steps, width, generator=torch.Generator().manual_seed(1))


def test_a_causal_convolution_sees_this_step_and_those_before_it():
    conv = CausalConv(2, 3)
    x = torch.randn(1, 2, 9, generator=torch.Generator().manual_seed(1))
    y, last = conv.run(x)
    weight, bias = conv.weight[:, 0], conv.bias
    expected = (weight * x[0, :, 2:5]).sum(-1) + bias  # of steps 2, 3 and 4, at step 4
    torch.testing.assert_close(y[0, :, 4], expected)
    torch.testing.assert_close(y[0, :, 0], weight[:, 2] * x[0, :, 0] + bias)
    torch.testing.assert_close(last, x[..., -3:])


@every_mixer
def test_token_by_token_is_the_whole_sequence(name):
    mixer, x = build(name), tokens()
    with torch.no_grad():
        state, steps = None, []
        for t in range(x.shape[1]):
            y, state = mixer.step(x[:, t], state)
            steps.append(y)
        whole, last = mixer.run(x)
    torch.testing.assert_close(torch.stack(steps, 1), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state, last, atol=1e-5, rtol=1e-5)


@every_mixer
def test_a_prompt_may_be_taken_at_once_and_gone_on_from(name):
    mixer, x = build(name), tokens()
    with torch.no_grad():
        first, state = mixer.run(x[:, :20])
        second, _ = mixer.run(x[:, 20:], state)
        whole = mixer(x)
    torch.testing.assert_close(torch.cat((first, second), 1), whole, atol=1e-5, rtol=1e-5)


@every_mixer
def test_nothing_is_known_before_it_happens(name):
    mixer, x = build(name), tokens()
    changed = x.clone()
    changed[:, 20] += 1
    with torch.no_grad():
        before, after = mixer(x), mixer(changed)
    torch.testing.assert_close(before[:, :20], after[:, :20], atol=0, rtol=0)
    assert (before[:, 20:] - after[:, 20:]).abs().amax((0, 2)).min() > 1e-6


@every_mixer
def test_every_parameter_learns_and_windows_do_not_mix(name):
    mixer, x = build(name), tokens().requires_grad_()
    mixer(x)[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in mixer.parameters())
    assert x.grad[0].any()
    assert not x.grad[1].any()


@every_mixer
def test_half_precision_is_near_single_precision(name):
    mixer, x = build(name), tokens()
    with torch.no_grad():
        single = mixer(x)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = mixer(x).float()
        half = mixer.to(torch.bfloat16)(x.to(torch.bfloat16)).float()
    scale = single.abs().mean()
    assert (mixed - single).abs().mean() < 0.02 * scale
    assert (half - single).abs().mean() < 0.03 * scale


@every_mixer
def test_first_step_sizes_lie_in_their_range(name):
    mixer = build(name, width=256)
    bias = mixer.dt_bias if hasattr(mixer, "dt_bias") else mixer.dt_proj.bias
    step = torch.nn.functional.softplus(bias.detach().double())
    assert 0.001 * 0.999 <= step.min() <= step.max() <= 0.1 * 1.001


@every_mixer
def test_configs_survive_json(name):
    config = MIXERS[name]
    assert parse_config(type(config), config.to_dict(), where="test") == config
    json.dumps(config.to_dict(), allow_nan=False)  # infinity is no JSON


def test_step_sizes_stay_within_their_limits():
    config = Mamba2Config(d_state=4, headdim=8, dt_limit=(0.5, 0.6))
    mixer, x = config.build(16).eval(), tokens()
    inputs, _ = mixer.project(x, None)
    with torch.no_grad():
        y, _ = mixer.scan(inputs, None)
        mixer.dt_bias.fill_(10.0)  # all at the upper limit
        upper, _ = mixer.scan(inputs, None)
        mixer.dt_bias.fill_(30.0)
        torch.testing.assert_close(mixer.scan(inputs, None)[0], upper)
    assert (y - upper).abs().max() > 1e-4


@pytest.mark.parametrize(
    "values", [{"headdim": 5}, {"d_ssm": 64, "headdim": 4}, {"ngroups": 3, "headdim": 4}]
)
def test_heads_that_do_not_fit_the_width_are_refused(values):
    with pytest.raises(ConfigError, match="32 inner channels do not split into heads.*\n.*headdim"):
        Mamba2Config(**values).build(16)


def test_the_gate_may_come_after_the_norm():
    x = tokens()
    first, after = (build(name) for name in ("mamba2", "mamba2_norm_first"))
    after.load_state_dict(first.state_dict())
    assert (first(x) - after(x)).abs().max() > 1e-3
