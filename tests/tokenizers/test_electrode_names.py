"""The frozen table of electrode names."""

from neurofm.electrodes import normalise_name, template_positions
from neurofm.tokenizers.electrode_names import TEN_FIVE


def test_the_table_has_every_name_of_the_template_that_channels_can_have():
    assert len(set(TEN_FIVE)) == len(TEN_FIVE)
    assert set(TEN_FIVE) == {normalise_name(name) for name in template_positions()}


def test_the_order_is_that_of_checkpoints():
    assert (TEN_FIVE[0], TEN_FIVE[100], TEN_FIVE[-1]) == ("Fp1", "AFF1h", "A2")
