"""Hushfleet: federated learning for IoT fleets over MQTT in which nobody ever sees one device's update."""

__version__ = "0.1.0"
