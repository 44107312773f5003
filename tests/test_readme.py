"""Every block of the README runs: commands are parsed against the real configs, Python is run."""

import re
import shlex
from pathlib import Path

import pytest

from neurofm.cli import SELF_CONTAINED, STAGES, _parser, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.strip()
    for language, block in BLOCKS
    if language == "bash"
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.strip().startswith("#")
]


def stages_named(text):
    return {word for word in STAGES | SELF_CONTAINED if f"neurofm {word}" in text}


def test_the_readme_shows_a_command_for_every_stage():
    assert stages_named(README) == set(STAGES) | set(SELF_CONTAINED)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("neurofm ")])
def test_every_command_of_the_readme_is_understood(command, capsys):
    words = shlex.split(command, comments=True)[1:]
    if words[0] in STAGES | SELF_CONTAINED:
        assert main([w for w in words if not w.startswith("--")] + ["--print-config"]) == 0
        assert capsys.readouterr().out
    else:
        assert _parser().parse_args(words).command == words[0]


def test_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {words[1] for c in COMMANDS if (words := shlex.split(c))[0] == "make"}
    assert {"demo", "test"} <= named <= targets


def test_files_the_readme_links_to_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    import mne
    import numpy as np

    from neurofm import checkpoint
    from neurofm.contract import SignalContract
    from neurofm.encoder import EncoderConfig
    from neurofm.sensors import sensors_from_info
    from neurofm.signals import Entities, Recording
    from neurofm.store.writer import commit, create_store, write_recording

    contract = SignalContract(sfreq=128, band_hz=(0.5, 45), window_s=4, kinds=("eeg",))
    info = mne.create_info(["Fz", "Cz", "Pz"], 128.0, "eeg")
    signal = 1e-5 * np.random.default_rng(0).standard_normal((3, 128 * 20))
    create_store(tmp_path / "stores" / "eegmat", contract)
    recording = Recording(
        signal=signal.astype(np.float32), sfreq=128.0, sensors=sensors_from_info(info),
        entities=Entities(dataset="eegmat", subject="00"),
    )  # fmt: skip
    row = write_recording(tmp_path / "stores" / "eegmat", recording, quality={}, provenance={})
    commit(tmp_path / "stores" / "eegmat", [row])
    encoder = EncoderConfig.model_validate(
        {"width": 16, "backbone": {"name": "transformer", "depth": 1, "n_heads": 2}}
    ).build(contract)
    folder = tmp_path / "runs" / "pretrain" / "checkpoint"
    folder.parent.mkdir(parents=True)
    checkpoint.save(folder, encoder, contract=contract, provenance={})
    monkeypatch.chdir(tmp_path)
    names = {"raw": mne.io.RawArray(signal, info, verbose="error")}

    blocks = [block for language, block in BLOCKS if language == "python"]
    for block in blocks:
        exec(block, names)  # the README's own words

    out = capsys.readouterr().out
    assert "(5, 16)" in out  # 20 s in windows of 4 s
    assert "(3, 512)" in out
    assert len(blocks) == 2
