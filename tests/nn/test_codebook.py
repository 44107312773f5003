"""Quantisers: nearest codes, codes that follow, and the same codebook on every rank."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm.errors import ConfigError
from neurofm.nn.codebook import Codebook, kmeans
from neurofm.nn.finite_scalar import FiniteScalar
from neurofm.nn.residual_codes import ResidualCodes


def clusters(n=400, k=8, width=4, seed=0):
    """Tokens around k well separated points."""
    draw = torch.Generator().manual_seed(seed)
    centres = 10 * torch.randn(k, width, generator=draw)
    which = torch.randint(k, (n,), generator=draw)
    return centres, centres[which] + 0.1 * torch.randn(n, width, generator=draw)


@pytest.mark.parametrize("normalise", [False, True])
def test_a_token_becomes_its_nearest_code(normalise):
    torch.manual_seed(0)
    book = Codebook(16, 4, normalise=normalise).eval()
    x = torch.randn(3, 5, 4)
    found = book(x)
    unit = torch.nn.functional.normalize(x, dim=-1) if normalise else x
    distance = torch.cdist(unit.flatten(0, 1), book.vectors)
    assert torch.equal(found.codes.flatten(), distance.argmin(-1))
    torch.testing.assert_close(found.content, book.vectors[found.codes])
    torch.testing.assert_close(found.loss, 0.25 * (unit - found.content).square().mean())


def test_evaluation_changes_no_code():
    torch.manual_seed(0)
    book = Codebook(16, 4).eval()
    before = {name: value.clone() for name, value in book.state_dict().items()}
    book(torch.randn(50, 4))
    assert all(torch.equal(before[name], value) for name, value in book.state_dict().items())


def test_codes_find_the_centres_of_the_tokens_and_all_are_used():
    torch.manual_seed(0)
    centres, x = clusters()
    book = Codebook(8, 4, decay=0.8).train()
    for _ in range(60):
        book(x)
    assert torch.cdist(centres, book.vectors).amin(-1).max() < 0.2
    assert len(book(x).codes.unique()) == 8


def test_without_a_start_and_without_revival_codes_die():
    torch.manual_seed(0)
    _, x = clusters()
    book = Codebook(8, 4, decay=0.8, kmeans=False, revive_below=0).train()
    for _ in range(60):
        book(x)
    assert len(book(x).codes.unique()) < 8


def test_codes_follow_by_a_moving_average():
    book = Codebook(2, 1, decay=0.9, kmeans=False, revive_below=0).train()
    book.vectors.copy_(torch.tensor([[0.0], [10.0]]))
    book.total.copy_(book.vectors)
    book(torch.tensor([[1.0], [2.0], [9.0]]))
    # counts 0.9 + 0.1 n, totals 0.9 t + 0.1 sum
    torch.testing.assert_close(book.count, torch.tensor([1.1, 1.0]))
    torch.testing.assert_close(book.vectors, torch.tensor([[0.3 / 1.1], [9.9]]))


def test_padding_teaches_nothing():
    def taught(x, present):
        torch.manual_seed(0)
        book = Codebook(4, 3, decay=0.5).train()
        loss = book(x, present).loss
        return book.vectors, loss

    draw = torch.Generator().manual_seed(1)
    x = torch.randn(40, 3, generator=draw)
    present = torch.arange(40) < 30
    loud = x.clone()
    loud[30:] = 1e4
    for a, b in zip(taught(x, present), taught(loud, present), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_gradients_pass_the_quantiser(gradient):
    torch.manual_seed(0)
    book = Codebook(16, 4, gradient=gradient).eval()
    x = torch.randn(6, 4, requires_grad=True)
    found = book(x).content
    torch.testing.assert_close(found, book.lookup(book.nearest(x)), atol=1e-5, rtol=1e-5)
    direction = torch.randn(6, 4)
    (grad,) = torch.autograd.grad((found * direction).sum(), x)
    if gradient == "straight_through":
        torch.testing.assert_close(grad, direction)
        return
    # the angle between gradient and token is the angle between direction and code
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(
        cosine(grad, x.detach()), cosine(direction, found.detach()), atol=1e-5, rtol=1e-4
    )
    ratio = found.detach().norm(dim=-1) / x.detach().norm(dim=-1)
    torch.testing.assert_close(
        grad.norm(dim=-1), ratio * direction.norm(dim=-1), atol=1e-5, rtol=1e-4
    )


def test_each_level_of_residual_codes_comes_nearer():
    torch.manual_seed(0)
    book = ResidualCodes(4, 32, 6, decay=0.8).train()
    x = torch.randn(600, 6)
    for _ in range(30):
        found = book(x)
    book.eval()
    found = book(x)
    assert found.codes.shape == (600, 4)
    torch.testing.assert_close(book.lookup(found.codes), found.content, atol=1e-5, rtol=1e-5)
    partial = [sum(book.levels[i].lookup(found.codes[:, i]) for i in range(n)) for n in range(1, 5)]
    errors = [float((x - p).square().mean()) for p in partial]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.3 * errors[0]


@settings(max_examples=30)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=4), st.integers(0, 10_000))
def test_finite_scalar_codes_are_a_bijection(levels, seed):
    book = FiniteScalar(levels)
    x = 3 * torch.randn(50, len(levels), generator=torch.Generator().manual_seed(seed))
    found = book(x)
    assert 0 <= int(found.codes.min()) <= int(found.codes.max()) < book.n_codes
    torch.testing.assert_close(book.lookup(found.codes), found.content)
    assert found.content.abs().max() <= 1
    every = book.lookup(torch.arange(book.n_codes))
    assert len({tuple(row) for row in every.tolist()}) == book.n_codes


def test_finite_scalar_reaches_every_code_and_passes_gradients():
    book = FiniteScalar([4, 3])
    x = torch.linspace(-4, 4, 81)
    grid = torch.cartesian_prod(x, x).requires_grad_()
    found = book(grid)
    assert len(found.codes.unique()) == 12
    found.content.sum().backward()
    assert grid.grad.abs().sum() > 0


def test_finite_scalar_needs_two_levels():
    with pytest.raises(ConfigError, match=r"needs two levels a feature, got \[4, 1\]"):
        FiniteScalar([4, 1])


def test_kmeans_of_fewer_tokens_than_codes_repeats_them():
    torch.manual_seed(0)
    x = torch.randn(3, 2)
    means = kmeans(x, 5)
    assert means.shape == (5, 2)
    assert torch.cdist(means, x).amin(-1).max() < 1e-5


# ---------------------------------------------------------------------------------------
# Several ranks


def train_rank(rank, world, where, x):
    dist.init_process_group("gloo", init_method=f"file://{where}/meet", rank=rank, world_size=world)
    torch.manual_seed(rank)  # ranks draw differently, on purpose
    torch.set_num_threads(1)
    book = ResidualCodes(2, 8, 4, decay=0.8).train()
    shares = x.split([len(x) // 3, len(x) - len(x) // 3]) if world == 2 else (x,)
    for _ in range(20):
        book(shares[rank])
    torch.save(book.state_dict(), f"{where}/{world}-{rank}.pt")
    dist.destroy_process_group()


def follow_rank(rank, world, where, x):
    dist.init_process_group("gloo", init_method=f"file://{where}/meet", rank=rank, world_size=world)
    torch.manual_seed(0)
    book = Codebook(8, 4, decay=0.8, kmeans=False, revive_below=0).train()
    for _ in range(20):
        book(x.split(len(x) // 2)[rank])
    torch.save(book.state_dict(), f"{where}/{rank}.pt")
    dist.destroy_process_group()


def states(where, names):
    return [torch.load(where / f"{name}.pt", weights_only=True) for name in names]


def test_codebooks_are_equal_on_all_ranks(tmp_path):
    _, x = clusters()
    mp.spawn(train_rank, (2, str(tmp_path), x), nprocs=2)
    one, other = states(tmp_path, ["2-0", "2-1"])
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.cdist(x, one["levels.0.vectors"]).amin(-1).max() < 1.0  # and they have learned


def test_two_ranks_teach_what_one_rank_with_all_tokens_does(tmp_path):
    _, x = clusters()
    mp.spawn(follow_rank, (2, str(tmp_path), x), nprocs=2)
    torch.manual_seed(0)
    alone = Codebook(8, 4, decay=0.8, kmeans=False, revive_below=0).train()
    for _ in range(20):
        alone(x)
    for state in states(tmp_path, ["0", "1"]):
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(state[name], value, atol=1e-4, rtol=1e-4)


def test_every_level_of_residual_codes_passes_its_gradient_on():
    book = ResidualCodes(3, 8, 4, gradient="straight_through", kmeans=False).eval()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    book(x).content.sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 3.0))
