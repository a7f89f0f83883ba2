"""The catalog: what the log has decided. Commands in, changes out."""

from swarm.catalog.core import Catalog

__all__ = ["Catalog"]
