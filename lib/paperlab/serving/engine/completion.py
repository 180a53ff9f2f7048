"""What comes back from an engine: whole completions, or pieces of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from paperlab.serving.events import EventLog


@dataclass(frozen=True)
class Completion:
    """The answer to one prompt; `text` is None where there is no tokenizer."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    finish_reason: Literal["length", "stop", "refused"]
    text: str | None = None
    detail: str = ""  # why it was refused


class Piece(NamedTuple):
    """One token of a stream: the prompt's place, the token, and the text that it completes ("" if none yet)."""

    prompt: int
    token: int
    text: str = ""


class Detokenizer:
    """Turns the growing token lists of a stream into pieces of text, each character once."""

    def __init__(self, tokenizer: Any | None) -> None:
        self._tokenizer = tokenizer
        self._tokens: dict[int, list[int]] = {}
        self._shown: dict[int, int] = {}

    def piece(self, index: int, token: int) -> Piece:
        """Return the piece that `token` adds."""
        if self._tokenizer is None:
            return Piece(index, token)
        tokens = self._tokens.setdefault(index, [])
        tokens.append(token)
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        if text.endswith("\ufffd"):  # half of a character: the next token completes it
            return Piece(index, token)
        shown = self._shown.get(index, 0)
        self._shown[index] = len(text)
        return Piece(index, token, text[shown:])


def completions(
    prompts: list[list[int]], tokens: dict[int, list[int]], stopped: set[int], log: EventLog, tokenizer: Any | None
) -> list[Completion]:
    """Return the completions of one run; `tokens` holds prompts and outputs, `stopped` those a stop token ended."""
    refused = {note.request_id: note.detail for note in log.notes if note.kind == "refuse"}
    found = []
    for index, prompt in enumerate(prompts):
        if index in refused:
            found.append(Completion(tuple(prompt), (), "refused", None, refused[index]))
            continue
        output = tokens[index][len(prompt) :]
        text = tokenizer.decode(output, skip_special_tokens=True) if tokenizer is not None else None
        found.append(Completion(tuple(prompt), tuple(output), "stop" if index in stopped else "length", text))
    return found
