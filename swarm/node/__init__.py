"""Composition: the daemon, built of every part, and run. Only this package knows both adapters and drivers."""

from swarm.node.start import run

__all__ = ["run"]
