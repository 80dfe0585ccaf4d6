"""The feeds that an agent's settings may name."""

from edge_agent.sources.csv_feed import CsvFeedSettings
from edge_agent.sources.iio_feed import IioFeedSettings
from edge_agent.sources.influx_feed import InfluxFeedSettings
from edge_agent.sources.mqtt import MqttFeedSettings
from edge_agent.sources.sqlite_feed import SqliteFeedSettings

FeedSettings = MqttFeedSettings | CsvFeedSettings | SqliteFeedSettings | InfluxFeedSettings | IioFeedSettings
