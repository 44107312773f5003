import pytest
import torch
from batches import plain_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm.errors import TrainingError
from neurofm.pretrain.masks import (
    MASKS,
    RandomMaskConfig,
    SpatialRadiusMaskConfig,
    TimeSpanMaskConfig,
)


def make_batch(n_windows=3, n_sites=6, n_padding=0, *, spread_m=0.04, located=True):
    """Sites on a line, `spread_m` apart; the last ones are padding."""
    position = torch.zeros(n_windows, n_sites, 3)
    position[:, :, 0] = torch.arange(n_sites) * spread_m
    present = torch.ones(n_windows, n_sites, dtype=torch.bool)
    present[:, n_sites - n_padding :] = False
    return plain_batch(
        torch.zeros(n_windows, n_sites, 8),
        position=position,
        located=torch.full_like(present, located),
        present=present,
        sfreq=8.0,
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", MASKS)
@settings(max_examples=40)
@given(
    n_sites=st.integers(1, 9), n_patches=st.integers(2, 7), ratio=st.floats(0.05, 0.95),
    seed=st.integers(0, 99), located=st.booleans(), data=st.data(),
)  # fmt: skip
def test_every_mask_hides_something_leaves_something_and_spares_padding(
    name, n_sites, n_patches, ratio, seed, located, data
):
    n_padding = data.draw(st.integers(0, n_sites - 1))
    batch = make_batch(4, n_sites, n_padding, located=located)
    hide = MASKS[name](ratio=ratio)(batch, n_patches, generator(seed))
    present = batch.present[:, :, None].expand_as(hide)
    assert hide.shape == (4, n_sites, n_patches)
    assert not (hide & ~present).any()
    assert hide.flatten(1).any(1).all()
    assert (present & ~hide).flatten(1).any(1).all()


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_a_function_of_its_generator(name):
    batch = make_batch()
    first, again, other = (MASKS[name]()(batch, 6, generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_random_masks_hide_the_share_asked_for():
    hide = RandomMaskConfig(ratio=0.3)(make_batch(2, 10), 10, generator())
    assert hide.flatten(1).sum(1).tolist() == [30, 30]


def test_time_spans_hide_the_same_patches_in_every_site():
    hide = TimeSpanMaskConfig(ratio=0.5, span=2)(make_batch(8, 5), 8, generator())
    assert torch.equal(hide, hide[:, :1].expand_as(hide))
    runs = hide[:, 0].int()
    isolated = runs[:, 1:-1] & ~runs[:, :-2] & ~runs[:, 2:] & 1
    assert isolated.sum() == 0  # away from the edges no patch is hidden alone


def test_a_ball_hides_all_sites_within_the_radius_together():
    mask = SpatialRadiusMaskConfig(ratio=0.01, radius_m=0.05, patches=2)
    hide = mask(make_batch(64, 12, spread_m=0.04), 10, generator())
    for window in hide:
        sites = window.any(1).nonzero()[:, 0]
        centre = sites.float().mean()
        assert len(sites) == 3 or centre in (0.5, 10.5)  # neighbours at 4 cm, none at 8 cm
        assert 1 <= window.any(0).sum() <= 2


def test_sites_without_a_position_are_hidden_alone():
    mask = SpatialRadiusMaskConfig(ratio=0.01, radius_m=10.0, patches=1)
    hide = mask(make_batch(32, 6, located=False), 10, generator())
    assert (hide.any(2).sum(1) == 1).all()


def test_a_window_of_one_token_cannot_be_masked():
    with pytest.raises(TrainingError, match=r"fewer than two tokens.*\n.*longer windows"):
        RandomMaskConfig()(make_batch(1, 1), 1, generator())
