"""The log of a node inside a program: its events go to the program, which has a log of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zelect.system.log import _LEVELS, Log, _plain, _text, setup

Forward = Callable[[int, str, str, dict[str, object]], bool]
"""Takes when (Unix, in milliseconds), level, name and fields of an event, which are plain values; whether it could.
Must not wait."""


class ForwardedLog(Log):
    """Gives what happened from `level` up to `forward`, and writes it to `file` too where one is named, as `format`."""

    __slots__ = ("_beside", "_forward")

    def __init__(self, forward: Forward, level: str, format: str, file: str, node: int, cluster: str) -> None:
        super().__init__(-1, level, format, node, cluster)
        self._forward = forward
        self._beside = setup(level, format, file, node, cluster) if file else None

    def set_level(self, level: str) -> None:
        super().set_level(level)
        if self._beside is not None:
            self._beside.set_level(level)

    def event_at(self, at_ms: int, level: str, name: str, fields: Mapping[str, object]) -> None:
        if _LEVELS.get(level, _LEVELS["error"]) < self._least:
            return
        try:
            taken = self._forward(at_ms, level, name, {key: _plain(value) for key, value in fields.items()})
        except Exception:  # a value whose text cannot be made must not end the node
            taken = False
        self.dropped += not taken
        if self._beside is not None:
            self._beside.event_at(at_ms, level, name, fields)


def text_of(name: str, fields: Mapping[str, object]) -> str:
    """An event with plain fields as the text log has it, without time, level and node."""
    return " ".join((_text(name), *(f"{key}={_text(value)}" for key, value in fields.items())))
