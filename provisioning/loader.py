"""Reading the configuration: a YAML file, then environment variables, then command-line overrides, into `Config`.

Every mistake becomes one line that names its place and its key, as `dialcast.yaml:7: sip.prot: unknown key; did you
mean 'port'?`. A secret is never part of an error. YAML scalars are taken as the text written and typed
by the model alone, so a number keeps its leading zeros and a password `1e3` stays itself.
"""

import difflib
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from provisioning.config import Config, Section
from provisioning.named_files import unusable

ENVIRONMENT_PREFIX = "DIALCAST_"
YAML_TAG = "tag:yaml.org,2002:"

Key = tuple[str | int, ...]
_WORDS = {
    "missing": "is required",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "path_type": "must be a path",
    "model_type": "must be a group of keys",
    "model_attributes_type": "must be a group of keys",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entry",
    "value_error": "{error}",
}


_NAMING = ("domain", "domain_aliases", "domains", "services", "subscribers")
_NAMES = {"domain", "domain_aliases", "name", "aliases", "number"}
"""Top keys and keys whose values are names of domains, and numbers."""


class ConfigError(ValueError):
    """The configuration cannot be used; `problems` holds one clear line for each mistake."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load_config(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
    needed: tuple[str, ...] = (),
) -> Config:
    """The configuration of a YAML file (None: defaults), under `DIALCAST_<SECTION>__<FIELD>` environment variables
    (values in YAML; None: the process's), under `overrides` by dotted key, which come from the command line.
    `needed` are the parts whose files are looked at, too (`named_files`).

    Raises ConfigError naming every mistake with its line, variable or option.
    """
    tree: dict[str, Any] = {}
    places: dict[Key, str] = {}
    if path is not None:
        tree = _read_file(path, places)
    variables = os.environ if environ is None else environ
    for name, key in sorted(_variables(variables)):
        _put(tree, key, _value(variables[name], name), name, places)
    for dotted, value in (overrides or {}).items():
        _put(tree, tuple(dotted.split(".")), value, "command line", places)
    where = str(path) if path else "configuration"
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(*(_problem(detail, places, where, tree) for detail in error.errors())) from None
    if lacking := [f"{places.get(key, where)}: {_dotted(key)}: {why}" for key, why in unusable(config, needed)]:
        raise ConfigError(*lacking)
    return config


def _read_file(path: Path, places: dict[Key, str]) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    tree = _value(text, str(path), places)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}:1: must be a group of keys, like `domain: example.org`")
    return {name: value for name, value in tree.items() if value is not None or not _is_section(name)}


def _is_section(name: str) -> bool:
    """True for the keys that hold a group, which may stand empty with all of their content commented out."""
    field = Config.model_fields.get(name)
    return field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, Section)


def _value(text: str, source: str, places: dict[Key, str] | None = None) -> Any:
    """One YAML document as plain dicts, lists, text and None; `places` gets `source:line` of every key."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if node is None else _build(node, (), source, {} if places is None else places)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        what = "alias or anchor misused" if isinstance(error, yaml.composer.ComposerError) else error.problem
        raise ConfigError(f"{source}:{line}: is not valid YAML: {what} (is a quote or indent missing?)") from None
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"{source}: is not valid YAML: odd characters or endless nesting") from None


def _build(node: yaml.Node, key: Key, source: str, places: dict[Key, str]) -> Any:
    line = f"{source}:{node.start_mark.line + 1}"
    places.setdefault(key, line)
    if not node.tag.startswith(YAML_TAG):
        raise ConfigError(f"{line}: {_dotted(key)}: YAML tags mean nothing here; quote a value that starts with '!'")
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*key, index), source, places) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _build_group(node, key, source, places)
    return None if node.tag == YAML_TAG + "null" else node.value


