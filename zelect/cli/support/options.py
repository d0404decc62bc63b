"""The options that name a cluster, and the cluster that they name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from zelect.client.query import Asker
    from zelect.config.loading import Config
    from zelect.core.messages import CommonResp, Message
    from zelect.security.keys import Keyring
    from zelect.status.cluster import ClusterStatus
    from zelect.status.report import NodeReport

Command = TypeVar("Command", bound=Callable[..., Any])

DIRECTORY = ".zelect"
_ANSWER_WITHIN_S = 3.0
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
directory_option = click.option(
    "--dir", "directory", metavar="DIR", help=f"Directory of a local cluster.  [default: {DIRECTORY}]"
)
key_option = click.option(
    "--key",
    "key_file",
    envvar="ZELECT_KEY",
    metavar="FILE",
    help="Secret key to use where links are encrypted.  [env: ZELECT_KEY; default: as configured]",
)


config_option = click.option(
    "-c",
    "--config",
    "path",
    metavar="FILE",
    help="The node's configuration (TOML).  [env: ZELECT_CONFIG; default: zelect.toml, /etc/zelect/zelect.toml]",
)
id_option = click.option(
    "--id",
    "node_id",
    type=click.IntRange(1, 65_535),
    default=None,
    metavar="N",
    help="The node's id, whatever the file says.  [env: ZELECT_NODE_ID]",
)


def configured(path: str | None, node_id: int | None) -> Config:
    """The configuration of the node that `config_option` and `id_option` name. Raises `ConfigError`."""
    from zelect.config.loading import chosen, load

    return load(chosen(path), node_id=node_id or 0)


def cluster_options(command: Command) -> Command:
    """-c, --dir and --key; the command gets them as `path`, `directory`, `key_file`, for `Target.of`."""
    command = directory_option(key_option(command))
    return click.option(
        "-c",
        "--config",
        "path",
        metavar="FILE",
        help="Configuration that names the members.  [env: ZELECT_CONFIG; default: zelect.toml, the local cluster in "
        f"{DIRECTORY}, /etc/zelect/zelect.toml]",
    )(command)


def timeout_option(default_s: float, help: str, most_s: float = 86_400) -> Callable[[Command], Command]:
    """--timeout S; the command gets it as `timeout_s`."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(0.05, most_s),
        default=default_s,
        show_default=True,
        metavar="S",
        help=help,
    )


