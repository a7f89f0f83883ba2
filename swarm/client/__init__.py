"""Asks a node's API: over the local Unix socket, or over HTTPS with an API token. Standard library only on the local way."""
