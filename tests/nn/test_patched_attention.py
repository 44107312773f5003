"""Attention of moments to patches of the past and to recent moments."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm.errors import ConfigError
from neurofm.nn.patched_attention import PatchedAttention, causal_view


@settings(max_examples=60)
@given(data=st.data(), n_patches=st.integers(1, 5), patch_len=st.integers(1, 4))
def test_nothing_is_seen_before_it_has_ended(data, n_patches, patch_len):
    n_in = n_patches * patch_len
    n_out = data.draw(st.integers(1, n_in))
    n_recent = data.draw(st.integers(0, n_in))
    sees = causal_view(n_out, n_patches, patch_len, n_recent)
    assert sees.shape == (n_out, n_patches + n_recent)
    for row, seen in enumerate(sees):
        now = n_in - n_out + row  # counted over all moments that come in
        ends = [(i + 1) * patch_len - 1 for i in range(n_patches)]
        ends += [n_in - n_recent + i for i in range(n_recent)]
        assert seen.tolist() == [end <= now for end in ends]


def test_a_band_leaves_out_what_is_far():
    sees = causal_view(6, 6, 1, band=2)
    expected = torch.ones(6, 6).tril().triu(-2).bool()
    assert torch.equal(sees, expected)


@pytest.mark.parametrize(("patch_len", "n_recent"), [(1, 0), (4, 0), (4, 3)])
def test_what_comes_later_changes_nothing_before(patch_len, n_recent):
    torch.manual_seed(0)
    sees = causal_view(8, 12 // patch_len, patch_len, n_recent)
    attention = PatchedAttention(6, 2, sees, patch_len=patch_len, n_recent=n_recent)
    x = torch.randn(2, 12, 6)
    other = x.clone()
    other[:, 9:] += 1  # the last three of eight moments out
    first, second = attention(x, x), attention(other, other)
    torch.testing.assert_close(first[:, :5], second[:, :5])
    assert (first[:, 5:] - second[:, 5:]).abs().max() > 1e-4


def test_a_moment_that_sees_nothing_gathers_nothing_and_teaches_nothing_wrong():
    torch.manual_seed(0)
    attention = PatchedAttention(6, 2, causal_view(8, 2, 4), patch_len=4)
    x = torch.randn(1, 8, 6, requires_grad=True)
    out = attention(x, x)
    torch.testing.assert_close(out[0, :3], attention.project_out.bias.expand(3, -1))
    out.sum().backward()
    assert x.grad.isfinite().all()


def test_patches_of_one_moment_are_plain_attention():
    torch.manual_seed(0)
    attention = PatchedAttention(6, 2, causal_view(5, 5, 1))
    x = torch.randn(2, 5, 6)
    theirs = torch.nn.MultiheadAttention(6, 2, batch_first=True)
    maps = (attention.query, attention.key, attention.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([m.weight for m in maps]))
        theirs.in_proj_bias.copy_(torch.cat([m.bias for m in maps]))
    theirs.out_proj.load_state_dict(attention.project_out.state_dict())
    expected, _ = theirs(x, x, x, attn_mask=~torch.ones(5, 5).tril().bool())
    torch.testing.assert_close(attention(x, x), expected)


def test_heads_that_do_not_share_the_width_are_refused():
    with pytest.raises(ConfigError, match="width 6 cannot be split into 4 heads"):
        PatchedAttention(6, 4, causal_view(2, 2, 1))
