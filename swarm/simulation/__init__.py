"""Simulation: a whole cluster of the real cores on virtual time, where rare accidents happen all the time (docs/simulation.md)."""
