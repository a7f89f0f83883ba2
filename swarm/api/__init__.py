"""The HTTP API: what people and programs ask of a node, over its Unix socket or HTTPS."""
