"""swarm: a peer-to-peer container orchestrator. Every host runs the same daemon; any node takes any command; any node may die."""

__version__ = "0.1.0"
