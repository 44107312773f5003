"""Codes that are rounded features, not learned vectors: another quantiser of the same tokenizers."""

import pytest
import torch
from batches import plain_batch

from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.errors import ConfigError
from neurofm.sensors import text_code
from neurofm.tokenizers.du_in import DuInConfig
from neurofm.tokenizers.vqnsp import VqnspConfig

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)
SMALL = {"patch_s": 0.5, "inner": 16, "n_heads": 2, "depth": 1}
NAMES = ("c0", "c1", "c2")
KINDS = {"vqnsp": VqnspConfig, "du_in": DuInConfig}
FUSED = {"per": "montage", "channels": {"anyone": NAMES}}
every_tokenizer = pytest.mark.parametrize("name", KINDS)


def make_config(name, **values):
    fused = FUSED if name == "du_in" else {}
    return parse_config(KINDS[name], {**SMALL, **fused, **values}, where="test")


def make_windows(n_windows=16):
    draw = torch.Generator().manual_seed(0)
    t = torch.arange(128) / 64
    phase = 6.28 * torch.rand(n_windows, 1, 1, generator=draw)
    hz = torch.randint(2, 9, (n_windows, 1, 1), generator=draw)
    signal = torch.sin(6.28 * hz * t + phase) * torch.tensor([1.0, -1.0, 0.5])[:, None]
    codes = torch.tensor([text_code(name) for name in NAMES]).expand(n_windows, 3)
    return plain_batch(signal, name_code=codes)


@every_tokenizer
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"levels": [4, 3]}, r"make 12 codes of 2 features: set n_codes to 12 and code_width to 2"),
        ({"levels": [4, 1], "n_codes": 4, "code_width": 2}, r"two levels a feature, got \[4, 1\]"),
        ({"levels": []}, r"levels"),
    ],
)
def test_levels_that_do_not_fit_are_refused(name, values, message):
    with pytest.raises(ConfigError, match=message):
        make_config(name, **values).build_parts(CONTRACT)


@every_tokenizer
def test_rounded_codes_are_learned_and_kept(name):
    torch.manual_seed(0)
    config = make_config(name, levels=[4, 4, 3], n_codes=48, code_width=3)
    batch = make_windows()
    coder = config.build_parts(CONTRACT).train()
    optimiser = torch.optim.Adam(coder.parameters(), lr=3e-3)
    seen = torch.ones(batch.present.shape, dtype=torch.bool)
    losses = []
    for _ in range(40):
        terms = coder.losses(coder.rebuild(batch, seen), batch)
        optimiser.zero_grad()
        terms["total"].backward()
        optimiser.step()
        losses.append(float(terms["total"].detach()))
        assert terms["commitment"] == 0
    assert losses[-1] < 0.9 * losses[0]
    assert coder.embed.convs.convs[0].weight.grad.abs().sum() > 0
    codes = coder.eval().codes_of(batch)
    assert len(codes.unique()) > 4 and 0 <= int(codes.min()) <= int(codes.max()) < 48

    slot = config.model_copy(update={"frozen": True, "discrete": True}).build(CONTRACT, 24)
    slot.take(coder)
    assert torch.equal(slot.eval().codes(batch), codes)
    assert slot.code_shape == (1, 1, 48)
    found = slot(batch).content
    torch.testing.assert_close(found, slot.of_codes(codes), atol=1e-6, rtol=1e-5)
