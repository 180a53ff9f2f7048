"""A user's own requests from files: ShareGPT JSON, JSON lines, length CSV. All of it is checked, nothing downloaded."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from paperlab.serving.lengths import Empirical

TOKENS_PER_WORD = 4 / 3  # rule of thumb for English and byte-pair vocabularies of 50 k to 150 k entries
_HUMAN, _MODEL = ("human", "user"), ("gpt", "chatgpt", "assistant", "bard", "bing")
_COLUMNS = ("prompt_tokens", "output_tokens", "arrival_s")


def estimate_tokens(text: str) -> int:
    """Return about how many tokens `text` has: 4/3 per word, at least 1. Give a loader a real tokenizer for more."""
    return max(1, round(len(text.split()) * TOKENS_PER_WORD))


def load_sharegpt(path: Path | str, count_tokens: Callable[[str], int] = estimate_tokens) -> Empirical:
    """Return lengths of a ShareGPT file: a JSON list of {"conversations": [{"from": ..., "value": ...}, ...]}.

    A conversation counts with its first human turn that a model's turn follows at once; those without one, or with
    an empty text there, are left out, as serving benchmarks do.

    Args:
        path: the file.
        count_tokens: text to token count, such as `lambda text: len(tokenizer(text).input_ids)`.

    Raises:
        ValueError: not of this form, or no conversation with both turns; the message names file, row and field.
    """
    path = Path(path)
    conversations = _parse(path, path.read_text(encoding="utf-8"), "file")
    if not isinstance(conversations, list):
        raise ValueError(f"{path}: the file holds {_kind(conversations)}; a list of conversations is right")
    pairs = [pair for row, item in enumerate(conversations) if (pair := _first_exchange(path, row, item))]
    if not pairs:
        raise ValueError(f"{path}: conversations: none of {len(conversations)} has a human turn and its answer")
    return Empirical(path.stem, tuple((count_tokens(prompt), count_tokens(answer)) for prompt, answer in pairs))


def _first_exchange(path: Path, row: int, item: Any) -> tuple[str, str] | None:
    where = f"{path}: row {row}"
    turns = item.get("conversations") if isinstance(item, dict) else None
    if not isinstance(turns, list):
        raise ValueError(f"{where}: conversations is {_kind(turns)}; a list of turns is right")
    for turn in turns:
        for field in ("from", "value"):
            value = turn.get(field) if isinstance(turn, dict) else None
            if not isinstance(value, str):
                raise ValueError(f"{where}: {field} is {_kind(value)}; every turn needs a string there")
    for asked, answered in pairwise(turns):
        if asked["from"] in _HUMAN and answered["from"] in _MODEL:
            prompt, answer = asked["value"], answered["value"]
            return (prompt, answer) if prompt.strip() and answer.strip() else None
    return None


def load_jsonl(path: Path | str) -> Empirical:
    """Return the requests of a file with one JSON object a line: prompt_tokens, output_tokens and perhaps arrival_s.

    Raises:
        ValueError: not of this form; the message names file, row (from 1) and field.
    """
    path = Path(path)
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    return _table(path, ((row, _parse(path, line, f"row {row}")) for row, line in lines if line.strip()))


def load_csv(path: Path | str) -> Empirical:
    """Return the requests of a CSV file with the columns prompt_tokens, output_tokens and perhaps arrival_s.

    Raises:
        ValueError: not of this form; the message names file, row (from 1, below the header) and field.
    """
    path = Path(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        return _table(path, enumerate(csv.DictReader(file), start=1))


def _table(path: Path, rows: Iterable[tuple[int, Any]]) -> Empirical:
    lengths, arrivals_s = [], []
    for row, values in rows:
        where = f"{path}: row {row}"
        if not isinstance(values, dict):
            raise ValueError(f"{where}: it holds {_kind(values)}; an object with {', '.join(_COLUMNS)} is right")
        if unknown := [str(name) for name in values if name not in _COLUMNS]:
            raise ValueError(f"{where}: unknown field {unknown[0]!r}; known: {', '.join(_COLUMNS)}")
        lengths.append((_tokens(where, values, "prompt_tokens"), _tokens(where, values, "output_tokens")))
        if "arrival_s" in values:
            arrivals_s.append(_arrival(where, values["arrival_s"]))
        if len(arrivals_s) not in (0, len(lengths)):
            raise ValueError(f"{where}: arrival_s: give one in every row or in none")
    if not lengths:
        raise ValueError(f"{path}: no rows; give at least one with prompt_tokens and output_tokens")
    return Empirical(path.stem, tuple(lengths), tuple(arrivals_s) or None)


def _tokens(where: str, values: Mapping[str, Any], field: str) -> int:
    value = _number(values.get(field))
    if value is None or value != int(value) or value < 1:
        raise ValueError(f"{where}: {field} is {values.get(field)!r}; a whole number from 1 on is right")
    return int(value)


def _arrival(where: str, given: Any) -> float:
    value = _number(given)
    if value is None or value < 0:
        raise ValueError(f"{where}: arrival_s is {given!r}; seconds from 0 on are right")
    return value


def _number(value: Any) -> float | None:
    """Return a finite number, or None for what is none; JSON gives numbers, CSV strings."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _parse(path: Path, text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: {where}: not JSON: {error.msg} at line {error.lineno}") from error


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"
