"""The coordinator service: runs rounds, adds masked uploads, learns only their sum."""
