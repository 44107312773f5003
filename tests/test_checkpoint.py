"""Checkpoints: what is saved is what is loaded, and what does not fit is refused by name."""

import json
import os
import shutil

import huggingface_hub
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import neurofm
from neurofm import checkpoint
from neurofm.contract import SignalContract
from neurofm.encoder import EncoderConfig
from neurofm.errors import CheckpointError
from neurofm.nn import weights
from neurofm.nn.attention import GridAttention
from neurofm.nn.place import PlaceEncoding
from neurofm.nn.weights import storable

CONTRACT = SignalContract(sfreq=100, band_hz=(0.5, 40), window_s=2, reference={"eeg": "average"})
PROVENANCE = {
    "subjects": {"siesta": ["01", "02"], "nap": ["a"]},
    "recordings": ["siesta_sub-01", "siesta_sub-02", "nap_sub-a"],
}
TRAINING = {"objective": {"name": "masked"}, "steps": 30, "loss": [[0, 1.5], [29, 0.75]]}


def fresh_encoder(seed=0):
    torch.manual_seed(seed)
    values = {"tokenizer": {"name": "conv_patch"}, "backbone": {"depth": 1, "n_heads": 4}}
    return EncoderConfig.model_validate({"width": 16, **values}).build(CONTRACT)


def save_to(path, encoder=None, **changes):
    values = {"contract": CONTRACT, "provenance": PROVENANCE, "training": TRAINING} | changes
    return checkpoint.save(path, encoder or fresh_encoder(), **values)


@pytest.fixture
def saved(tmp_path):
    return save_to(tmp_path / "model")


def edit_config(folder, change):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def edit_weights(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


# ---------------------------------------------------------------------------------------
# Round trip


def test_what_is_saved_is_what_is_loaded(tmp_path):
    encoder = fresh_encoder()
    path = save_to(tmp_path / "deep" / "model", encoder, licence="cc-by-4.0")
    loaded = neurofm.load(str(path))

    state, found = encoder.state_dict(), loaded.encoder.state_dict()
    assert list(state) == list(found)
    assert all(torch.equal(state[name], found[name]) for name in state)
    assert not loaded.encoder.training
    assert loaded.contract == CONTRACT
    assert loaded.config == encoder.config
    assert loaded.provenance == PROVENANCE
    assert loaded.training == TRAINING
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


def test_saving_and_loading_leave_generator_and_encoder_alone(tmp_path):
    encoder = fresh_encoder().train()
    before = torch.get_rng_state()
    checkpoint.load(save_to(tmp_path / "model", encoder))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in encoder.modules())


def test_an_older_checkpoint_is_replaced_whole(saved):
    (saved / "leftover.txt").write_text("from before")
    newer = fresh_encoder(seed=1)
    save_to(saved, newer)
    assert checkpoint.load(saved).digest == checkpoint.weights_digest(newer)
    assert not (saved / "leftover.txt").exists()
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_failed_save_leaves_the_older_checkpoint(saved, monkeypatch):
    before = checkpoint.load(saved).digest
    monkeypatch.setattr(weights, "save_file", lambda *_, **__: (_ for _ in ()).throw(OSError(28)))
    with pytest.raises(OSError, match="28"):
        save_to(saved, fresh_encoder(seed=1))
    monkeypatch.undo()
    assert checkpoint.load(saved).digest == before


def test_weights_in_half_precision_are_stored_as_single(tmp_path):
    encoder = fresh_encoder().to(torch.bfloat16)
    loaded = checkpoint.load(save_to(tmp_path / "model", encoder))
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


def test_the_card_has_front_matter_contract_provenance_and_how_to_load(tmp_path):
    card = (save_to(tmp_path / "model", licence="cc0-1.0") / "README.md").read_text()
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


def test_a_card_without_provenance_says_so(tmp_path):
    card = (save_to(tmp_path / "m", provenance={}, training=None) / "README.md").read_text()
    assert card.count("Not recorded.") == 2


