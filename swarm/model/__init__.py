"""The nouns: immutable records that every layer shares."""
