"""The broker: Mosquitto configuration, ACL, checks, and a local instance for demo and tests."""
