"""The feeds that an agent's settings may name."""

from edge_agent.sources.mqtt import MqttFeedSettings

FeedSettings = MqttFeedSettings
