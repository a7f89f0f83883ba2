"""Every size limit on bytes from outside, in one place."""

from __future__ import annotations

PACKET_BYTES_MAX = 1_400
"""One UDP datagram, seal included: fits an Ethernet frame with room for tunnels."""

FRAME_BYTES_MAX = 4 * 1024 * 1024
"""One frame on a peer stream. Larger things (snapshots) go in chunks on a connection of their own."""

SNAPSHOT_CHUNK_BYTES = 256 * 1024
"""One chunk of a snapshot."""

PAYLOAD_BYTES_MAX = 1024 * 1024
"""One log entry's payload. etcd's limit is 1.5 MiB for a request; ours is refused earlier, at the API."""

NESTING_MAX = 16
"""Depth of arrays and maps in decoded CBOR."""
