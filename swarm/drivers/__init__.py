"""Drivers: Trio loops that feed cores and carry out their effects."""