# ---------------------------------------------------------------------------------------
# What save refuses


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    encoder = fresh_encoder()
    with torch.no_grad():
        encoder.mask_token[3] = float("nan")
    with pytest.raises(CheckpointError, match=r"mask_token holds numbers that are not finite"):
        save_to(tmp_path / "model", encoder)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "value", [float("nan"), object(), os.path], ids=["nan", "object", "module"]
)
def test_values_that_are_not_plain_are_refused(tmp_path, value):
    with pytest.raises(CheckpointError, match="provenance must hold plain, finite values only"):
        save_to(tmp_path / "model", provenance={"subjects": {}, "odd": value})
    with pytest.raises(CheckpointError, match="training must hold plain, finite values only"):
        save_to(tmp_path / "model", training={"odd": value})


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="exists and is no checkpoint"):
        save_to(tmp_path)
    with pytest.raises(CheckpointError, match="exists and is no checkpoint"):
        save_to(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_encoder_that_is_not_what_its_config_builds_is_refused(tmp_path):
    encoder = fresh_encoder()
    encoder.tokenizer.extra = torch.nn.Linear(2, 2)
    with pytest.raises(
        CheckpointError, match=r"to be saved.* 2 unexpected: tokenizer\.extra\.bias"
    ):
        save_to(tmp_path / "model", encoder)


# ---------------------------------------------------------------------------------------
# What load refuses


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nowhere"):
        checkpoint.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"for a published one write hf://lab/model"):
        checkpoint.load("lab/model")


def test_a_training_snapshot_is_no_checkpoint(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"last\.ckpt is a file; a checkpoint is a folder"):
        checkpoint.load(tmp_path / "last.ckpt")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"no complete checkpoint: {name} is missing"):
        checkpoint.load(saved)


def test_a_config_that_is_not_json_or_not_ours_is_refused(saved):
    (saved / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not JSON"):
        checkpoint.load(saved)
    for text in ('{"architectures": ["BertModel"]}', "[]", "3"):
        (saved / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match="does not describe a neurofm checkpoint"):
            checkpoint.load(saved)


def test_another_format_is_refused_with_the_version_that_wrote_it(saved):
    edit_config(saved, lambda v: v.update(format=2, neurofm="9.1.0"))
    with pytest.raises(
        CheckpointError, match=r"format 2, written by neurofm 9\.1\.0.*reads format 1\n.*==9\.1\.0"
    ):
        checkpoint.load(saved)


@pytest.mark.parametrize(
    ("part", "wrong", "near"),
    [("tokenizer", "conv_path", "conv_patch"), ("backbone", "trxnsformer", "transformer")],
)
def test_an_unknown_part_names_the_nearest(saved, part, wrong, near):
    edit_config(saved, lambda v: v["encoder"][part].update(name=wrong))
    with pytest.raises(CheckpointError, match=f"unknown {part} '{wrong}'; known: .*\n.*'{near}'"):
        checkpoint.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("contract"), "config.json: contract: Field required"),
        (lambda v: v["encoder"].update(wdth=3), r"unknown key 'encoder\.wdth'.*\n.*'width'"),
        (lambda v: v["contract"].update(sfreq="100"), "contract.sfreq: .* found '100'"),
        (lambda v: v["encoder"].update(tokenizer=None), "unknown tokenizer 'None'"),
        (lambda v: v.update(encoder=7), "unknown tokenizer 'None'"),
        (lambda v: v["encoder"]["tokenizer"].update(patch_s=0.3), "patches of 0.3 s"),
    ],
    ids=["missing", "misspelt", "type", "none", "number", "patch"],
)
def test_a_damaged_config_is_refused_by_key(saved, change, message):
    edit_config(saved, change)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(saved)


def test_missing_weights_are_named(saved):
    edit_weights(saved, lambda s: (s.pop("mask_token"), s.pop("backbone.norm.bias")))
    with pytest.raises(CheckpointError, match=r"2 missing: backbone\.norm\.bias, mask_token"):
        checkpoint.load(saved)


def test_unexpected_weights_are_named(saved):
    edit_weights(saved, lambda s: s.update({"module.mask_token": s.pop("mask_token")}))
    with pytest.raises(
        CheckpointError, match=r"1 missing: mask_token; 1 unexpected: module\.mask_token"
    ):
        checkpoint.load(saved)


