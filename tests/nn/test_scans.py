"""The scans against a plain recurrence in double precision: numbers, gradients, cost, refusals."""

import sys
import types

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm.errors import SignalError
from neurofm.nn import kernels, selective_scan, ssd
from neurofm.nn.selective_scan import selective_scan as scan
from neurofm.nn.ssd import ssd_scan


def recurrence(u, delta, A, B, C, state):
    """One step at a time; B and C (B, G, N, L)."""
    repeats = u.shape[1] // B.shape[1]
    B, C = (t.repeat_interleave(repeats, 1) for t in (B, C))
    y = []
    for t in range(u.shape[-1]):
        drive = (delta * u)[..., t, None] * B[..., t]
        state = torch.exp(delta[..., t, None] * A) * state + drive
        y.append((state * C[..., t]).sum(-1))
    return torch.stack(y, -1), state


def head_recurrence(x, dt, A, B, C, state):
    """One step at a time; state (B, H, P, N)."""
    repeats = x.shape[2] // B.shape[2]
    B, C = (t.repeat_interleave(repeats, 2) for t in (B, C))
    y = []
    for t in range(x.shape[1]):
        drive = (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None]
        state = torch.exp(dt[:, t] * A)[..., None, None] * state + drive
        y.append((state * C[:, t, :, None]).sum(-1))
    return torch.stack(y, 1), state


def selective_operands(n_windows, n_channels, n_steps, n_state, n_groups, seed=0):
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    return [
        normal(n_windows, n_channels, n_steps),
        normal(n_windows, n_channels, n_steps).abs(),
        -normal(n_channels, n_state).abs(),
        normal(n_windows, n_groups, n_state, n_steps),
        normal(n_windows, n_groups, n_state, n_steps),
        normal(n_windows, n_channels, n_state),
    ]


def head_operands(n_windows, n_heads, n_steps, n_state, n_groups, n_features, seed=0):
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    return [
        normal(n_windows, n_steps, n_heads, n_features),
        normal(n_windows, n_steps, n_heads).abs(),
        -normal(n_heads).abs(),
        normal(n_windows, n_steps, n_groups, n_state),
        normal(n_windows, n_steps, n_groups, n_state),
        normal(n_windows, n_heads, n_features, n_state),
    ]


