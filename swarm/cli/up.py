"""`swarm up`: options and environment, checked and made a `NodeConfig`; then the daemon runs in the foreground."""

from __future__ import annotations

import os
import re
import socket as sockets

import click

from swarm.errors import StartRefused, UsageError
from swarm.model.ids import is_name
from swarm.schema.node_config import (
    API_PORT,
    DATA_DEFAULT,
    ENGINE_DEFAULT,
    PEER_PORT,
    SOCKET_DEFAULT,
    VOTER_GIVE_UP_S,
    NodeConfig,
)
from swarm.schema.quantities import parse_size
from swarm.schema.request import check_label
from swarm.wire.address import format_address, parse_address

HISTORY_BYTES_MIN = 4 * 1024 * 1024
VOTER_GIVE_UP_MIN_S = 15.0
"""A voter that is silent for less is not even replaced."""


@click.command()
@click.option("--peers", envvar="SWARM_PEERS", default="", show_envvar=True, metavar="HOST,...",
              help="Join the cluster that these belong to.")  # fmt: skip
@click.option("--name", envvar="SWARM_NAME", default="", show_envvar=True, help="This node's name; by default the host's.")
@click.option("--listen", envvar="SWARM_LISTEN", default="0.0.0.0", show_envvar=True, show_default=True, metavar="HOST[:PORT]",
              help=f"Where peers are received (port {PEER_PORT}).")  # fmt: skip
@click.option("--api-listen", envvar="SWARM_API_LISTEN", default="", show_envvar=True, metavar="HOST[:PORT]",
              help=f"Where the API is served by HTTPS; by default the host of --listen, port {API_PORT}.")  # fmt: skip
@click.option("--advertise", envvar="SWARM_ADVERTISE", default="", show_envvar=True, metavar="HOST[:PORT]",
              help="The address told to others; by default that of the route to the first peer.")  # fmt: skip
@click.option("--data", envvar="SWARM_DATA", default=DATA_DEFAULT, show_envvar=True, show_default=True, help="The data folder.")
@click.option("--socket", envvar="SWARM_SOCKET", default=SOCKET_DEFAULT, show_envvar=True, show_default=True,
              help="The Unix socket for commands on this host.")  # fmt: skip
@click.option("--engine", envvar=["SWARM_ENGINE", "DOCKER_HOST"], default=ENGINE_DEFAULT, show_envvar=True, show_default=True,
              help="The Docker Engine.")  # fmt: skip
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE",
              help="A label of this node; may be repeated.  [env var: SWARM_LABELS, with commas]")  # fmt: skip
@click.option("--token-file", envvar="SWARM_TOKEN_FILE", default="", show_envvar=True, help="A file with the join token.")
@click.option("--found", envvar="SWARM_FOUND", is_flag=True, show_envvar=True, help="Found a cluster although a token is given.")
@click.option("--witness/--no-witness", envvar="SWARM_WITNESS", default=None, show_envvar=True,
              help="Vote and hold the log, but run no containers; needs no engine.")  # fmt: skip
@click.option("--voter-give-up", "voter_give_up_s", envvar="SWARM_VOTER_GIVE_UP", default=VOTER_GIVE_UP_S, show_envvar=True,
              show_default=True, type=click.FloatRange(min=VOTER_GIVE_UP_MIN_S),
              help="Seconds until a dead voter that nobody can replace votes no more; the same on every node.")  # fmt: skip
@click.option("--log-level", envvar="SWARM_LOG_LEVEL", default="info", show_envvar=True, show_default=True,
              type=click.Choice(["debug", "info", "warning", "error"]), help="How much is logged to standard error.")  # fmt: skip
@click.option("--history-size", envvar="SWARM_HISTORY_SIZE", default="256M", show_envvar=True, show_default=True, metavar="SIZE",
              help="What the kept history may take on disk; 0 keeps none.")  # fmt: skip
@click.option("--history-days", envvar="SWARM_HISTORY_DAYS", default=30.0, show_envvar=True, show_default=True,
              type=click.FloatRange(min=0.01), help="How old the kept history may become.")  # fmt: skip