def test_mis_shaped_weights_are_named(saved):
    edit_config(saved, lambda v: v["encoder"].update(width=32))
    with pytest.raises(
        CheckpointError, match=r"mask_token has shape|has shape \(16,\), needed is \(32,\) and"
    ):
        checkpoint.load(saved)
    edit_config(saved, lambda v: v["encoder"].update(width=16))
    edit_weights(saved, lambda s: s.update(mask_token=s["mask_token"][:9].clone()))
    with pytest.raises(CheckpointError, match=r"mask_token has shape \(9,\), needed is \(16,\)"):
        checkpoint.load(saved)


def test_weights_of_another_type_are_named(saved):
    edit_weights(saved, lambda s: s.update(mask_token=s["mask_token"].half()))
    with pytest.raises(CheckpointError, match=r"mask_token is torch\.float16, needed is torch\.fl"):
        checkpoint.load(saved)


def test_one_changed_weight_is_noticed(saved):
    def change(state):
        state["mask_token"][0] += 1e-6

    edit_weights(saved, change)
    with pytest.raises(CheckpointError, match=r"weights have digest \w{12}, config\.json was writ"):
        checkpoint.load(saved)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "pickle"])
def test_a_damaged_weights_file_is_refused_and_never_unpickled(saved, damage):
    path = saved / "model.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "garbage":
        path.write_bytes(b"\x00" * 64)
    else:
        torch.save({"mask_token": torch.zeros(16)}, path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        checkpoint.load(saved)


@pytest.mark.parametrize("change", ["attention", "place", "patch"])
def test_code_that_computes_something_else_is_noticed(saved, monkeypatch, change):
    if change == "attention":
        heads = GridAttention.heads
        monkeypatch.setattr(GridAttention, "heads", lambda self, x: heads(self, 0.5 * x))
    elif change == "place":
        waves = PlaceEncoding._waves
        monkeypatch.setattr(PlaceEncoding, "_waves", lambda self, p: waves(self, 1.1 * p))
    else:
        monkeypatch.setattr("neurofm.tokenizers.patch.QUIET", 10.0)
    with pytest.raises(CheckpointError, match="computes something else than when this checkpoint"):
        checkpoint.load(saved)


def test_a_witness_of_another_length_is_noticed(saved):
    edit_config(saved, lambda v: v.update(witness=[[0.0]]))
    with pytest.raises(CheckpointError, match="off by inf"):
        checkpoint.load(saved)


# ---------------------------------------------------------------------------------------
# Published checkpoints


def test_a_published_checkpoint_is_fetched_by_name_and_only_its_three_files(saved, monkeypatch):
    asked = {}

    def snapshot_download(repo_id, **kwargs):
        asked.update(kwargs, repo_id=repo_id)
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    loaded = neurofm.load("hf://lab/model@v1.2", local_files_only=True)
    assert loaded.digest == checkpoint.load(saved).digest
    assert asked == {
        "repo_id": "lab/model",
        "revision": "v1.2",
        "allow_patterns": ["config.json", "model.safetensors", "README.md"],
        "local_files_only": True,
    }
    neurofm.load("hf://lab/model")
    assert asked["revision"] is None
    assert asked["local_files_only"] is False


def test_a_checkpoint_that_was_never_fetched_is_refused_without_asking_the_network():
    with pytest.raises(CheckpointError, match=r"hf://no-such-lab/x: could not be fetched: Local"):
        checkpoint.load("hf://no-such-lab/x", local_files_only=True)


@pytest.mark.parametrize("url", ["hf://model", "hf://a/b/c", "hf://lab/", "hf://lab/m@", "hf://"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(CheckpointError, match=r"no address of a checkpoint\n.*hf://owner/name"):
        checkpoint.load(url)


# ---------------------------------------------------------------------------------------
# Parts


def test_storable_weights_are_copies():
    encoder = fresh_encoder()
    state = storable(encoder)
    with torch.no_grad():
        encoder.mask_token += 1
    assert not torch.equal(state["mask_token"], encoder.mask_token)


def test_a_checkpoint_can_be_moved(saved, tmp_path):
    moved = shutil.move(saved, tmp_path / "elsewhere")
    assert checkpoint.load(moved).provenance == PROVENANCE
