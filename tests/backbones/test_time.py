"""How tokens of a transformer know when they were, where it is not by turned queries and keys."""

import pytest
import torch

from neurofm.backbones.packed import encode_packed
from neurofm.backbones.transformer import TransformerConfig
from neurofm.errors import ConfigError, SignalError
from neurofm.nn.sinusoid import sinusoid
from neurofm.published.biot import BIOTConfig
from neurofm.published.eegpt import EEGPTConfig
from neurofm.signals import Grid

TIMES = ("sinusoid", "learned", "conv")
SMALL = {"depth": 1, "n_heads": 2}


def build(**values):
    torch.manual_seed(0)
    return TransformerConfig(**{**SMALL, **values}).build(16).eval()


def random_grid(n_sites=3, n_patches=6, width=16):
    draw = torch.Generator().manual_seed(0)
    return Grid(
        content=torch.randn(2, n_sites, n_patches, width, generator=draw),
        place=torch.randn(2, n_sites, 1, width, generator=draw),
        present=torch.ones(2, n_sites, n_patches, dtype=torch.bool),
    )


def reversed_in_time(grid):
    return grid.evolve(content=grid.content.flip(2))


@torch.no_grad()
@pytest.mark.parametrize("time", ["rotary", *TIMES, "none"])
def test_only_without_time_is_the_order_of_patches_nothing(time):
    backbone, grid = build(time=time, attention="full"), random_grid()
    if time == "learned":
        torch.nn.init.normal_(backbone.time.rows)
    plain, other = backbone(grid).content, backbone(reversed_in_time(grid)).content.flip(2)
    assert torch.allclose(plain, other, atol=1e-5) == (time == "none")


@torch.no_grad()
def test_waves_and_rows_are_added_by_the_number_of_the_patch():
    x = torch.zeros(1, 2, 3, 16)
    waves, rows = build(time="sinusoid").time, build(time="learned", time_rows=5).time
    assert torch.equal(waves(x, 2)[0, 1], sinusoid(5, 16)[2:])
    assert torch.equal(rows(x, 2)[0, 1], rows.rows[2:])


@torch.no_grad()
def test_a_convolution_over_patches_sees_a_few_on_both_sides_of_one_site():
    time = build(time="conv", time_kernel=3).time
    x = torch.zeros(1, 2, 6, 16)
    x[0, 1, 3] = 1
    changed = (time(x) - time(torch.zeros_like(x))).abs().amax(-1) > 0
    assert changed.nonzero().tolist() == [[0, 1, 2], [0, 1, 3], [0, 1, 4]]


@torch.no_grad()
@pytest.mark.parametrize("time", ["sinusoid", "learned"])
def test_patches_that_come_one_after_the_other_go_on_counting(time):
    backbone, grid = build(time=time, causal=True), random_grid()
    state, found = None, []
    for start in range(0, 6, 2):
        part = grid.evolve(
            content=grid.content[:, :, start : start + 2],
            present=grid.present[:, :, start : start + 2],
        )
        step, state = backbone.step(part, state)
        found.append(step.content)
    expected = backbone(grid).content
    torch.testing.assert_close(torch.cat(found, 2), expected, atol=1e-5, rtol=1e-5)


def test_a_window_longer_than_the_learned_rows_is_refused():
    backbone = build(time="learned", time_rows=5)
    with pytest.raises(SignalError, match=r"window of 6 patches.*times of 5\n.*time_rows"):
        backbone(random_grid())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"time": "conv", "causal": True}, r"looks at later ones.*\n.*rotary, sinusoid or learned"),
        ({"time": "conv", "time_kernel": 4}, r"4 patches has no middle\n.*time_kernel to 5"),
        ({"attention": "linear"}, r"sees no rotary angles.*\n.*sinusoid, learned or conv"),
        ({"attention": "linear", "time": "none", "causal": True}, r"has no causal.*\n.*to full"),
        ({"attention": "linear", "time": "none", "qk_norm": "rms"}, r"has no qk_norm, .* rms\n"),
    ],
)
def test_what_does_not_go_together_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        build(**values)


def test_a_convolution_over_patches_cannot_take_one_after_the_other():
    with pytest.raises(ConfigError, match="cannot encode one after the other"):
        build(time="conv", attention="sites").step(random_grid())


@torch.no_grad()
def test_linear_attention_with_waves_is_biot():
    torch.manual_seed(0)
    published = BIOTConfig(width=16, depth=2, n_heads=2).build()
    backbone = build(depth=2, attention="linear", time="sinusoid")
    backbone.blocks.load_state_dict(published.layers.state_dict())
    backbone.norm = torch.nn.Identity()  # none follows BIOT's last layer
    grid = random_grid()
    tokens = grid.tokens + published.times[:6]
    expected = published.encode(tokens.flatten(1, 2)).unflatten(1, (3, 6))
    torch.testing.assert_close(backbone(grid).content, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_summary_tokens_of_each_patch_are_those_of_eegpt():
    torch.manual_seed(0)
    config = EEGPTConfig(patch_len=8, width=16, n_summary=3, depth=2, n_heads=2)
    published = config.build().encoder
    backbone = build(depth=2, attention="sites", time="none", n_summary=3, norm_eps=1e-6)
    for part in ("blocks", "norm"):
        getattr(backbone, part).load_state_dict(getattr(published, part).state_dict())
    backbone.summary.copy_(published.summary)
    patches, names = torch.randn(2, 6, 3, 8), torch.tensor([4, 0, 7])
    grid = random_grid().evolve(
        content=published.embed(patches).transpose(1, 2),
        place=published.names(names)[None, :, None].expand(2, -1, -1, -1),
    )
    found = backbone(grid)
    expected = published(patches, names).transpose(1, 2)
    torch.testing.assert_close(found.content, expected, atol=1e-5, rtol=1e-5)
    assert found.present.shape == (2, 3, 6) and found.present.all()


@torch.no_grad()
@pytest.mark.parametrize("attention", ["full", "sites", "criss_cross"])
def test_summary_tokens_of_packed_windows_are_those_of_each_alone(attention):
    backbone, grid = build(attention=attention, n_summary=2), random_grid()
    present = grid.present.clone()
    present[0, 1:] = False
    grid = grid.evolve(present=present)
    found = encode_packed(backbone, grid)
    alone = backbone(Grid(content=grid.content[:1, :1], place=grid.place[:1, :1],
                          present=grid.present[:1, :1]))  # fmt: skip
    torch.testing.assert_close(found.content[:1], alone.content, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.content, backbone(grid).content, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_window_without_sites_has_no_summary():
    backbone, grid = build(n_summary=2), random_grid()
    present = grid.present.clone()
    present[1] = False
    found = backbone(grid.evolve(present=present))
    assert not found.present[1].any() and not found.content[1].any()
    assert found.present[0].all() and found.content[0].any()
