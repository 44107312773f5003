"""What constructors of convolutional originals say, beyond what the reference fixtures say."""

import pytest
import torch

from neurofm.errors import ConfigError
from neurofm.nn.sample_codes import CodeKernels
from neurofm.published.bendr import BENDRConfig
from neurofm.published.table import PUBLISHED

SIMPLE = PUBLISHED["SimpleConv (brain decoder with spatial merger and subject layer)"]
BENDR = PUBLISHED["BENDR (convolutional encoder + contextualizer)"]
SIZES = {"in_channels": {"meg": 3}, "out_channels": 2, "hidden": {"meg": 4}}


def simple(**constructor):
    return SIMPLE.from_constructor({**SIZES, "subject_dim": 0, **constructor})


def conv(name, n_in, n_out, kernel=1):
    return {
        f"{name}.weight": torch.randn(n_out, n_in, kernel),
        f"{name}.bias": torch.randn(n_out),
    }


def norm(name, width):
    found = {f"{name}.{leaf}": torch.rand(width) for leaf in ("weight", "bias", "running_mean")}
    counted = {f"{name}.num_batches_tracked": torch.tensor(0)}
    return found | counted | {f"{name}.running_var": torch.rand(width)}


def test_simpleconv_has_the_defaults_of_the_original():
    found = SIMPLE.from_constructor({**SIZES, "merger": True})
    assert (found.depth, found.kernel, found.subject_width, found.n_merged) == (4, 5, 64, 270)
    assert simple(merger_channels=9).n_merged == 0


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("normed", [False, True])
def test_simpleconvs_layers_are_found_wherever_dropping_and_norms_put_them(normed, dropped):
    constructor = {
        **SIZES,
        "depth": 2,
        "kernel_size": 3,
        "skip": True,
        "scale": 0.1,
        "subject_dim": 0,
        "linear_out": True,
        "batch_norm": normed,
        **({"dropout_input": 0.1, "conv_dropout": 0.1} if dropped else {}),
    }
    original, at = {}, "encoders.meg.sequence"
    for i, n_in in enumerate((3, 4)):
        first = int(dropped and i == 0)
        original |= conv(f"{at}.{i}.{first}", n_in, 4, 3)
        if normed:
            original |= norm(f"{at}.{i}.{first + 1}", 4)
    original[f"{at}.1.{2 + normed + dropped}.scale"] = torch.rand(4)  # conv, norm, bend, drop
    original |= {"final.weight": torch.randn(4, 2, 1), "final.bias": torch.randn(2)}
    model = SIMPLE.load(constructor, original)
    scale = original[f"{at}.1.{2 + normed + dropped}.scale"]
    assert torch.equal(model.blocks[1].scale, 5 * scale)
    assert torch.equal(model.blocks[0].conv.weight, original[f"{at}.0.{int(dropped)}.weight"])


def test_simpleconvs_first_maps_have_bends_between():
    model = simple(initial_linear=5, initial_depth=2, depth=1, linear_out=True).build()
    x = torch.randn(2, 3, 7)
    expected = model.initial[1](model.initial[0](x).relu())
    torch.testing.assert_close(model.map(x), expected)
    bent = simple(initial_linear=5, initial_depth=1, initial_nonlin=True, gelu=True).build()
    expected = torch.nn.functional.gelu(bent.initial[0](x))
    torch.testing.assert_close(bent.map(x), expected)


def test_simpleconv_silences_sensors_without_a_position_if_it_drops_channels():
    x, position = torch.randn(2, 3, 7), torch.rand(2, 3, 2)
    located = torch.tensor([[True, True, False]]).expand(2, -1)
    silent = simple(dropout=0.2).build().merge(x, position, located)
    assert torch.equal(silent[:, 2], torch.zeros(2, 7))
    assert torch.equal(silent[:, :2], x[:, :2])
    assert torch.equal(simple().build().merge(x, position, located), x)


def test_simpleconvs_widths_grow_and_subjects_may_be_mapped_to_the_first():
    found = simple(
        growth=1.5,
        depth=3,
        subject_layers=True,
        subject_layers_dim="hidden",
        n_subjects=2,
        linear_out=True,
    )
    assert found.widths == [4, 6, 9]
    model = found.build()
    assert model.subject_matrix.shape == (2, 3, 4)
    located = torch.ones(2, 3, dtype=torch.bool)
    answer = model(torch.randn(2, 3, 8), torch.rand(2, 3, 2), located, torch.tensor([0, 1]))
    assert answer.shape == (2, 2, 8)


def test_a_subjects_vector_is_scaled():
    scaled = simple(subject_dim=2, embedding_scale=10.0, n_subjects=3, depth=1).build()
    plain = simple(subject_dim=2, n_subjects=3, depth=1).build()
    state = scaled.state_dict()
    plain.load_state_dict({**state, "subject_vector.weight": 10 * state["subject_vector.weight"]})
    inputs = torch.randn(2, 3, 8), torch.rand(2, 3, 2), None, torch.tensor([0, 2])
    torch.testing.assert_close(scaled(*inputs), plain(*inputs))


@pytest.mark.parametrize(
    ("constructor", "message"),
    [
        ({"rewrite": True}, "rewrite = True has no counterpart"),
        ({"in_channels": {"meg": 3, "eeg": 2}}, r"in_channels = .* has no counterpart"),
        ({"hidden": 4}, r"hidden = 4 has no counterpart"),
        ({"subject_layers": True, "subject_layers_dim": "output"}, "subject_matrix: .*'output'"),
    ],
)
def test_what_simpleconv_cannot_be_here_is_refused(constructor, message):
    with pytest.raises(ConfigError, match=message):
        simple(**constructor)


def test_bendr_has_the_defaults_of_the_original():
    found = BENDR.from_constructor({"encoder": {"in_features": 3}, "contextualizer": {}})
    assert (found.width, found.start, len(found.kernels)) == (256, -5.0, 6)


def test_bendr_may_do_without_positions_and_start_and_end_in_a_projection():
    sizes = {"n_channels": 3, "width": 8, "n_heads": 2, "hidden": 4, "depth": 1}
    model = BENDRConfig(**sizes, position_kernel=0, start=None, projection=True).build()
    steps = model.encode(torch.randn(2, 3, 192))
    assert len(model.stages) == 7
    assert model.contextualise(steps).shape == steps.shape == (2, 8, 2)


def test_bendrs_projection_is_the_stage_after_the_numbered_ones():
    original = {
        **conv("encoder.encoder.Encoder_0.0", 3, 16, 3),
        **conv("encoder.encoder.projection-1.0", 16, 16),
    }
    assert set(BENDR.weights(original)) == {
        f"stages.{i}.conv.{leaf}" for i in (0, 1) for leaf in ("weight", "bias")
    }


def test_bendr_without_the_arguments_of_its_encoder_is_refused():
    with pytest.raises(ConfigError, match="BENDR: the constructor lacks the arguments of its enc"):
        BENDR.from_constructor({"contextualizer": {}})


def test_kernels_of_groups_of_codes_are_those_of_a_grouped_convolution():
    kernels = CodeKernels(6, 4, padding="same", groups=3)
    weights = torch.randn(2, 9, 6)
    padded = torch.nn.functional.pad(weights.transpose(1, 2), (1, 2))
    expected = torch.nn.functional.conv1d(padded, kernels.weight, kernels.bias, groups=3).sum(1)
    torch.testing.assert_close(kernels(weights), expected)
