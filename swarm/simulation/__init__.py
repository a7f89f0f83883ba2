"""Simulation: a whole cluster of the real cores on virtual time, where rare accidents are common (docs/simulation.md)."""
