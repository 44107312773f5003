"""Configs: YAML values and ``key=value`` overrides into frozen, validated models.

A config holds values, never code: nothing in it is imported or executed. It never touches
disk, device or clock; `load_config` is the only function here that reads a file.
"""

from __future__ import annotations

import hashlib
import json
import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from neurofm.errors import ConfigError, nearest, unknown_name

CONFIGS = Path(__file__).parent / "configs"


class Config(BaseModel):
    """Base of every config: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON or YAML."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return the resolved config as YAML that `load_config` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def digest(self) -> str:
        """Twelve characters that change when any value does."""
        return digest_of(self.to_dict())


C = TypeVar("C", bound=Config)


def in_home(value: str) -> str:
    """Replace ``~/`` at the beginning of a value by the user's home."""
    return str(Path(value).expanduser()) if value.startswith("~/") else value


HomePath = Annotated[str, AfterValidator(in_home)]  # of a default, which no file says


def digest_of(values: Any) -> str:
    """Twelve hexadecimal characters that identify plain values."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def load_config(
    model: type[C], source: str | Path | None, overrides: Sequence[str] = (), *, stage: str = ""
) -> C:
    """Read a YAML file, apply overrides, and validate.

    Parameters
    ----------
    model : type of Config
        What the file describes.
    source : str or Path, optional
        A path, or the name of a file under ``configs/<stage>/``. Without one, only the
        overrides are set.
    overrides : sequence of str
        ``key=value``, with dots for nesting and integers for list items. The value is
        YAML: ``optim.lr=1e-3``, ``sources.0.include=['*.edf']``. A value that begins with
        ``~/``, here or in the file, is a path in the user's home.
    stage : str
        The folder of ``configs/`` in which names are looked up.

    Returns
    -------
    Config
        The frozen config.

    Raises
    ------
    ConfigError
        If the file is missing or not YAML, a key is unknown or twice there, or a value
        has the wrong type; the message carries the path inside the YAML.
    """
    values = {} if source is None else _read_yaml(find_config(source, stage))
    for override in overrides:
        _override(values, override)
    values = _at_home(values)
    return parse_config(model, values, where=stage if source is None else str(source))


def parse_config(model: type[C], values: Any, *, where: str) -> C:
    """Validate plain values strictly: no text is taken for a number or a boolean.

    Raises
    ------
    ConfigError
        As `load_config`.
    """
    try:
        return model.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise _explain(model, error, where) from None
    except TypeError as error:
        raise ConfigError(f"{where}: {error}", hint="quote dates and times in YAML") from None


def find_config(source: str | Path, stage: str = "") -> Path:
    """Return the file a config name or path stands for.

    Raises
    ------
    ConfigError
        If there is no such file; the nearest known name is given.
    """
    path = Path(source)
    if path.is_file():
        return path
    folder = CONFIGS / stage
    for candidate in (folder / f"{source}.yaml", CONFIGS / str(source), CONFIGS / f"{source}.yaml"):
        if candidate.is_file():
            return candidate
    known = [p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml")]
    raise unknown_name(f"{stage} config".strip(), str(source), known)


# ---------------------------------------------------------------------------------------
# YAML


class _Loader(yaml.SafeLoader):
    """YAML with two traps removed: `1e-3` is a number, and a key may not occur twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # `<<: *other` takes over what is not said here
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"line {line}: the key {key!r} occurs twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # a SafeLoader: plain values only
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {error}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    values = _parse_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(values).__name__}")
    return values


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r} is not key=value", hint="for example: steps=2000")
    parts = key.split(".")
    here: Any = values
    for depth, part in enumerate(parts[:-1]):
        here = _descend(here, part, ".".join(parts[: depth + 1]))
    last = parts[-1]
    value = _parse_yaml(text, f"override {key}")
    if isinstance(here, list):
        here[_position(here, last, key)] = value
    else:
        here[last] = value


