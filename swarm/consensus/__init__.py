"""Consensus: a lease-elected leader and a replicated log. See README.md in this folder."""