def _build_group(node: yaml.MappingNode, key: Key, source: str, places: dict[Key, str]) -> dict[str, Any]:
    group: dict[str, Any] = {}
    for name_node, value_node in node.value:
        line = f"{source}:{name_node.start_mark.line + 1}"
        if not isinstance(name_node, yaml.ScalarNode):
            raise ConfigError(f"{line}: {_dotted(key)}: a key must be plain text")
        name = (*key, name_node.value)
        if name_node.value in group:
            raise ConfigError(f"{line}: {_dotted(name)}: given twice (first at {places[name]})")
        places[name] = line
        group[name_node.value] = _build(value_node, name, source, places)
    return group


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[str, Key]]:
    """The environment variables meant for the configuration: those with a `__`, and those named as a top key."""
    for name in environ:
        if name.startswith(ENVIRONMENT_PREFIX):
            key = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            if len(key) > 1 or key[0] in Config.model_fields:
                yield name, key


def _put(tree: dict[str, Any], key: Key, value: object, source: str, places: dict[Key, str]) -> None:
    group = tree
    for part in key[:-1]:
        deeper = group.setdefault(str(part), {})
        if not isinstance(deeper, dict):
            raise ConfigError(f"{source}: {_dotted(key)}: only single values of a section can be set this way")
        group = deeper
    group[str(key[-1])] = value
    for inner in [known for known in places if known[: len(key)] == key]:
        del places[inner]
    places[key] = source


def _problem(detail: ErrorDetails, places: Mapping[Key, str], where: str, tree: dict[str, Any]) -> str:
    key = detail["loc"]
    # A rule over several keys belongs to none of them; its words name them, and the first that was given is the place.
    named = [places[name] for name in _named(detail) if name in places and name != key]
    around = [places[key[:end]] for end in range(len(key), 0, -1) if key[:end] in places]
    known = next(iter([*_culprit(detail, places, tree), *named, *around]), where)
    if detail["type"] == "extra_forbidden":
        text = f"unknown key{_suggestion(key)}"
    else:
        words = _WORDS.get(detail["type"])
        text = words.format(**detail.get("ctx", {})) if words else detail["msg"]
    return f"{known}: {_dotted(key)}: {text}" if key else f"{known}: {text}"


def _culprit(detail: ErrorDetails, places: Mapping[Key, str], tree: dict[str, Any]) -> list[str]:
    """The place of the last domain or number that a rule over the whole configuration complains of by its name."""
    if detail["loc"]:
        return []
    words = set(re.findall(r"[\w.-]+\w", str(detail.get("ctx", {}).get("error", ""))))
    leaves = itertools.chain.from_iterable(_leaves(tree.get(name), (name,)) for name in _NAMING)
    found = [places[key] for key, value in leaves if key in places and value in words and set(key) & _NAMES]
    return sorted(found, key=lambda place: int(place.rpartition(":")[2]) if ":" in place else 0)[-1:]


def _leaves(value: Any, key: Key) -> Iterator[tuple[Key, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, (*key, name))


def _named(detail: ErrorDetails) -> Iterator[Key]:
    """The keys that an error's words are about, as in `sip.bind`, within the section the error was found in."""
    words = re.findall(r"[a-z_.]+[a-z]", str(detail.get("ctx", {}).get("error", "")))
    inner = ((*detail["loc"], *word.split(".")) for word in words)
    outer = (tuple(word.split(".")) for word in words if "." in word)
    return itertools.chain(outer, inner)


def _suggestion(key: Key) -> str:
    """What the unknown key may have meant: the section that has it, or the nearest name in its own."""
    group: type[Section] = Config
    for part in key[:-1]:
        if isinstance(part, int):
            continue
        annotation = group.model_fields[part].annotation
        inner = [kind for kind in (annotation, *getattr(annotation, "__args__", ())) if isinstance(kind, type)]
        group = next(kind for kind in inner if issubclass(kind, Section))
    for name, field in Config.model_fields.items():
        if _is_section(name) and key[-1] in getattr(field.annotation, "model_fields", ()):
            return f"; did you mean '{name}.{key[-1]}'?"
    near = difflib.get_close_matches(str(key[-1]), group.model_fields, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known here: {', '.join(group.model_fields)}"


def _dotted(key: Key) -> str:
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