def _at_home(value: Any) -> Any:
    """Replace ``~/`` at the beginning of a value: shells leave it alone after ``key=``."""
    if isinstance(value, dict):
        return {key: _at_home(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_at_home(below) for below in value]
    return in_home(value) if isinstance(value, str) else value


def _descend(here: Any, part: str, path: str) -> Any:
    if isinstance(here, list):
        return here[_position(here, part, path)]
    below = here.setdefault(part, {})
    if below is None:
        below = here[part] = {}
    if not isinstance(below, dict | list):
        raise ConfigError(f"override {path}: it holds the value {below!r}, not keys")
    return below


def _position(items: list[Any], part: str, path: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigError(f"override {path}: {part!r} is not one of the {len(items)} items there")
    return int(part)


# ---------------------------------------------------------------------------------------
# Messages


def _explain(model: type[BaseModel], error: ValidationError, where: str) -> ConfigError:
    lines: list[str] = []
    hints: list[str] = []
    wrong: dict[str, list[str]] = {}
    values: dict[str, str] = {}
    items = error.errors(include_url=False)
    paths = [_path(model, tuple(item["loc"])) for item in items]
    for item, path in zip(items, paths, strict=True):
        loc = tuple(item["loc"])
        if any(other.startswith(f"{path}.") for other in paths):
            continue  # what is wrong inside says more
        if item["type"] == "extra_forbidden":
            known = sorted({f for m in _models_at(model, loc[:-1]) for f in m.model_fields})
            lines.append(f"{where}: unknown key {path!r}; known here: {', '.join(known)}")
            if close := nearest(str(loc[-1]), known):
                hints.append(f"did you mean {close!r}?")
        elif item["type"] == "union_tag_invalid":
            tags = re.findall(r"'([^']+)'", item["ctx"]["expected_tags"])
            tag = str(item["ctx"]["tag"])
            lines.append(f"{where}: {path}.name: unknown name {tag!r}; known: {', '.join(tags)}")
            if close := nearest(tag, tags):
                hints.append(f"did you mean {close!r}?")
        else:
            # a value that may be of several types is wrong for each of them
            message = item["msg"].removeprefix("Value error, ")
            message = message.replace("valid array", "list").replace("an object", "keys and values")
            found = "" if item["type"] == "missing" else f", found {_short(item['input'])}"
            wrong.setdefault(path, []).append(message)
            values[path] = found
    lines += [f"{where}: {p}: {'; or '.join(told)}{values[p]}" for p, told in wrong.items()]
    return ConfigError("\n".join(lines), hint="; ".join(dict.fromkeys(hints)) or None)


def _path(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    parts = [str(part) for part in _without_tags(model, loc) if part != "[key]"]
    return ".".join(parts) or "(top level)"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _walk(model: type[BaseModel], loc: tuple[int | str, ...]) -> Iterator[tuple[bool, Any]]:
    """Yield, for each part of `loc`, whether it is a real key, and the annotation below it."""
    here: Any = model
    for part in loc:
        candidates = list(_models_in(here))
        tagged = [m for m in candidates if len(candidates) > 1 and part in _tags(m)]
        if tagged:
            here = tagged[0]
            yield False, here
            continue
        if not candidates and isinstance(part, str) and (among := _members(here)):
            # pydantic names the type of a union that it tried
            tables = [a for a in among if part.startswith("dict[") and get_origin(a) is dict]
            here = (tables or among)[0]
            yield False, here
            continue
        fields = [m.model_fields[part] for m in candidates if part in m.model_fields]
        if fields and _is_model_like(here):
            here = fields[0].annotation
        elif args := [a for a in get_args(here) if a is not type(None)]:
            here = args[-1] if get_origin(here) is dict else args[0]
        yield True, here


def _members(annotation: Any) -> list[Any]:
    """Return the types of a union other than None; empty if it is none, or has one only."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return []
    members = [a for a in get_args(annotation) if a is not type(None)]
    return members if len(members) > 1 else []


def _is_model_like(annotation: Any) -> bool:
    origin = get_origin(annotation)
    return origin in (None, Union, types.UnionType) or bool(
        origin is not None and not isinstance(origin, type)
    )


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for arg in get_args(annotation):
        if get_origin(annotation) is not Literal:
            yield from _models_in(arg)


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("name")
    return get_args(field.annotation) if field else ()


def _without_tags(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[int | str]:
    return [part for part, (real, _) in zip(loc, _walk(model, loc), strict=True) if real]


def _models_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[type[BaseModel]]:
    here: Any = model
    for _, below in _walk(model, loc):
        here = below
    return list(_models_in(here))
