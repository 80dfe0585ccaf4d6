"""The wire: strict decoding, canonical encoding, documents and messages (docs/protocol.md, section 11)."""
