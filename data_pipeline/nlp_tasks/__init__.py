"""Natural-language tasks (tier D3): written by rules, or by a teacher as JSON."""
