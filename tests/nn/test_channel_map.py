"""Rows of weights for the channels of every owner, found by name."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm.nn.channel_map import ChannelIndex, ChannelRows

CODES = st.integers(1, 2**62)
OWNERS = st.dictionaries(CODES, st.lists(CODES, min_size=1, max_size=4, unique=True), min_size=1)


@settings(max_examples=50)
@given(channels=OWNERS, stranger=CODES)
def test_every_channel_of_every_owner_has_a_row_of_its_own(channels, stranger):
    index = ChannelIndex(channels)
    seen = set()
    for number, (owner, names) in enumerate(channels.items()):
        rows = index(torch.tensor([owner]), torch.tensor([names]))
        assert rows.known.all()
        assert rows.named.all()
        assert rows.owned.item()
        assert rows.owner.item() == number
        seen |= set(rows.row[0].tolist())
    assert seen == set(range(index.n_rows))
    rows = index(torch.tensor([stranger]), torch.tensor([[0]]))
    assert not rows.known.any()
    assert rows.owned.item() == (stranger in channels)


def test_a_foreign_owner_gets_the_mean_of_the_rows_of_a_name():
    index = ChannelIndex({7: [1, 2], 5: [2, 3]})
    table = ChannelRows(index, 4, 1.0)
    ask = index(torch.tensor([7, 5, 9]), torch.tensor([[2, 3, 0], [2, 1, 0], [2, 1, 8]]))
    weight = table(ask)
    w = table.weight
    expected = [
        [w[1], torch.zeros(4), torch.zeros(4)],  # 3 is another's
        [w[2], torch.zeros(4), torch.zeros(4)],
        [(w[1] + w[2]) / 2, w[0], torch.zeros(4)],
    ]
    torch.testing.assert_close(weight, torch.stack([torch.stack(row) for row in expected]))
