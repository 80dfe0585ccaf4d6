"""Device classes: memory, compute and link, as TOML."""
