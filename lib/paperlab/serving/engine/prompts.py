"""Prompts as token ids: a folder's tokenizer, and the checks that keep a bad id away from the embedding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def load_tokenizer(folder: Path) -> Any | None:
    """Return the folder's tokenizer, or None where it has none; ValueError where it cannot be read."""
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ValueError(
            f"checkpoint {folder}: its tokenizer is not readable ({' '.join(str(error).split())})"
        ) from None


def to_ids(prompts: Sequence[str | Sequence[int]], tokenizer: Any | None, vocab: int) -> list[list[int]]:
    """Return each prompt as a list of ids.

    Raises:
        ValueError: no prompts, one text in place of a list, a text without a tokenizer, a prompt without tokens, an id
            that is none of the vocabulary.
    """
    if isinstance(prompts, str):
        raise ValueError("prompts is one text; give a list of them")
    if not len(prompts):
        raise ValueError("prompts is empty; give at least one")
    found = []
    for index, prompt in enumerate(prompts):
        if isinstance(prompt, str):
            if tokenizer is None:
                raise ValueError(f"prompt {index} is text and there is no tokenizer; give token ids")
            prompt = tokenizer(prompt)["input_ids"]
        ids = [int(token) for token in prompt]
        if not ids:
            raise ValueError(f"prompt {index} has no tokens; give at least one")
        if wrong := [token for token in ids if not 0 <= token < vocab]:
            raise ValueError(f"prompt {index} has token {wrong[0]}; ids go from 0 to {vocab - 1}")
        found.append(ids)
    return found


def per_prompt(name: str, value: T | Sequence[T], count: int) -> list[T]:
    """Return one value per prompt; ValueError for a list of another length."""
    if not isinstance(value, Sequence):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries for {count} prompts; give one each, or one for all")
    return list(value)
