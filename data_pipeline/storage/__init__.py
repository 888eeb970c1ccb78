"""Documents, shards, compressed files, atomic writes and object stores."""