def same_values_and_gradients(ours, theirs, operands):
    """Compare values, and gradients of a random function of both outputs."""
    operands = [t.clone().requires_grad_() for t in operands]
    found, expected = ours(operands), theirs(operands)
    weights = [
        torch.randn(t.shape, generator=torch.Generator().manual_seed(i), dtype=t.dtype)
        for i, t in enumerate(expected)
    ]
    grads = [
        torch.autograd.grad(sum((a * w).sum() for a, w in zip(out, weights, strict=True)), operands)
        for out in (found, expected)
    ]
    for a, b in zip((*found, *grads[0]), (*expected, *grads[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


lengths = st.sampled_from([1, 2, 15, 16, 17, 33, 64])


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(1, 3), lengths, st.integers(1, 4), st.integers(1, 3))
def test_the_selective_scan_is_the_recurrence_with_its_gradients(b, per_group, length, n, groups):
    operands = selective_operands(b, per_group * groups, length, n, groups, seed=length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selective_scan, "STRETCH_VALUES", 1)  # stretches of sixteen steps
        same_values_and_gradients(
            lambda t: scan(*t[:5], state=t[5]), lambda t: recurrence(*t), operands
        )


@settings(max_examples=25)
@given(
    st.integers(1, 3), st.integers(1, 3), lengths, st.integers(1, 4), st.integers(1, 3),
    st.integers(1, 4), st.sampled_from([1, 4, 7, 16]), st.sampled_from([1, 1 << 10]),
)  # fmt: skip
def test_the_chunked_scan_is_the_recurrence_with_its_gradients(
    b, per_group, length, n, groups, features, chunk, values
):
    operands = head_operands(b, per_group * groups, length, n, groups, features, seed=length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssd, "STRETCH_VALUES", {"cpu": values})
        same_values_and_gradients(
            lambda t: ssd_scan(*t[:5], state=t[5], chunk_size=chunk),
            lambda t: head_recurrence(*t),
            operands,
        )


def test_gradients_stand_up_to_differences_of_the_function():
    operands = [t.requires_grad_() for t in selective_operands(1, 4, 18, 2, 2)]
    assert torch.autograd.gradcheck(lambda *t: scan(*t[:5], state=t[5]), operands)
    operands = [t.requires_grad_() for t in head_operands(1, 2, 9, 2, 1, 2)]
    assert torch.autograd.gradcheck(lambda *t: ssd_scan(*t[:5], state=t[5], chunk_size=4), operands)


def test_bias_softplus_skip_and_gate_come_in_the_order_of_the_original():
    u, delta, A, B, C, _ = selective_operands(2, 4, 20, 3, 2)
    D, bias, z = torch.randn(4).double(), torch.randn(4).double(), torch.randn(2, 4, 20).double()
    y, _ = scan(u, delta, A, B, C, D, z=z, delta_bias=bias, delta_softplus=True)
    step = F.softplus(delta + bias[:, None])
    expected, _ = recurrence(u, step, A, B, C, torch.zeros(2, 4, 3).double())
    torch.testing.assert_close(y, (expected + u * D[:, None]) * F.silu(z))


def test_step_sizes_of_heads_are_limited_after_the_softplus():
    x, dt, A, B, C, state = head_operands(1, 2, 20, 3, 1, 2)
    y, last = ssd_scan(x, dt, A, B, C, dt_softplus=True, dt_limit=(0.7, 0.9), state=state)
    expected = head_recurrence(x, F.softplus(dt).clamp(0.7, 0.9), A, B, C, state)
    torch.testing.assert_close((y, last), expected)


def test_step_sizes_of_heads_are_never_negative():
    x, dt, A, B, C, state = head_operands(1, 2, 20, 3, 1, 2)
    bias = torch.tensor([-1.0, 0.2]).double()
    expected = head_recurrence(x, (dt + bias).clamp_min(0), A, B, C, state)
    torch.testing.assert_close(ssd_scan(x, dt, A, B, C, dt_bias=bias, state=state), expected)


def test_maps_that_are_fixed_a_channel_are_taken_too():
    u, delta, A, _, _, state = selective_operands(2, 3, 20, 4, 1)
    B, C = torch.randn(2, 3, 4).double()
    per_step = [t.expand(2, 20, 3, 4).permute(0, 2, 3, 1) for t in (B, C)]
    torch.testing.assert_close(
        scan(u, delta, A, B, C, state=state), recurrence(u, delta, A, *per_step, state)
    )


@pytest.mark.parametrize(("n_in", "n_out"), [(1, 2), (3, 2), (6, 1), (0, 3), (2, 0)])
def test_maps_in_and_out_may_be_shared_by_groups_of_their_own(n_in, n_out):
    u, delta, A, _, _, state = selective_operands(2, 6, 20, 4, 1)

    def maps(n_groups):
        return torch.randn(2, n_groups, 4, 20).double() if n_groups else torch.randn(6, 4).double()

    def by_channel(value):
        if value.ndim == 2:
            return value.expand(2, 20, 6, 4).permute(0, 2, 3, 1)
        return value.repeat_interleave(6 // value.shape[1], 1)

    B, C = maps(n_in), maps(n_out)
    torch.testing.assert_close(
        scan(u, delta, A, B, C, state=state),
        recurrence(u, delta, A, by_channel(B), by_channel(C), state),
    )


@pytest.mark.parametrize("rate", [1e-8, 1e4])
def test_slow_and_fast_decay_neither_overflow_nor_lose_gradients(rate):
    u, delta, A, B, C, _ = (t.float() for t in selective_operands(1, 4, 300, 3, 1))
    operands = [t.requires_grad_() for t in (u, delta, A * rate, B, C)]
    y, last = scan(*operands)
    grads = torch.autograd.grad(y.sum() + last.sum(), operands)
    assert all(t.isfinite().all() for t in (y, last, *grads))
    exact = [t.detach().double() for t in operands]
    expected, _ = recurrence(*exact, torch.zeros(1, 4, 3).double())
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-3)


def test_a_sudden_reset_costs_the_chunked_scan_no_digits_later():
    x, dt, A, B, C, state = (t.float() for t in head_operands(1, 2, 128, 3, 1, 2))
    dt = dt * 0.01
    dt[:, ::32] = 1e4  # the sums of a chunk are in the thousands from its first step on
    y, _ = ssd_scan(x, dt, A, B, C, state=state)
    exact, _ = ssd_scan(*(t.double() for t in (x, dt, A, B, C)), state=state.double())
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-5 * float(exact.abs().max()))


def test_a_step_of_size_zero_leaves_the_state_as_it_is():
    x, dt, A, B, C, state = head_operands(1, 2, 30, 3, 1, 2)
    dt[:, 10:] = 0
    _, last = ssd_scan(x, dt, A, B, C, state=state)
    _, earlier = ssd_scan(x[:, :10], dt[:, :10], A, B[:, :10], C[:, :10], state=state)
    torch.testing.assert_close(last, earlier)


def test_half_precision_is_scanned_in_single_precision():
    u, delta, A, B, C, _ = (t.to(torch.bfloat16) for t in selective_operands(1, 4, 200, 3, 1))
    y, last = scan(u, delta, A, B, C)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    expected, state = scan(*(t.float() for t in (u, delta, A, B, C)))
    torch.testing.assert_close(y, expected.to(torch.bfloat16))
    torch.testing.assert_close(last, state)


def saved_bytes(run):
    """Bytes of all tensors that the backward pass keeps."""
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(kept.values())


def test_what_is_kept_grows_with_length_and_not_with_the_states():
    def kept(n_steps, n_state):
        operands = selective_operands(2, 64, n_steps, n_state, 1)
        operands = [t.float().requires_grad_() for t in operands[:5]]
        return saved_bytes(lambda: scan(*operands))

    assert kept(2048, 16) < 2.1 * kept(1024, 16)
    all_states = 2 * 64 * 2048 * 16 * 4
    assert kept(2048, 16) < 0.3 * all_states


@pytest.mark.parametrize(
    ("name", "shape"),
    [("delta", (1, 4, 7)), ("A", (3, 2)), ("B", (1, 3, 2, 8)), ("C", (1, 2, 7)), ("B", (2, 2, 8))],
)
def test_operands_of_a_scan_that_do_not_fit_are_refused(name, shape):
    shapes = {"u": (1, 4, 8), "delta": (1, 4, 8), "A": (4, 2), "B": (1, 2, 8), "C": (1, 2, 8)}
    operands = {k: torch.zeros(shape if k == name else v) for k, v in shapes.items()}
    with pytest.raises(SignalError, match=rf"{name} \({', '.join(map(str, shape))}\)"):
        scan(**operands)


def test_heads_that_do_not_fit_their_groups_are_refused():
    x, dt, A, B, C, _ = head_operands(1, 3, 8, 2, 3, 2)
    with pytest.raises(SignalError, match=r"B \(1, 8, 2, 2\).*\n.*H a multiple of G"):
        ssd_scan(x, dt, A, B[:, :, :2], C[:, :, :2])


# ---------------------------------------------------------------------------------------
# Compiled, exported, and on kernels


class Both(torch.nn.Module):
    def forward(self, *operands):
        first, _ = scan(*operands[:5])
        second, _ = ssd_scan(*operands[5:])
        return first, second


def all_operands():
    return [
        t.float()
        for t in (*selective_operands(1, 4, 40, 3, 1)[:5], *head_operands(1, 2, 40, 3, 1, 2)[:5])
    ]


def test_a_compiled_scan_is_one_node_with_the_same_numbers_and_gradients():
    operands = [t.requires_grad_() for t in all_operands()]
    compiled = torch.compile(Both(), backend="aot_eager", fullgraph=True)
    found, expected = compiled(*operands), Both()(*operands)
    torch.testing.assert_close(found, expected)
    grads = [
        torch.autograd.grad(sum(t.square().sum() for t in x), operands) for x in (found, expected)
    ]
    torch.testing.assert_close(*grads)


def test_an_exported_scan_gives_the_same_numbers():
    operands = tuple(all_operands())
    exported = torch.export.export(Both(), operands)
    graphs = [m.graph for m in exported.graph_module.modules() if hasattr(m, "graph")]
    nodes = {str(node.target) for graph in graphs for node in graph.nodes}
    assert {"neurofm.selective_scan.default", "neurofm.ssd_scan.default"} <= nodes
    torch.testing.assert_close(exported.module()(*operands), Both()(*operands))


@pytest.fixture
def fake_kernels(monkeypatch):
    """Modules named as those of mamba_ssm, whose functions note what they are given."""
    calls = {}

    def module(name, **functions):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**functions))

    def selective_scan_fn(*args, **kwargs):
        calls["scan"] = (args, kwargs)
        return args[0], args[2]

    def mamba_chunk_scan_combined(*args, **kwargs):
        calls["ssd"] = (args, kwargs)
        return args[0], args[2]

    for parent in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton"):
        module(parent)
    module("mamba_ssm.ops.selective_scan_interface", selective_scan_fn=selective_scan_fn)
    module("mamba_ssm.ops.triton.ssd_combined", mamba_chunk_scan_combined=mamba_chunk_scan_combined)
    kernels._find.cache_clear()
    yield calls
    kernels._find.cache_clear()


