"""Whose codes are whose: what a tokenizer is known by, and who may use what was stored."""

from dataclasses import replace

import mne
import numpy as np
import pytest
import torch
from batches import plain_batch

from neurofm.contract import SignalContract
from neurofm.sensors import sensors_from_info
from neurofm.tokenizers.brain import BrainTokenizerConfig
from neurofm.tokenizers.saved import SavedTokenizer, architecture
from neurofm.tokenizers.spline import spline_matrix
from neurofm.tokenizers.trainable import TRAINABLE

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)
USES = {"discrete", "frozen", "place", "embed"}  # an encoder's choice, whatever was trained


def saved(config, contract=CONTRACT, digest="1"):
    return SavedTokenizer(
        parts=None, config=config, contract=contract, provenance={}, training={}, digest=digest
    )


@pytest.mark.parametrize("name", TRAINABLE)
def test_what_was_trained_is_all_but_how_it_is_used(name):
    config = TRAINABLE[name]()
    spared = USES - ({"place"} if name == "vqnsp" else set())  # there places are learnt
    assert set(config.to_dict()) - set(architecture(config)) == spared & set(config.to_dict())


def test_codes_mean_the_same_under_one_architecture_contract_and_set_of_weights_only():
    config = BrainTokenizerConfig()
    first = saved(config).identity
    assert saved(config.model_copy(update={"frozen": True, "discrete": True})).identity == first
    others = (
        saved(config.model_copy(update={"patch_s": 0.5})),
        saved(config, contract=CONTRACT.model_copy(update={"clip": 20.0})),
        saved(config, digest="2"),
    )
    assert len({first, *(other.identity for other in others)}) == 4


def test_stored_codes_are_for_those_that_do_not_move():
    values = {"patch_s": 0.5, "inner": 16, "n_codes": 8, "n_levels": 2, "n_sources": 3}
    batch = plain_batch(torch.randn(2, 4, 128))
    for frozen in (False, True):
        slot = BrainTokenizerConfig(frozen=frozen, discrete=True, **values).build(CONTRACT, 24)
        codes = slot.codes(batch).to(torch.int16)
        found = slot.stored(replace(batch, codes=codes))
        assert (found is not None) == frozen
        assert slot.stored(batch) is None
    assert torch.equal(found, codes.long())


def test_splines_take_and_give_potentials_of_single_electrodes_only():
    names = ["Fz", "Cz", "Pz", "C3", "C4", "Oz", "F3", "F4-P4"]
    sensors = sensors_from_info(mne.create_info(names, 64.0, "eeg"))
    assert sensors.bipolar.tolist() == [False] * 7 + [True]
    seen = np.array([True] * 6 + [False, False])
    targets, matrix = spline_matrix(sensors, seen)
    assert targets.tolist() == [6]
    seen[7], seen[6] = True, False
    assert not spline_matrix(sensors, seen)[1][:, 7].any()
