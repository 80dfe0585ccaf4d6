"""MQTT: topics, chunks, the outbox and the link."""
