"""Loading: what does not fit is refused by name, and what is published is fetched by name."""

import json

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

import neurofm
from neurofm import checkpoint
from neurofm.errors import CheckpointError
from neurofm.nn.attention import GridAttention
from neurofm.nn.place import PlaceEncoding


def edit_config(folder, change):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def edit_weights(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


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