def up(
    peers: str, name: str, listen: str, api_listen: str, advertise: str, data: str, socket: str, engine: str,
    labels: tuple[str, ...], token_file: str, found: bool, witness: bool | None, voter_give_up_s: float, log_level: str,
    history_size: str, history_days: float,
) -> None:  # fmt: skip
    """Run this host's daemon, in the foreground.

    Without peers, token or data it founds a cluster of one and prints the line for the other hosts. With --peers it joins theirs
    (the token comes from --token-file or SWARM_TOKEN). With data it comes back to the cluster it belongs to.
    """
    peer_host, peer_port = parse_address(listen, PEER_PORT)
    config = NodeConfig(
        name=checked_name(name),
        listen=format_address(peer_host, peer_port),
        api_listen=format_address(*parse_address(api_listen or format_address(peer_host, api_port(peer_port)), API_PORT)),
        advertise=format_address(*parse_address(advertise, peer_port)) if advertise else "",
        peers=tuple(format_address(*parse_address(peer, PEER_PORT)) for peer in re.split(r"[,\s]+", peers) if peer),
        data=os.path.abspath(data),
        socket=os.path.abspath(socket),
        engine=checked_engine(engine),
        labels=read_labels(labels or tuple(filter(None, os.environ.get("SWARM_LABELS", "").split(",")))),
        token=read_token(token_file),
        found=found,
        log_level=log_level,
        history_bytes=checked_history_size(history_size),
        history_days=history_days,
        witness=witness,
        voter_give_up_s=voter_give_up_s,
    )
    from swarm.node import run

    click.get_current_context().exit(run(config) or 0)


def api_port(peer_port: int) -> int:
    """The port after the peers': two daemons on one host that differ in the one differ in the other."""
    return API_PORT if peer_port == PEER_PORT else min(peer_port + 1, 65535)


def checked_name(name: str) -> str:
    """The name given, or one made of the host's."""
    if not name:
        name = re.sub(r"[^a-z0-9._-]+", "-", sockets.gethostname().split(".")[0].lower()).strip("-._")[:63] or "node"
    if not is_name(name):
        hint = "use 1 to 63 of a-z 0-9 . _ - and start and end with a letter or digit"
        raise UsageError(f"{name!r} cannot name a node", hint=hint)
    return name


def checked_history_size(text: str) -> int:
    """Bytes: none, or enough for a few segments."""
    size = parse_size(text, field="history-size")
    if 0 < size < HISTORY_BYTES_MIN:
        raise UsageError(f"a history of {text} is too small", hint="give 4M or more, or 0 for none")
    return size


def checked_engine(engine: str) -> str:
    """A URL the engine's client understands; a bare path is a Unix socket."""
    if engine.startswith("/"):
        engine = f"unix://{engine}"
    if not re.fullmatch(r"(unix:///|tcp://|http://|https://).+", engine):
        raise UsageError(f"cannot read the engine {engine!r}", hint=f"write it like {ENGINE_DEFAULT}")
    return engine


def read_labels(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Sorted; the last of one key wins."""
    labels = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator:
            raise UsageError(f"cannot read the label {text!r}", hint="write it like disk=ssd")
        check_label(key, value)
        labels[key] = value
    return tuple(sorted(labels.items()))


def read_token(token_file: str) -> str:
    """From the file, else from SWARM_TOKEN; checked for being whole."""
    from swarm.wire.token import parse_token

    text = os.environ.get("SWARM_TOKEN", "")
    if token_file:
        try:
            with open(token_file, encoding="utf-8") as opened:
                text = opened.read(4096)
        except (OSError, UnicodeDecodeError) as error:
            cause = getattr(error, "strerror", None) or str(error)
            raise StartRefused(f"cannot read the token file {token_file}", cause=cause, hint="check --token-file") from None
        if not text.strip():
            raise StartRefused(f"the token file {token_file} is empty", hint="fill it on a member with: swarm token show")
    if text.strip():
        parse_token(text)
    return text.strip()
