"""`swarm`: the table of commands, and how every way a command can end becomes an exit code.

Errors go to standard error as `error:`, `cause:` and `hint:`; never a traceback (SWARM_DEBUG=1 shows one). docs/cli.md lists
the exit codes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from swarm import __version__
from swarm.cli import words
from swarm.cli.lazy import LazyGroup
from swarm.errors import OperatorError, SwarmError

EXIT_BUG = 70
EXIT_INTERRUPTED = 130

_TASK = "swarm.cli.task"
_NODE = "swarm.cli.node"
_CLUSTER = "swarm.cli.cluster"
_HISTORY = "swarm.cli.history"

task = LazyGroup(
    "task", help="Run, list, inspect, follow, stop and remove tasks.",
    lazy={
        "submit": ("swarm.cli.submit", "submit", "Run a container somewhere in the cluster, and wait until it runs."),
        "ls": (_TASK, "ls", "List tasks."),
        "inspect": (_TASK, "inspect", "Everything about a task: its spec, its history, why it waits."),
        "logs": ("swarm.cli.logs", "logs", "What a task's container writes, from whichever node has it."),
        "stop": (_TASK, "stop", "Stop a task."),
        "rm": (_TASK, "rm", "Forget an ended task."),
        "queue": ("swarm.cli.main", "queue", "Tasks that the node asked keeps until there is a leader."),
    },
    words=words.TASK,
)  # fmt: skip
queue = LazyGroup(
    "queue", help="List and remove tasks that were left with a node while there was no leader.",
    lazy={
        "ls": ("swarm.cli.queue", "ls", "List the tasks that the node asked keeps."),
        "rm": ("swarm.cli.queue", "rm", "Remove tasks from the queue of the node asked."),
    },
)  # fmt: skip
node = LazyGroup(
    "node", help="List, inspect, drain, label and remove nodes.",
    lazy={
        "ls": (_NODE, "ls", "List nodes."),
        "inspect": (_NODE, "inspect", "Everything about a node."),
        "rtt": ("swarm.cli.seen", "rtt", "Round trips between all nodes, as a matrix."),
        "drain": (_NODE, "drain", "Move a node's tasks to others, and give it no new ones."),
        "activate": (_NODE, "activate", "Let a drained node take work again."),
        "label": (_NODE, "label", "Set or remove a node's labels."),
        "confirm-dead": (_NODE, "confirm_dead", "Say that a silent node is dead, so that its tasks are replaced now."),
        "rm": (_NODE, "rm", "Remove a node from the cluster, for good."),
    },
    words=words.NODE,
)  # fmt: skip
token = LazyGroup(
    "token", help="Show or make join tokens and API tokens.",
    lazy={
        "show": ("swarm.cli.token", "show", "Show this cluster's join token."),
        "new": ("swarm.cli.token", "new", "Make a join token for a cluster that is yet to be founded. Needs no daemon."),
        "api": ("swarm.cli.token", "api", "Make, list or revoke API tokens."),
    },
)  # fmt: skip
secret = LazyGroup(
    "secret", help="Rotate the cluster's secret, and see how far that is.",
    lazy={
        "rotate": ("swarm.cli.secret", "rotate", "Give the cluster a new secret; the join token becomes another."),
        "status": ("swarm.cli.secret", "status", "The secret's number, the phase of a rotation, and whom it waits for."),
    },
)  # fmt: skip
_BACKUP = "swarm.cli.backup"
backup = LazyGroup(
    "backup", help="Save the cluster's catalog into a file, look into one, make a new cluster from one.",
    lazy={
        "save": (_BACKUP, "save", "Save the catalog into a file."),
        "inspect": (_BACKUP, "inspect", "Check a backup, and show what is in it. Needs no daemon."),
        "restore": (_BACKUP, "restore", "Make a new cluster from a backup, in an empty data folder."),
        "ls": (_BACKUP, "list_kept", "Snapshots that a node keeps by itself."),
    },
)  # fmt: skip
swarm = LazyGroup(
    "swarm",
    help="A peer-to-peer container orchestrator: every host runs the same daemon, any node takes any command.",
    lazy={
        "up": ("swarm.cli.up", "up", "Run this host's daemon: found a cluster, join one, or come back to one."),
        "task": ("swarm.cli.main", "task", "Run, list, inspect, follow, stop and remove tasks."),
        "node": ("swarm.cli.main", "node", "List, inspect, drain, label and remove nodes."),
        "status": (_CLUSTER, "status", "Who leads, which nodes may fail now, and what is wrong."),
        "events": ("swarm.cli.events", "events", "What the cluster decided and the node asked sees; -f goes on."),
        "history": (_HISTORY, "history", "Who did what when: of a task, or of everything."),
        "state": (_HISTORY, "state", "Tasks and nodes as they were at a moment."),
        "diff": (_HISTORY, "diff", "What changed between two moments."),
        "token": ("swarm.cli.main", "token", "Show or make join tokens and API tokens."),
        "secret": ("swarm.cli.main", "secret", "Rotate the cluster's secret, and see how far that is."),
        "backup": ("swarm.cli.main", "backup", "Save the cluster's catalog into a file; make a new cluster from one."),
        "recover": ("swarm.cli.recover", "recover", "Go on with this node when most voters are lost for good."),
        "down": ("swarm.cli.down", "down", "End this host's daemon; containers run on unless --drain."),
        "reset": ("swarm.cli.down", "reset", "Forget this host's cluster."),
    },
    words=words.SWARM,
)
click.version_option(__version__, prog_name="swarm")(swarm)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Output that nobody reads to its end (`swarm history | head`) ends it quietly."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _run(arguments: Sequence[str] | None) -> int:
    stdout = sys.stdout
    try:
        result = swarm.main(args=list(arguments) if arguments is not None else None, prog_name="swarm", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx is not None else "", err=True)
        return 2
    except click.ClickException as error:
        say_error(_sentence(error.format_message()), "", _usage_hint(error))
        return 2
    except OperatorError as error:
        say_error(error.message, error.cause, error.hint)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        said = getattr(error.__cause__ or error, "said", "")  # click hands on what it was made of
        if said:
            print(f"interrupted: {said}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except SystemExit as ended:
        if sys.stdout is stdout:
            raise
        raise BrokenPipeError from ended  # click has put a silent stream in the place of the broken one
    except BrokenPipeError:
        raise
    except Exception as error:
        return _say_bug(error)
    return result if isinstance(result, int) else 0


def say_error(message: str, cause: str, hint: str) -> None:
    """The one form of every error, behind whatever was printed before."""
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    for word, text in (("error", message), ("cause", cause), ("hint", hint)):
        if text:
            print(f"{word}: {text}", file=sys.stderr)


def _sentence(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".") if text[1:2].islower() else text.rstrip(".")


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    hint = getattr(error, "hint", "")
    if isinstance(error, click.NoSuchOption) and context is not None and error.option_name in ("--json", "--format"):
        hint = "did you mean: -o json?" if any(each.name == "output" for each in context.command.params) else ""
    if hint:
        return str(hint)
    return f"see: {context.command_path} --help" if context is not None else "see: swarm --help"


def _say_bug(error: Exception) -> int:
    if os.environ.get("SWARM_DEBUG"):
        raise error
    kind = "" if isinstance(error, SwarmError) else f"{type(error).__name__}: "
    say_error("this should not have happened", f"{kind}{error}", "SWARM_DEBUG=1 shows where; please report it")
    return EXIT_BUG


if __name__ == "__main__":
    raise SystemExit(main())
