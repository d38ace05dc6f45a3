"""The text of a question about the config, and its reading as a sentence.

A key is ``"<mode> <path>"``. The path is dotted where that is unambiguous (``value model.lr``) and a
JSON list otherwise (``value ["a.b", 3]``), so that it is always one line of encodable text; the whole
config is ``[]``. One read is one question whatever its answer turns out to be, so that a config that is
switched back finds its old trace.
"""

from __future__ import annotations

import json

#: Attribute names and keys from the root of the config to one place in it.
Path = tuple[str | int, ...]

#: What is asked about a place. ``value``: a value's digest, "it is a group", the code of a property or
#: method, or absent. ``has``: is it there. ``keys``, ``len``: of a group. ``whole``: a group with all
#: that is in it and the code of its classes. ``class``: name and code of a group's class. ``auxiliary``: is it that;
#: all that is asked of a place that is.
MODES = ("value", "has", "keys", "len", "whole", "class", "auxiliary")

_SENTENCES = {
    "value": "{}",
    "has": "presence of {}",
    "keys": "keys of {}",
    "len": "number of keys of {}",
    "whole": "all of {}",
    "class": "class of {}",
    "auxiliary": "{}",
}


def make_key(mode: str, path: Path) -> str:
    """The key of a question."""
    return f"{mode} {_path_text(path)}"


def parse_key(key: str) -> tuple[str, Path]:
    """Mode and path of a key.

    Raises
    ------
    ValueError
        If the text is not a key.
    """
    mode, found, text = key.partition(" ")
    if not found or mode not in MODES:
        raise ValueError(f"not a question about the config: {key!r}")
    return mode, _parse_path(text)


def describe_key(key: str) -> str:
    """The question for people: ``lr``, ``presence of z``, ``keys of model``; `key` itself if it is none."""
    try:
        mode, path = parse_key(key)
    except ValueError:
        return key
    return _SENTENCES[mode].format(path_name(path))


def path_name(path: Path) -> str:
    """A path for people."""
    return _path_text(path) if path else "the config"


def _path_text(path: Path) -> str:
    if path and all(map(_is_plain, path)) and not str(path[0]).startswith("["):
        return ".".join(path)  # type: ignore[arg-type]
    return json.dumps(path)


def _is_plain(part: str | int) -> bool:
    return type(part) is str and part != "" and "." not in part and part.isprintable()


def _parse_path(text: str) -> Path:
    if not text.startswith("["):
        return tuple(text.split("."))
    parts = json.loads(text)
    if not all(isinstance(part, (str, int)) for part in parts):
        raise ValueError(f"not a path: {text!r}")
    return tuple(parts)
