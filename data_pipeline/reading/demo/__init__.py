"""Sources for runs without other data: this Python installation and generated word problems."""
