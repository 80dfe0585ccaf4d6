"""Hushfleet: federated learning for IoT fleets over MQTT in which nobody ever sees one device's update."""

__version__ = "0.1.0"

BUILD_TIME = 1_795_478_400
"""When this version was made (2026-11-24, seconds since 1970 UTC): no clock that is right shows less."""
