"""The owners' desk: keys, certificates, documents and TLS material, offline."""
