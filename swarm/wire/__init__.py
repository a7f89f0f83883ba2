"""Bytes: hostile input stops here. Messages themselves live in the cores; this package knows only how they are packed."""
