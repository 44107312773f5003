"""Samples counted by several ranks. Little is imported here, since every rank imports it again."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from batches import plain_batch

from neurofm.nn.sample_codes import SampleCodec
from neurofm.tokenizers.sample_coders import AnnealedCoder, QuantileCoder


def counted(signal):
    """Return coders that counted the samples of one batch."""
    batch = plain_batch(signal)
    torch.manual_seed(0)
    quantile = QuantileCoder(20, 32, 15.0).train()
    annealed = AnnealedCoder(SampleCodec(12, 8, 1, "gru", 4), 32).eval()
    quantile.rebuild(batch, batch.present)
    annealed.finish([batch])
    return {"quantile": quantile.state_dict(), "annealed": annealed.state_dict()}


def count_on_rank(rank, where, signal):
    dist.init_process_group("gloo", init_method=f"file://{where}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    torch.save(counted(signal[rank::2]), f"{where}/{rank}.pt")
    dist.destroy_process_group()


def test_ranks_count_what_one_would_and_agree(tmp_path):
    signal = torch.randn(6, 3, 128, generator=torch.Generator().manual_seed(0))
    mp.spawn(count_on_rank, (str(tmp_path), signal), nprocs=2)
    alone = counted(signal)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, state in alone.items():
            assert all(torch.equal(value, found[name][key]) for key, value in state.items())