class Duration(click.ParamType[int]):
    """A time such as 90s, 30m or 2h, in milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        import re

        from zelect.core.messages import MAX_FOR_MS

        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d{1,9})(ms|s|m|h|d)", value)
        if found is None:
            self.fail(f"{value!r} is not a duration; write it like 90s, 30m or 2h")
        span_ms = int(found[1]) * _UNITS_MS[found[2]]
        if not 1 <= span_ms <= MAX_FOR_MS:
            self.fail(f"{value!r} must be more than 0 and at most {MAX_FOR_MS // _UNITS_MS['d']}d")
        return span_ms


@dataclass(slots=True)
class Target:
    """The cluster that the options name. `place`: how they name it, to be put behind a command that is
    recommended; `denials`: why nodes that could be reached gave no answer when they were asked last."""

    cluster: str
    addresses: Mapping[int, str]
    keyring: Keyring | None
    config: Config
    place: str = ""
    denials: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, path: str | None, directory: str | None, key_file: str | None, node_id: int | None = None) -> Target:
        """Raises CommandError and UsageError."""
        from pathlib import Path

        from zelect.cli.support.errors import explained
        from zelect.config.loading import load
        from zelect.security.keys import keyring_to_ask

        if path is not None and directory is not None:
            raise click.UsageError("give -c or --dir, not both")
        with explained():
            file = Path(path) if path is not None else configuration(directory)
            if file is None:  # what a local cluster's supervisor wrote is whole
                config = load(_any_conf(Path(directory or DIRECTORY)), environ={})
            else:
                config = load(file, node_id=node_id or 0, member=False)
            keyring = keyring_to_ask(config, key_file or "")
        return cls(config.cluster.name, config.settings().addresses, keyring, config, place_of(path, directory))

    @property
    def own_node(self) -> int:
        """This host's node by the configuration. Raises CommandError where none is named."""
        from zelect.cli.support.errors import CommandError

        if not self.config.node.id:
            raise CommandError(f"{self.config.path}: names no node of this host: give --id N or ZELECT_NODE_ID=N", 2)
        return self.config.node.id

    def known(self, nodes: Iterable[int]) -> None:
        """Raises UsageError unless all `nodes` belong to the cluster: by the configuration, or, where that lags behind,
        by the voter record, which `ask` takes into account."""
        from zelect.status.cluster_text import ids_text

        named, where = set(nodes), "in the configuration"
        if named - set(self.addresses) and self.ask().recorded:
            where = "in the voter record"
        if unknown := sorted(named - set(self.addresses)):
            members = ids_text(self.addresses)
            raise click.UsageError(f"node {unknown[0]} is not {where}; the members are {members}")

    def ask(
        self, within_s: float = 1.0, enough: Callable[[Mapping[int, NodeReport]], bool] = lambda reports: False
    ) -> ClusterStatus:
        """What the nodes say of themselves; see `zelect.client.query.ask_cluster`. From then on `addresses` are those
        of the voter record, and of others that answered."""
        from zelect.client.query import ask_cluster
        from zelect.status.cluster import ClusterStatus

        state = ask_cluster(self.cluster, self.addresses, within_s, enough, self.keyring)
        self.denials = dict(state.denials)
        recorded = state.recorded
        if not recorded or recorded == self.addresses:
            return state
        # The configuration lags behind: the voter record says who belongs to the cluster, and where they are.
        others = {node: at for node, at in recorded.items() if self.addresses.get(node) != at and self.can_ask(node)}
        more = ask_cluster(self.cluster, others, within_s, enough, self.keyring)
        reports = {**state.reports, **more.reports}
        denials = {**state.denials, **more.denials}
        refused = {node for node in {*state.refused, *more.refused} if node not in others or node in more.refused}
        answered = {node: at for node, at in self.addresses.items() if node in reports.keys() - more.reports.keys()}
        self.addresses = {**recorded, **answered}
        self.denials = {node: why for node, why in denials.items() if node not in reports}
        return ClusterStatus(self.cluster, self.addresses, reports, self.denials, refused - reports.keys())

    def can_ask(self, node: int) -> bool:
        """Whether the key of `node` is known, where keys are used."""
        return self.keyring is None or node in self.keyring.directory.nodes

    def answered(self, enough: Callable[[Mapping[int, NodeReport]], bool] = lambda reports: False) -> ClusterStatus:
        """The same, but raises CommandError when no node answers."""
        from zelect.cli.support.errors import CommandError

        state = self.ask(enough=enough)
        if not state.reports:
            raise CommandError(self.no_answer(), 5)
        return state

    def tell(self, nodes: Iterable[int], message: Message) -> dict[int, CommonResp]:
        """Send `nodes` an admin command; their answers, as far as they came within some seconds."""
        from zelect.client.query import tell_all

        addresses = {node: self.addresses[node] for node in nodes}
        return tell_all(self.cluster, addresses, message, _ANSWER_WITHIN_S, self.keyring)

    def asker(self, context: Any) -> Asker:
        """For asking again and again."""
        from zelect.client.query import Asker

        return Asker(self.cluster, self.addresses, context, self.keyring)

    def denial_lines(self) -> list[str]:
        """A line for each reason why nodes that could be reached gave no answer."""
        from zelect.status.cluster_text import denial_lines

        return denial_lines(self.denials)

    def controller(self, state: ClusterStatus, so: str) -> NodeReport:
        """The active node in `state`, to be told something; `so`: what can't be done without it. Raises
        CommandError."""
        from zelect.cli.support.errors import CommandError
        from zelect.status.cluster_text import controller_text

        if state.controller is not None:
            return state.controller
        if state.named is not None:
            lines = [
                f"{controller_text(state)}, but it could not be asked, {so}: run this on its host",
                *self.denial_lines(),
            ]
            raise CommandError("\n".join(lines), 5)
        if not state.is_known:
            raise CommandError(self.not_known(state), 5)
        raise CommandError(f"no node is active, {so}; see 'zelect status{self.place}'", 1)

    def not_known(self, state: ClusterStatus) -> str:
        """Why `state` doesn't tell which node is active, what Redis says, and what to do."""
        from zelect.status.cluster_text import nodes_text, unasked_text

        if not state.reports:
            return "\n".join(filter(None, (self.no_answer(), self.published())))
        follow = "follows" if len(state.reports) == 1 else "follow"
        return "\n".join(
            line
            for line in (
                f"not known which node is active: {nodes_text(state.reports)} {follow} no controller, and a quorum "
                "could not be asked",
                unasked_text(state),
                self.published(),
            )
            if line
        )

    def published(self) -> str:
        """What Redis says of the controller, in one line; "" where none is configured."""
        from zelect.client.published import ask_redis

        if not self.config.redis.url:
            return ""
        seen, problem = ask_redis(self.config)
        if seen is None:
            return f"Redis: {problem or 'names no controller'}"
        return f"Redis names node {seen.id}, term {seen.term} ({seen.address.removeprefix('tcp://')})"

    def no_answer(self) -> str:
        """What to do when no node answered."""
        if self.denials:
            return "\n".join(["no node could be asked", *self.denial_lines()])
        places = ", ".join(address.removeprefix("tcp://") for address in self.addresses.values())
        return f"no node of {self.cluster} answered ({places}): start one, or name another cluster with -c or --dir"


def place_of(path: str | None, directory: str | None) -> str:
    """The options that name this cluster again, behind a command; "" where none is needed."""
    from shlex import quote

    if path is not None:
        return f" -c {quote(path)}"
    return "" if directory in (None, DIRECTORY) else f" --dir {quote(directory)}"


def configuration(directory: str | None) -> Path | None:
    """The one that counts when -c is not given; None: that of a local cluster."""
    import os
    from pathlib import Path

    from zelect.config.sources import OF_THIS_HOST, find

    if directory is not None:
        return None
    found = find(os.environ)
    return None if found == OF_THIS_HOST and Path(DIRECTORY).is_dir() else found


def _any_conf(directory: Path) -> Path:
    """A configuration of the local cluster in `directory`: any node's names all members."""
    from zelect.devcluster.layout import ClusterError, Layout

    layout = Layout(directory)
    layout.check()
    found = sorted(layout.conf.glob("n*.toml"))
    if not found:
        raise ClusterError(
            f"no configurations in {directory}/conf, and no zelect.toml: name a file with -c FILE or ZELECT_CONFIG, or "
            "the directory of a local cluster with --dir DIR, or start a cluster with 'zelect cluster up 3'"
        )
    return found[0]
