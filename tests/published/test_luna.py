"""What LUNA refuses, and what its parts promise."""

import pytest
import torch

from neurofm.errors import ConfigError
from neurofm.published.luna import LUNAConfig
from neurofm.published.luna_parts import terms

SMALL = LUNAConfig(n_queries=2, width=16, depth=1, n_heads=2)


def model(**changes):
    torch.manual_seed(0)
    return SMALL.model_copy(update=changes).build().eval()


def window(n_windows=2, n_channels=5):
    torch.manual_seed(1)
    signal = torch.randn(n_windows, n_channels, 120)
    return signal, torch.randn(n_windows, n_channels, 3), torch.arange(n_channels).expand(2, -1)


def test_the_default_is_as_large_as_published():
    classifier = LUNAConfig(n_classes=2).build()
    n = sum(p.numel() for p in classifier.parameters())
    assert n / 1e6 == pytest.approx(7.10, rel=0.01)


def test_windows_of_different_layouts_do_not_mix():
    signal, position, names = window()
    luna = model()
    together = luna(signal, position, names=names)
    for i in range(2):
        one = slice(i, i + 1)
        alone = luna(signal[one], position[one], names=names[one])
        torch.testing.assert_close(together[one], alone, rtol=1e-4, atol=1e-5)


def test_they_mix_as_published_where_that_is_asked_for():
    signal, position, names = window()
    luna = model(mixes_windows=True)
    together = luna(signal, position, names=names)
    alone = luna(signal[:1], position[:1], names=names[:1])
    assert (together[:1] - alone).abs().max() > 1e-3
    same = position[:1].expand(2, -1, -1)
    torch.testing.assert_close(
        luna(signal, same, names=names), model()(signal, same, names=names), rtol=1e-4, atol=1e-5
    )


def test_channels_may_stand_in_any_order():
    signal, position, names = window()
    order = torch.tensor([3, 0, 4, 1, 2])
    luna = model()
    out = luna(signal[:, order], position[:, order], names=names[:, order])
    torch.testing.assert_close(
        out, luna(signal, position, names=names)[:, order], rtol=1e-4, atol=1e-5
    )
    classes = model(n_classes=3)
    torch.testing.assert_close(
        classes(signal[:, order], position[:, order]),
        classes(signal, position),
        rtol=1e-4,
        atol=1e-5,
    )


def test_hidden_samples_are_not_seen():
    signal, position, names = window()
    hide = torch.zeros_like(signal, dtype=torch.bool)
    hide[:, 2, 45] = True  # one sample hides its patch
    other = signal.clone()
    other[:, 2, 40:80] *= -1
    luna = model()
    place = luna.locate(position)
    same = luna.tokens(signal, place, hide) == luna.tokens(other, place, hide)
    hidden = torch.where(same.all(-1), 0, 1).unflatten(0, (2, 3))
    # statistics of the first norms run over the whole window: others change, the hidden do not
    assert (hidden[:, 1, 2] == 0).all()
    assert (hidden.sum((1, 2)) == 14).all()


def test_overlap_is_none_where_queries_look_at_different_channels():
    signal = torch.zeros(1, 2, 40)
    hide = torch.zeros_like(signal, dtype=torch.bool)
    hide[..., :20] = True
    apart, alike = torch.eye(2)[None], torch.ones(1, 2, 2) / 2
    assert terms(signal, signal, hide, apart).total == 0
    assert terms(signal, signal, hide, alike).overlap == pytest.approx(0.8 * 0.125)
    off = terms(signal + 2, signal, hide, apart)
    assert off.total == pytest.approx(1.5 * 1.05)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: model(patch_len=42), "a patch of 42 samples gives .* and width is 16"),
        (lambda: model().patches(torch.zeros(1, 1, 50)), "a window of 50 samples is no whole"),
        (lambda: model()(*window()[:2]), r"by their names, and none are given(.|\n)*pass names"),
    ],
)
def test_what_it_cannot_do_is_said(build, message):
    with pytest.raises(ConfigError, match=message):
        build()
