"""The JSON files of a checkpoint, read and written; config.json has a module of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crystalline.atomic import json_text
from crystalline.data.pieces import END_OF_TEXT
from crystalline.data.tokenizer_facts import find_separator
from crystalline.errors import CheckpointError
from crystalline.formats.catalog import damage, unreadable
from crystalline.untrusted import BadContent, parse_json
from crystalline.untrusted.files import FileKind


def json_document(value: Any) -> str:
    """Return a document as the files of a checkpoint have it.  Raises `ValueError` for NaN."""
    return json_text(value, indent=2) + "\n"


def read_document(path: Path, kind: FileKind) -> dict[str, Any]:
    """Return the checked document of one kind in the checkpoint `path`.

    Raises `CheckpointError`.
    """
    file = path / kind.name
    try:
        return kind.read(file)
    except PermissionError as error:
        raise unreadable(file, error) from None
    except OSError as error:
        problem = error.strerror or str(error)
    except BadContent as error:
        problem = str(error)
    raise damage(path, f"{file} cannot be used: {problem}")


def tokenizer_document(data: bytes, path: Path) -> dict[str, Any]:
    """Return the content of the tokenizer.json `path`, as far as a checkpoint looks into it.

    Raises `CheckpointError`.
    """
    try:
        document: dict[str, Any] = parse_json(data)
        token_id(document, end_of_text(document))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{path} is not a tokenizer file", advice="Prepare the data again."
        ) from None
    return document


def special_tokens(tokenizer: Mapping[str, Any]) -> list[str]:
    """Return the special tokens of a tokenizer's content."""
    return [
        str(token["content"])
        for token in tokenizer.get("added_tokens") or []
        if token.get("special", True)
    ]


def end_of_text(tokenizer: Mapping[str, Any]) -> str | None:
    """Return the document separator in a tokenizer's content, if it has one."""
    vocabulary = (tokenizer.get("model") or {}).get("vocab")
    if isinstance(vocabulary, dict) and END_OF_TEXT in vocabulary:
        return END_OF_TEXT
    return find_separator(special_tokens(tokenizer))


def token_id(tokenizer: Mapping[str, Any], name: str | None) -> int | None:
    """Return the number of a token in a tokenizer's content, None where it has none."""
    for token in tokenizer.get("added_tokens") or []:
        if token["content"] == name:
            return int(token["id"])
    vocabulary = (tokenizer.get("model") or {}).get("vocab")
    found = vocabulary.get(name) if isinstance(vocabulary, dict) else None
    return None if found is None else int(found)