def test_kernels_are_used_on_a_gpu_where_they_import(fake_kernels, monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(selective_scan, "scan_kernel", lambda _: kernels.scan_kernel(cuda))
    monkeypatch.setattr(ssd, "ssd_kernel", lambda _: kernels.ssd_kernel(cuda))

    u, delta, A, B, C, _ = selective_operands(1, 4, 8, 3, 1)
    scan(u, delta, A, B, C, delta_bias=A[:, 0], delta_softplus=True)
    args, kwargs = fake_kernels["scan"]
    # u, delta, A, B, C, D, z, delta_bias, delta_softplus: the order of the original
    assert [a is b for a, b in zip(args, (u, delta, A, B, C), strict=False)] == [True] * 5
    assert (args[5], args[6], args[8]) == (None, None, True)
    assert args[7].dtype == torch.float32  # the kernel takes no other
    assert kwargs == {"return_last_state": True}

    x, dt, decay, write, read, state = head_operands(1, 2, 8, 3, 1, 2)
    ssd_scan(x, dt, decay, write, read, chunk_size=256, state=state, dt_limit=(0.0, 1.0))
    args, kwargs = fake_kernels["ssd"]
    assert args[5] == 256
    assert kwargs["initial_states"] is state
    assert kwargs["dt_limit"] == (0.0, 1.0)
    assert kwargs["return_final_states"]


def test_kernels_are_not_asked_for_on_a_cpu(fake_kernels):
    scan(*selective_operands(1, 4, 8, 3, 1)[:5])
    assert not fake_kernels


def test_kernels_that_do_not_import_are_as_good_as_absent(monkeypatch):
    kernels._find.cache_clear()
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    assert kernels.scan_kernel(torch.device("cuda")) is None
    kernels._find.cache_clear()
