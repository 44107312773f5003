"""Patches: whole samples, whole windows, and nothing passes from one to the next."""

import pytest
import torch
from batches import plain_batch

from neurofm.contract import SignalContract
from neurofm.errors import ConfigError, SignalError
from neurofm.sensors import text_code
from neurofm.tokenizers.patch import ConvPatchConfig, LinearPatchConfig
from neurofm.tokenizers.table import TOKENIZERS

CONTRACT = SignalContract(sfreq=128, band_hz=(0.5, 40), window_s=2)


def make_patches_batch(signal):
    shape = signal.shape[:2]
    across = torch.linspace(-0.05, 0.05, shape[1])  # over the top of the head, ear to ear
    position = torch.stack((across, torch.zeros(shape[1]), torch.full((shape[1],), 0.12)), -1)
    return plain_batch(
        signal,
        position=position.expand(*shape, 3),
        sfreq=128.0,
        name_code=torch.tensor([text_code(f"c{i}") for i in range(shape[1])]).expand(shape),
    )


def build_tokenizer(name, patch_s):
    fused = {"per": "montage", "channels": {"anyone": ("c0", "c1")}} if name == "du_in" else {}
    return TOKENIZERS[name](patch_s=patch_s, **fused).build(CONTRACT, 16)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_patch_must_be_whole_samples(name):
    with pytest.raises(ConfigError, match=r"0\.2 s is 25\.6 samples at 128 Hz.*\n.*0\.203125 s"):
        build_tokenizer(name, 0.2)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_window_must_be_whole_patches(name):
    with pytest.raises(
        ConfigError, match=r"2 s is 2\.66667 patches of 0\.75 s.*\n.*window_s: 1\.5"
    ):
        build_tokenizer(name, 0.75)


def test_a_patch_longer_than_the_window_is_refused():
    with pytest.raises(ConfigError, match=r"2 s is 0\.5 patches of 4 s.*\n.*window_s: 4"):
        LinearPatchConfig(patch_s=4).build(CONTRACT, 16)


def test_an_even_kernel_is_refused():
    with pytest.raises(ConfigError, match=r"kernel of 4 samples has no middle\n.*kernel to 5"):
        ConvPatchConfig(kernel=4).build(CONTRACT, 16)


def test_patches_are_the_signal_cut_in_order():
    signal = torch.randn(2, 3, 256)
    tokenizer = LinearPatchConfig(patch_s=0.5).build(CONTRACT, 16)
    patches = tokenizer.patches(signal)
    assert (tokenizer.patch_len, tokenizer.n_patches(256)) == (64, 4)
    assert torch.equal(patches[1, 2, 1], signal[1, 2, 64:128])
    assert torch.equal(patches.flatten(-2), signal)
    with pytest.raises(SignalError, match="0 patches of 64 samples"):
        tokenizer.n_patches(0)


def test_a_linear_patch_is_the_linear_map_of_its_samples():
    tokenizer = LinearPatchConfig(patch_s=0.5).build(CONTRACT, 16)
    signal = torch.randn(1, 2, 256)
    weight, bias = tokenizer.content.weight, tokenizer.content.bias
    content = tokenizer(make_patches_batch(signal)).content
    torch.testing.assert_close(content[0, 1, 2], weight @ signal[0, 1, 128:192] + bias)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("patch_s", [0.0078125, 0.0625, 0.5, 2.0])
def test_a_patch_sees_its_own_samples_only(name, patch_s):
    tokenizer = build_tokenizer(name, patch_s).eval()
    signal = torch.randn(1, 2, 256)
    other = signal.clone()
    other[0, 0, : tokenizer.patch_len] *= 3
    before, after = (tokenizer(make_patches_batch(s)).content for s in (signal, other))
    changed = (before != after).any(-1)
    # one sample alone may have the code that it had when it was smaller
    few_codes = name in ("annealed_samples", "quantile_samples")
    assert changed[0, 0, 0] or (few_codes and tokenizer.patch_len == 1)
    assert not changed[:, :, 1:].any()
    # every latent source, and every virtual channel, sees every channel; other sites their own
    assert name in ("brain_tokenizer", "merged_patch") or changed.sum() <= 1


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_louder_patch_is_another_token(name):
    tokenizer = build_tokenizer(name, 1.0).eval()
    signal = torch.randn(1, 1, 256)
    quiet, loud = (tokenizer(make_patches_batch(s)).content for s in (signal, 2 * signal))
    assert (quiet - loud).abs().max() > 0.05


@pytest.mark.parametrize("name", TOKENIZERS)
def test_silence_has_a_finite_gradient(name):
    tokenizer = build_tokenizer(name, 1.0)
    signal = torch.zeros(1, 1, 256, requires_grad=True)
    tokenizer(make_patches_batch(signal)).content.sum().backward()
    # what was looked up has no gradient
    assert name.endswith("_samples") or signal.grad.isfinite().all()


@pytest.mark.parametrize("name", ["linear_patch", "conv_patch"])
def test_the_grid_has_a_site_a_channel_and_its_position(name):
    batch = make_patches_batch(torch.randn(2, 3, 256))
    grid = build_tokenizer(name, 0.5)(batch)
    assert grid.content.shape == (2, 3, 4, 16)
    assert grid.place.shape == (2, 3, 1, 16)
    assert grid.present.shape == (2, 3, 4)
    assert grid.position is batch.position
    assert grid.located is batch.located
