"""What is saved is what is loaded, whole or not at all; what cannot be kept is refused."""

import os
import shutil

import pytest
import torch
import yaml

import neurofm
from neurofm import checkpoint
from neurofm.errors import CheckpointError
from neurofm.nn import weights
from neurofm.nn.weights import storable


def test_what_is_saved_is_what_is_loaded(tmp_path, maker):
    encoder = maker.encoder()
    path = maker.save(tmp_path / "deep" / "model", encoder, licence="cc-by-4.0")
    loaded = neurofm.load(str(path))

    state, found = encoder.state_dict(), loaded.encoder.state_dict()
    assert list(state) == list(found)
    assert all(torch.equal(state[name], found[name]) for name in state)
    assert not loaded.encoder.training
    assert loaded.contract == maker.contract
    assert loaded.config == encoder.config
    assert loaded.provenance == maker.provenance
    assert loaded.training == maker.training
    assert loaded.digest == checkpoint.weights_digest(encoder)
    assert loaded.licence == "cc-by-4.0"
    assert loaded.path == path
    assert sorted(p.name for p in path.iterdir()) == [
        "README.md", "config.json", "model.safetensors"
    ]  # fmt: skip
    assert [p.name for p in path.parent.iterdir()] == ["model"]


def test_saving_what_was_loaded_gives_the_same_weights_and_config(saved, tmp_path):
    loaded = checkpoint.load(saved)
    again = checkpoint.save(
        tmp_path / "again",
        loaded.encoder,
        contract=loaded.contract,
        provenance=loaded.provenance,
        training=loaded.training,
    )
    for name in ("config.json", "model.safetensors"):
        assert (again / name).read_bytes() == (saved / name).read_bytes()


def test_saving_and_loading_leave_generator_and_encoder_alone(tmp_path, maker):
    encoder = maker.encoder().train()
    before = torch.get_rng_state()
    checkpoint.load(maker.save(tmp_path / "model", encoder))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in encoder.modules())


def test_an_older_checkpoint_is_replaced_whole(saved, maker):
    (saved / "leftover.txt").write_text("from before")
    newer = maker.encoder(seed=1)
    maker.save(saved, newer)
    assert checkpoint.load(saved).digest == checkpoint.weights_digest(newer)
    assert not (saved / "leftover.txt").exists()
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_failed_save_leaves_the_older_checkpoint(saved, monkeypatch, maker):
    before = checkpoint.load(saved).digest
    monkeypatch.setattr(weights, "save_file", lambda *_, **__: (_ for _ in ()).throw(OSError(28)))
    with pytest.raises(OSError, match="28"):
        maker.save(saved, maker.encoder(seed=1))
    monkeypatch.undo()
    assert checkpoint.load(saved).digest == before


def test_weights_in_half_precision_are_stored_as_single(tmp_path, maker):
    encoder = maker.encoder().to(torch.bfloat16)
    loaded = checkpoint.load(maker.save(tmp_path / "model", encoder))
    assert loaded.digest == checkpoint.weights_digest(encoder.float())


def test_the_digest_sees_names_shapes_types_and_bytes():
    layer = torch.nn.Linear(2, 3)
    digest = checkpoint.weights_digest(layer)
    assert len(digest) == 12
    variants = [torch.nn.Linear(2, 3).bfloat16(), torch.nn.Linear(3, 2), torch.nn.Linear(2, 3)]
    for module in variants:
        module.weight.data = layer.weight.detach().to(module.weight.dtype).view(module.weight.shape)
    variants.append(torch.nn.ModuleDict({"other": layer}))
    assert len({digest, *(checkpoint.weights_digest(v) for v in variants)}) == 5
    with torch.no_grad():
        variants[2].bias.copy_(layer.bias)
    assert checkpoint.weights_digest(variants[2]) == digest


def test_the_card_has_front_matter_contract_provenance_and_how_to_load(tmp_path, maker):
    card = (maker.save(tmp_path / "model", licence="cc0-1.0") / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "cc0-1.0"
    assert front["library_name"] == "neurofm"
    for text in (
        "neurofm.load(",
        "checkpoint.embed(raw)",
        "| window_s | 2 |",
        "| tokenizer.name | conv_patch |",
        "| siesta | 2 subjects: 01, 02 |",
        "Recordings: 3",
        "Last loss: 0.75.",
    ):
        assert text in card, text


def test_a_card_without_provenance_says_so(tmp_path, maker):
    card = (maker.save(tmp_path / "m", provenance={}, training=None) / "README.md").read_text()
    assert card.count("Not recorded.") == 2


def test_storable_weights_are_copies(maker):
    encoder = maker.encoder()
    state = storable(encoder)
    with torch.no_grad():
        encoder.mask_token += 1
    assert not torch.equal(state["mask_token"], encoder.mask_token)


def test_a_checkpoint_can_be_moved(saved, tmp_path, maker):
    moved = shutil.move(saved, tmp_path / "elsewhere")
    assert checkpoint.load(moved).provenance == maker.provenance


# ---------------------------------------------------------------------------------------
# What save refuses


def test_weights_that_are_not_finite_are_not_saved(tmp_path, maker):
    encoder = maker.encoder()
    with torch.no_grad():
        encoder.mask_token[3] = float("nan")
    with pytest.raises(CheckpointError, match=r"mask_token holds numbers that are not finite"):
        maker.save(tmp_path / "model", encoder)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "value", [float("nan"), object(), os.path], ids=["nan", "object", "module"]
)
def test_values_that_are_not_plain_are_refused(tmp_path, value, maker):
    with pytest.raises(CheckpointError, match="provenance must hold plain, finite values only"):
        maker.save(tmp_path / "model", provenance={"subjects": {}, "odd": value})
    with pytest.raises(CheckpointError, match="training must hold plain, finite values only"):
        maker.save(tmp_path / "model", training={"odd": value})


def test_a_folder_of_something_else_is_not_replaced(tmp_path, maker):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="exists and is no checkpoint"):
        maker.save(tmp_path)
    with pytest.raises(CheckpointError, match="exists and is no checkpoint"):
        maker.save(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_encoder_that_is_not_what_its_config_builds_is_refused(tmp_path, maker):
    encoder = maker.encoder()
    encoder.tokenizer.extra = torch.nn.Linear(2, 2)
    with pytest.raises(
        CheckpointError, match=r"to be saved.* 2 unexpected: tokenizer\.extra\.bias"
    ):
        maker.save(tmp_path / "model", encoder)
