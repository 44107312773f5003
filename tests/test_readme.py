"""What documents show is so: commands and configs are parsed, files are there, Python is run."""

import re
import shlex
from pathlib import Path

import pytest
from stores import recording_of, write_store

from neurofm.cli import SELF_CONTAINED, STAGES, _parser, main
from neurofm.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = {p.name: p for p in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))}

SCRIPTS = sorted(ROOT.glob("benchmarks/*.py"))


def text_of(page):
    return PAGES[page].read_text(encoding="utf-8")


def blocks_of(page, language):
    found = re.findall(r"^```(\w+)\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


def commands_of(page):
    return [
        line.strip()
        for block in blocks_of(page, "bash")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip() and not line.strip().startswith("#")
    ]


README = text_of("README.md")
COMMANDS = [command for page in PAGES for command in commands_of(page)]


def stages_named(text):
    return {word for word in STAGES | SELF_CONTAINED if f"neurofm {word}" in text}


def test_the_readme_shows_a_command_for_every_stage():
    assert stages_named(README) == set(STAGES) | set(SELF_CONTAINED)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("neurofm ")])
def test_every_command_is_understood(command, capsys):
    words = shlex.split(command, comments=True)[1:]
    words = [*words[:1], *("tiny" if w == "my_config" else w for w in words[1:])]
    if words[0] in STAGES | SELF_CONTAINED:
        assert main([w for w in words if not w.startswith("--")] + ["--print-config"]) == 0
        assert capsys.readouterr().out
    else:
        assert _parser().parse_args(words).command == words[0]


def test_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {words[1] for c in COMMANDS if (words := shlex.split(c))[0] == "make"}
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_linked_to_or_named_exist(page):
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text_of(page))
    assert [link for link in links if not (PAGES[page].parent / link).exists()] == []
    named = re.findall(r"\b((?:benchmarks|configs|tests)/[\w/]+\.(?:py|yaml))\b", text_of(page))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_what_documents_say_to_scripts_is_known_to_them():
    text = "\n".join(map(text_of, PAGES)) + "\n".join(p.read_text() for p in SCRIPTS)
    said = re.findall(r"python (benchmarks/\w+\.py)((?: --?[\w-]+(?: [\w./]+)*)*)", text)
    flags = [(name, flag) for name, words in said for flag in re.findall(r"--[\w-]+", words)]
    assert len(flags) > 10
    unknown = [(n, f) for n, f in flags if f'"{f}"' not in (ROOT / n).read_text()]
    assert unknown == []


def test_configs_in_documents_are_configs(tmp_path):
    from neurofm.preprocessing.run import PreprocessConfig
    from neurofm.pretrain.run import PretrainConfig

    def config_of(model, page, *overrides):
        (block,) = blocks_of(page, "yaml")
        (tmp_path / page).write_text(block)
        return load_config(model, tmp_path / page, overrides)

    contract = "contract={sfreq: 100, band_hz: [0.5, 40], window_s: 2}"
    assert len(config_of(PreprocessConfig, "sources.md", contract).sources) == 2
    assert config_of(PreprocessConfig, "preprocess.md").cluster.jobs == 20
    run = "stores=[stores/a]", "folder=runs/a", "steps=3"
    assert config_of(PretrainConfig, "tokenize.md", *run).tokenizer_from


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    import mne
    import numpy as np

    from neurofm import checkpoint
    from neurofm.contract import SignalContract
    from neurofm.encoder import EncoderConfig

    contract = SignalContract(sfreq=128, band_hz=(0.5, 45), window_s=4, kinds=("eeg",))
    info = mne.create_info(["Fz", "Cz", "Pz"], 128.0, "eeg")
    signal = 1e-5 * np.random.default_rng(0).standard_normal((3, 128 * 20))
    recording = recording_of(signal, info.ch_names, 128.0, dataset="eegmat", subject="00")
    write_store(tmp_path / "stores" / "eegmat", contract, recording)
    encoder = EncoderConfig.model_validate(
        {"width": 16, "backbone": {"name": "transformer", "depth": 1, "n_heads": 2}}
    ).build(contract)
    folder = tmp_path / "runs" / "pretrain" / "checkpoint"
    folder.parent.mkdir(parents=True)
    checkpoint.save(folder, encoder, contract=contract, provenance={})
    monkeypatch.chdir(tmp_path)
    names = {"raw": mne.io.RawArray(signal, info, verbose="error")}

    blocks = blocks_of("README.md", "python")
    for block in blocks:
        exec(block, names)  # the README's own words

    out = capsys.readouterr().out
    assert "(5, 16)" in out  # 20 s in windows of 4 s
    assert "(3, 512)" in out
    assert len(blocks) == 2


def test_the_python_of_the_page_on_preprocessing_runs(capsys):
    import mne
    import numpy as np

    signal = 1e-5 * np.random.default_rng(0).standard_normal((3, 250 * 20))
    raw = mne.io.RawArray(
        signal, mne.create_info(["Fz", "Cz", "Pz"], 250.0, "eeg"), verbose="error"
    )
    (block,) = blocks_of("preprocess.md", "python")
    exec(block, {"raw": raw})  # the page's own words
    words = capsys.readouterr().out
    assert words.startswith("100.0 ")
    assert all(step in words for step in ("notch", "band_pass", "resample"))


def test_limits_of_bad_channels_are_documented_as_they_are():
    from neurofm.preprocessing.bad_channels import FindBadChannels, Limits

    found = FindBadChannels()
    for name in Limits.model_fields:
        (row,) = re.findall(
            rf"^\| `{name}` \|.*?((?:\| [\w.]+ )+)\|$", text_of("preprocess.md"), re.M
        )
        told = [None if n == "none" else float(n) for n in row.replace("|", " ").split()]
        assert told == [getattr(getattr(found, family), name) for family in ("eeg", "meg", "ieeg")]
