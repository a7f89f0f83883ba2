"""Emulated hosts on one Linux machine: each with a network, an engine and a swarm daemon of its own.

`Testnet.up(hosts=3)` gives a cluster to tests and benchmarks; `./testnet/run` gives the same one to people.
"""
