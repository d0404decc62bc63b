"""What the commands that admin have in common: times, questions that need an answer, orders."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from zelect.cli.targets import Members, members_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from zelect.client.query import NodeReport
    from zelect.core.messages import AdminCommand, CommonResp

__all__ = ["DURATION", "TELL_S", "hear", "listed", "order_options", "tell"]

_ASK_S = 1.0
TELL_S = 3.0
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class _Duration(click.ParamType[int]):
    """A time such as 90s, 30m or 2h, in milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from zelect.core.messages import MAX_FOR_MS

        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d{1,9})(ms|s|m|h|d)", value)
        if found is None:
            self.fail(f"{value!r} is no time; write it like 90s, 30m or 2h")
        span_ms = int(found[1]) * _UNITS_MS[found[2]]
        if not 1 <= span_ms <= MAX_FOR_MS:
            self.fail(f"{value!r} must be more than nothing, and at most {MAX_FOR_MS // _UNITS_MS['d']}d")
        return span_ms


DURATION = _Duration()


def order_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that name a cluster, and --json."""
    return members_option(click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command))


def hear(
    members: Members, enough: Callable[[Mapping[int, NodeReport]], bool] = lambda reports: False
) -> dict[int, NodeReport]:
    """What the nodes say of themselves. Raises Failure when none says anything."""
    from zelect.cli.errors import CommandError

    reports = members.ask(_ASK_S, enough)
    if not reports:
        raise CommandError(members.explain_no_answer(), members.exit_code(reports))
    return reports


def tell(members: Members, nodes: Iterable[int], message: AdminCommand) -> dict[int, CommonResp]:
    """Give an order to `nodes`; their answers."""
    from zelect.client.query import tell_all

    addresses = {node: members.addresses[node] for node in nodes}
    return tell_all(members.cluster, addresses, message, TELL_S, members.keyring)


def listed(nodes: Iterable[int]) -> str:
    """Ids in a sentence."""
    return ", ".join(map(str, sorted(nodes)))
