"""VQ-NSP and Du-IN: runs that train them, what comes of it, and how an encoder uses it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from stores import recording_of, write_store
from torch.nn.parallel import DistributedDataParallel

from neurofm import checkpoint
from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.data.collate import collate
from neurofm.data.plan import WindowRef
from neurofm.errors import CheckpointError, ConfigError, SignalError
from neurofm.pretrain.run import PretrainConfig
from neurofm.pretrain.run import run as pretrain
from neurofm.store.reader import open_store
from neurofm.tokenizers.du_in import DuInConfig
from neurofm.tokenizers.reconstruction import ReconstructionConfig
from neurofm.tokenizers.run import TokenizeConfig, plan, run
from neurofm.tokenizers.saved import load_tokenizer, put_into
from neurofm.tokenizers.vqnsp import VqnspConfig
from neurofm.tokenizers.vqnsp_parts import target_spectra

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)
SMALL = {"inner": 16, "n_heads": 2, "depth": 1, "n_codes": 12, "code_width": 8}
TOKENIZERS = {
    "vqnsp": {"name": "vqnsp", "patch_s": 0.5, **SMALL},
    "du_in": {"name": "du_in", "patch_s": 0.25, "n_regions": 3, "n_filters": 8, **SMALL},
}
KINDS = {"vqnsp": VqnspConfig, "du_in": DuInConfig}
every_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)


def make_recording(subject, run_):
    draw = np.random.default_rng([int(subject), int(run_)])
    rhythm = np.sin(2 * np.pi * 6 * np.arange(64 * 24) / 64 + draw.uniform(0, 6))
    loud = np.linspace(-1, 1, 4)[:, None]
    names = ["LA1", "LA2", "LA3", "RB1"] if subject == "1" else ["LA1", "RC1", "RC2", "RC3"]
    signal = 1e-5 * (loud * rhythm + 0.1 * draw.standard_normal((4, 64 * 24)))
    return recording_of(signal, names, kind="seeg", subject=subject, run=run_)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    recordings = (make_recording(subject, run_) for subject in "12" for run_ in "12")
    return write_store(tmp_path_factory.mktemp("data") / "store", CONTRACT, *recordings)


def make_config(store, folder, name, **changes):
    values = {
        "stores": [str(store)], "folder": str(folder), "held_out": ["*_run-2"],
        "tokenizer": TOKENIZERS[name], "loader": {"token_budget": 80},
        "optim": {"warmup_steps": 2}, "steps": 12, "snapshot_every": 5, "accelerator": "cpu",
    }  # fmt: skip
    return parse_config(TokenizeConfig, values | changes, where="test")


@pytest.fixture(scope="module")
def results(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {name: run(make_config(store, folder / name, name)) for name in TOKENIZERS}


def windows(store, *names):
    return collate(open_store(store), [WindowRef(n, 64) for n in names], 128, sfreq=64.0)


@every_tokenizer
def test_a_run_ends_in_a_tokenizer_and_a_report(results, name):
    result = results[name]
    terms = {"vqnsp": {"amplitude", "phase"}, "du_in": {"signal"}}[name]
    assert {"loss", "commitment", "correlation", "perplexity"} | terms <= set(result.metrics[0])
    assert "withheld" not in result.metrics[0]
    assert set(result.quality.scores["channels"]) == {"seen"}
    page = (result.folder / "report.html").read_text()
    assert "No withheld electrode" in page
    n_sites, n_patches = {"vqnsp": (4, 4), "du_in": (1, 8)}[name]
    assert result.quality.counts.sum() % (n_sites * n_patches) == 0
    saved = load_tokenizer(result.tokenizer)
    assert saved.config.name == name
    if name == "du_in":
        assert saved.config.channels["toy_sub-1"] == (
            "seeg:LA1",
            "seeg:LA2",
            "seeg:LA3",
            "seeg:RB1",
        )


@every_tokenizer
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    store, results, tmp_path, name, interrupt
):
    interrupt(7, run, make_config(store, tmp_path / "run", name))
    again = run(make_config(store, tmp_path / "run", name))
    assert again.first_step == 5
    assert again.metrics == results[name].metrics
    assert load_tokenizer(again.tokenizer).digest == load_tokenizer(results[name].tokenizer).digest


@every_tokenizer
def test_it_learns_a_rhythm(store, name):
    torch.manual_seed(0)
    reader = open_store(store)
    # the codes of a few tokens must not move slowly
    config = KINDS[name](**{**TOKENIZERS[name], "decay": 0.8})
    parts = config.fitted(reader, reader.index["recording_id"]).build_parts(CONTRACT)
    optimiser = torch.optim.Adam(parts.parameters(), lr=5e-3)
    batch = windows(store, *reader.index["recording_id"])
    first = last = None
    for _ in range(100):
        terms = parts.losses(parts.rebuild(batch, batch.present), batch)
        optimiser.zero_grad()
        terms["total"].backward()
        optimiser.step()
        last = float(terms["correlation"])
        first = last if first is None else first
    assert abs(first) < 0.3
    assert last > 0.6


def test_a_channel_cannot_be_withheld_from_what_gives_back_only_what_it_sees(store, tmp_path):
    config = make_config(store, tmp_path, "vqnsp", objective={"withhold": 0.2})
    with pytest.raises(ConfigError, match=r"withhold is 0\.2, but .* only the channels"):
        run(config)
    parts = VqnspConfig(**TOKENIZERS["vqnsp"]).build_parts(CONTRACT)
    assert ReconstructionConfig().draws(parts).withhold == 0


def test_a_subject_that_is_only_held_out_is_refused_before_training(store, tmp_path):
    config = make_config(store, tmp_path / "run", "du_in", held_out=["toy_sub-2*"])
    with pytest.raises(ConfigError, match="toy_sub-2: there is no row for seeg:LA1"):
        plan(config)
    lenient = {**TOKENIZERS["du_in"], "unseen": "mean"}
    config = make_config(
        store, tmp_path / "run", "du_in", tokenizer=lenient, held_out=["toy_sub-2*"]
    )
    assert "2 recordings held out" in plan(config)


# ---------------------------------------------------------------------------------------
# Spectra


def test_true_spectra_give_the_signal_back():
    patches = torch.randn(2, 3, 4, 32, generator=torch.Generator().manual_seed(0))
    present = torch.ones(2, 3, 4, dtype=torch.bool)
    spectra, of_amplitude, of_phase = target_spectra(patches, present)
    whole = torch.polar(of_amplitude.undo(spectra.amplitude), of_phase.undo(spectra.phase))
    torch.testing.assert_close(torch.fft.irfft(whole, n=32), patches, atol=1e-4, rtol=1e-4)
    for part in (spectra.amplitude, spectra.phase):
        torch.testing.assert_close(part.mean((1, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
        torch.testing.assert_close(part.square().mean((1, 2, 3)), torch.ones(2))


def test_padding_has_no_say_in_spectra_codes_or_losses(store):
    batch = windows(store, "toy_sub-1_run-1", "toy_sub-2_run-1")
    loud = replace(
        batch,
        signal=torch.cat((batch.signal, torch.full_like(batch.signal[:, :1], 1e4)), 1),
        present=torch.cat((batch.present, torch.zeros_like(batch.present[:, :1])), 1),
        **{
            key: torch.cat((value, value[:, :1]), 1)
            for key in ("position", "orientation", "kind", "located", "oriented", "name_code")
            if (value := getattr(batch, key)) is not None
        },
        region_code=None,
    )
    reader = open_store(store)
    for name, kind in KINDS.items():
        torch.manual_seed(0)
        config = kind(**TOKENIZERS[name]).fitted(reader, reader.index["recording_id"])
        parts = config.build_parts(CONTRACT).eval()
        with torch.no_grad():
            found = [parts.losses(parts.rebuild(b, b.present), b) for b in (batch, loud)]
            codes = [parts.codes_of(b) for b in (batch, loud)]
        torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
        assert torch.equal(codes[0], codes[1][:, : codes[0].shape[1]])


# ---------------------------------------------------------------------------------------
# In an encoder


def pretraining(store, folder, results, name, **slot):
    values = {
        "stores": [str(store)], "folder": str(folder),
        "tokenizer_from": str(results[name].tokenizer),
        "encoder": {
            "width": 16, "tokenizer": {**TOKENIZERS[name], "frozen": True, **slot},
            "backbone": {"name": "transformer", "depth": 1, "n_heads": 2},
        },
        "objective": {"name": "code_prediction"}, "loader": {"token_budget": 80},
        "optim": {"warmup_steps": 2}, "steps": 4, "snapshot_every": 3, "accelerator": "cpu",
    }  # fmt: skip
    return parse_config(PretrainConfig, values, where="test")


@every_tokenizer
def test_its_codes_are_predicted_and_the_checkpoint_keeps_it(store, results, tmp_path, name):
    result = pretrain(pretraining(store, tmp_path / "run", results, name))
    assert {"accuracy", "hidden_share"} <= set(result.metrics[0])
    slot = checkpoint.load(result.checkpoint).encoder.tokenizer
    state = load_tokenizer(results[name].tokenizer).parts.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in slot.coder.state_dict().items())
    embed = slot.embed if name == "du_in" else slot.content[0]
    began = [(v, state[f"embed.{k}"]) for k, v in embed.state_dict().items()]
    assert any(not torch.equal(now, then) for now, then in began)  # it goes on learning
    torch.testing.assert_close(*map(list, zip(*began, strict=True)), atol=0.05, rtol=0.05)
    batch = windows(store, "toy_sub-1_run-2")
    parts = load_tokenizer(results[name].tokenizer).parts
    assert torch.equal(slot.codes(batch), parts.codes_of(batch))


@every_tokenizer
def test_tokens_of_codes_show_what_is_hidden_and_are_refused(store, results, tmp_path, name):
    config = pretraining(store, tmp_path, results, name, discrete=True)
    with pytest.raises(ConfigError, match=f"tokens of {name} .* have seen the patches"):
        pretrain(config)
    with pytest.raises(ConfigError, match="which only a frozen tokenizer has"):
        KINDS[name](**{**TOKENIZERS[name], "discrete": True}).build(CONTRACT, 16)


@every_tokenizer
def test_tokens_can_be_made_of_codes(store, results, name):
    saved = load_tokenizer(results[name].tokenizer)
    config = saved.config.model_copy(update={"discrete": True, "frozen": True})
    slot = config.build(CONTRACT, 16)
    put_into(slot, config, CONTRACT, saved)
    batch = windows(store, "toy_sub-1_run-1", "toy_sub-2_run-2")
    grid = slot(batch)
    codes = slot.codes(batch)
    torch.testing.assert_close(grid.content, slot.of_codes(codes))
    assert grid.content.shape[:3] == codes.shape[:3]
    # codes that are carried along are not computed anew
    other = replace(batch, codes=(codes + 1) % 12)
    torch.testing.assert_close(slot(other).content, slot.of_codes((codes + 1) % 12))


@every_tokenizer
def test_without_a_frozen_tokenizer_there_are_no_codes(store, name):
    channels = {"channels": {"toy_sub-1": ["seeg:LA1"]}} if name == "du_in" else {}
    slot = KINDS[name](**{**TOKENIZERS[name], **channels}).build(CONTRACT, 16)
    with pytest.raises(ConfigError, match="no codes without a frozen tokenizer"):
        slot.codes(windows(store, "toy_sub-1_run-1"))


def test_places_are_part_of_what_was_learnt(results):
    saved = load_tokenizer(results["vqnsp"].tokenizer)
    config = VqnspConfig(**{**TOKENIZERS["vqnsp"], "place": {"name": "names"}})
    with pytest.raises(CheckpointError, match="not the one that was trained: place"):
        put_into(config.build(CONTRACT, 16), config, CONTRACT, saved)


def test_a_store_of_other_subjects_is_refused_before_pretraining(store, results, tmp_path):
    other = write_store(tmp_path / "other", CONTRACT, make_recording("3", "1"))
    config = pretraining(other, tmp_path / "run", results, "du_in")
    with pytest.raises(ConfigError, match="toy_sub-3: there is no row for seeg:LA1"):
        pretrain(config)


def test_new_data_of_a_known_subject_are_embedded_and_of_others_refused(store, results, tmp_path):
    result = pretrain(pretraining(store, tmp_path / "run", results, "du_in"))
    loaded = checkpoint.load(result.checkpoint)
    assert loaded.embed(make_recording("1", "9"), allow_unlocated=True).shape == (12, 16)
    with pytest.raises(SignalError, match="no map of channels was learnt for this subject"):
        loaded.embed(make_recording("3", "1"), allow_unlocated=True)


# ---------------------------------------------------------------------------------------
# Several ranks


def train_ranks(rank, where, path):
    dist.init_process_group("gloo", init_method=f"file://{where}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    reader = open_store(path)
    batch = windows(path, f"toy_sub-{rank + 1}_run-1", f"toy_sub-{rank + 1}_run-2")
    for name, kind in KINDS.items():
        torch.manual_seed(0)
        config = kind(**TOKENIZERS[name]).fitted(reader, reader.index["recording_id"])
        objective = ReconstructionConfig().build(config.build_parts(CONTRACT))
        model = DistributedDataParallel(objective)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
        torch.manual_seed(rank)  # ranks draw differently, on purpose
        for _ in range(5):
            optimiser.zero_grad()
            model(batch, torch.Generator().manual_seed(rank)).total.backward()
            optimiser.step()
        torch.save(objective.parts.state_dict(), f"{where}/{name}-{rank}.pt")
    dist.destroy_process_group()


def test_codebooks_are_equal_on_two_ranks(store, tmp_path):
    mp.spawn(train_ranks, (str(tmp_path), store), nprocs=2)
    for name in TOKENIZERS:
        files = [tmp_path / f"{name}-{rank}.pt" for rank in (0, 1)]
        one, other = (torch.load(file, weights_only=True) for file in files)
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert one["codebook.started"]
