from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from neurofm.config import Config, digest_of, find_config, load_config, parse_config
from neurofm.errors import ConfigError


class Random(Config):
    name: Literal["random"] = "random"
    ratio: float = 0.5


class Span(Config):
    name: Literal["span"] = "span"
    length: int = 2


class Optim(Config):
    lr: float = 1e-3
    fused: bool = False


class Run(Config):
    steps: int
    optim: Optim = Field(default_factory=Optim)
    mask: Annotated[Random | Span, Field(discriminator="name")] = Field(default_factory=Random)
    masks: tuple[Annotated[Random | Span, Field(discriminator="name")], ...] = ()
    parts: dict[str, Optim] = Field(default_factory=dict)
    label: str = ""
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    scale: Annotated[float, Field(gt=0)] | dict[Literal["eeg"], Annotated[float, Field(gt=0)]] = 1.0
    files: tuple[Optim, ...] = Field(default=(Optim(),), min_length=1)


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def load(tmp_path, text, *overrides):
    return load_config(Run, write(tmp_path, text), overrides)


def test_yaml_and_overrides_meet_in_one_frozen_config(tmp_path):
    run = load(tmp_path, "steps: 10\nmask: {name: span}\n", "optim.lr=3e-4", "mask.length=4")
    assert (run.steps, run.optim.lr, run.mask.length) == (10, 3e-4, 4)
    with pytest.raises(ValidationError, match="frozen"):
        run.steps = 3


def test_a_section_may_take_over_another_and_say_what_differs(tmp_path):
    text = "steps: 1\nparts:\n  a: &a {lr: 0.5, fused: true}\n  b: {<<: *a, lr: 0.25}\n"
    parts = load(tmp_path, text).parts
    assert parts == {"a": Optim(lr=0.5, fused=True), "b": Optim(lr=0.25, fused=True)}


def test_scientific_notation_without_a_dot_is_a_number(tmp_path):
    assert load(tmp_path, "steps: 1\noptim: {lr: 1e-3}\n").optim.lr == 1e-3


def test_list_items_are_overridden_by_position(tmp_path):
    run = load(tmp_path, "steps: 1\nmasks: [{name: random}, {name: span}]\n", "masks.1.length=7")
    assert run.masks[1].length == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: '10'", r"steps: Input should be a valid integer, found '10'"),
        ("steps: 1\noptim: {fused: 'False'}", r"optim.fused: Input should be a valid boolean, found 'False'"),
        ("stps: 1", r"unknown key 'stps'.*"),
        ("steps: 1\noptim: {lrr: 1}", r"unknown key 'optim.lrr'; known here: fused, lr\n.*did you mean 'lr'\?"),
        ("steps: 1\nmask: {name: sapn}", r"mask.name: unknown name 'sapn'; known: random, span\n.*did you mean 'span'\?"),
        ("steps: 1\nmask: {name: span, lenght: 2}", r"unknown key 'mask.lenght'; known here: length, name"),
        ("steps: 1\nmasks: [{name: random, ratoi: 2}]", r"unknown key 'masks.0.ratoi'; known here: name, ratio"),
        ("steps: 1\nparts: {head: {lrr: 2}}", r"unknown key 'parts.head.lrr'; known here: fused, lr"),
        ("steps: 1\nsteps: 2", r"line 2: the key 'steps' occurs twice"),
        ("steps: [", r"not valid YAML"),
        ("- steps", r"expected keys and values, found list"),
        ("steps: 1\nlabel: 2020-01-01", r"not JSON serializable\n.*quote dates"),
        ("optim: {}", r"steps: Field required"),
        ("steps: 1\nworkers: -1", r"\.yaml: workers: Input should be 'auto'; or Input should be greater than or equal to 0, found -1$"),
        ("steps: 1\nscale: {eeg: -1}", r"\.yaml: scale.eeg: Input should be greater than 0, found -1$"),
        ("steps: 1\nscale: {egg: 1}", r"\.yaml: scale.egg: Input should be 'eeg', found 'egg'$"),
        ("steps: 1\nscale: []", r"\.yaml: scale: Input should be a valid number; or Input should be keys and values, found \[\]$"),
        ("steps: 1\nfiles: [{lr: x}]", r"\.yaml: files.0.lr: Input should be a valid number, found 'x'$"),
        ("steps: 1\nfiles: []", r"\.yaml: files: Tuple should have at least 1 item"),
    ],
)  # fmt: skip
def test_a_wrong_config_names_file_key_and_remedy(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, text)
    assert "run.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", r"override 'steps' is not key=value"),
        ("steps.x=1", r"override steps: it holds the value 1, not keys"),
        ("masks.3.length=1", r"override masks.3: '3' is not one of the 0 items"),
        ("optim.lr=[", r"override optim.lr: not valid YAML"),
    ],
)
def test_a_wrong_override_is_named(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, "steps: 1\nmasks: []\n", override)


def test_a_tilde_is_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    text = "steps: 1\nlabel: ~/a\n"
    assert load(tmp_path, text).label == "/home/anna/a"
    assert load(tmp_path, text, "label=~/b").label == "/home/anna/b"
    assert load(tmp_path, text, "label=a~/b").label == "a~/b"


def test_an_unknown_config_name_gets_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown preprocess config 'eegmatt'.*\n.*'eegmat'"):
        find_config("eegmatt", "preprocess")


def test_yaml_cannot_run_code(tmp_path):
    with pytest.raises(ConfigError, match="not valid YAML"):
        load(tmp_path, "steps: !!python/object/apply:os.getpid []")


@given(
    st.builds(
        Run,
        steps=st.integers(),
        optim=st.builds(Optim, lr=st.floats(allow_nan=False, allow_infinity=False)),
        masks=st.lists(st.one_of(st.builds(Random, ratio=st.floats(0, 1)), st.builds(Span))).map(
            tuple
        ),
        label=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
    )
)
def test_printed_yaml_reads_back_as_the_same_config(run):
    assert parse_config(Run, yaml.safe_load(run.to_yaml()), where="printed") == run


def test_a_digest_ignores_the_order_of_keys_and_nothing_else():
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1, "b": [2]}) != digest_of({"a": 1, "b": [3]})
    assert Run(steps=1).digest() != Run(steps=2).digest()
