"""Reading of raw input: sources, their division into shards, and rows as documents."""
