"""Adapters: the world, one outside thing a module."""
