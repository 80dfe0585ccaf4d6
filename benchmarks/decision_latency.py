"""From a sensor's message to the score of the window that ends with it, through a real Mosquitto.

    python benchmarks/decision_latency.py --json latency.json

One process is the sensor and Home Assistant: 50 messages a second with six axes; it hears every score. Another one is
the agent's part: feed, ring, windows of 100 samples, ten scores a second by a convolutional network. Times
are by the clock.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import paho.mqtt.client as mqtt
from goals import Goal
from paho.mqtt.enums import CallbackAPIVersion
from process_figures import processor_seconds

from broker.local import HOST, LocalBroker, free_port
from edge_agent.collector import Collector
from edge_agent.decisions import Decisions, DecisionSettings
from edge_agent.inference import Model
from edge_agent.local_mqtt import LocalBroker as Address
from edge_agent.sources.decoders.json_topics import JsonTopic
from edge_agent.sources.mqtt import MqttFeedSettings
from edge_agent.sources.sensors import ChannelSettings, Sensors, SensorSettings
from edge_agent.sources.store import ReadingStore
from hushfleet.journal import Journal
from hushfleet.learning.layers import initial_flat
from hushfleet.wire.layers import AvgPool, Conv1d, Dense, GlobalAverage, Layer
from hushfleet.wire.schema import Channel, Schema

RATE, SAMPLES, STEP = 50.0, 100, 5
AXES = ("ax", "ay", "az", "gx", "gy", "gz")
CLASSES = ("rest", "walk", "run", "climb")
LAYERS: tuple[Layer, ...] = (
    Conv1d(SAMPLES, len(AXES), 16, 5, 2, "relu"),
    AvgPool(48, 16, 2),
    Conv1d(24, 16, 32, 5, 1, "relu"),
    GlobalAverage(20, 32),
    Dense(32, len(CLASSES)),
)
GOAL_MS = 50.0


def agent(port: int, directory: Path) -> None:
    """The agent's part, until it is killed."""
    channels = tuple(Channel(axis, "m/s2", -40.0, 40.0) for axis in AXES)
    task: dict[str, Any] = {"task": "classes", "classes": CLASSES, "target": 0, "horizon": 0}
    schema = Schema(bytes(16), 0, 1, 1, bytes(32), channels, RATE, SAMPLES, STEP, 0.5, 0, **task)
    settings = SensorSettings(tuple(ChannelSettings(axis, f"wrist#/{axis}") for axis in AXES))
    store = ReadingStore(directory / "readings.db", settings.keep)
    address = Address(HOST, port)
    decisions = Decisions(DecisionSettings(address), Sensors(settings, store), "wrist", "wrist", Journal("text"))
    decisions.use(Model(1, initial_flat(LAYERS, bytes(32)), LAYERS), schema, [])
    feed = MqttFeedSettings(broker=address, json=(JsonTopic("wrist", time="/at"),))
    Collector([feed], settings, store, Journal("text"), decisions.step)
    threading.Event().wait()


def measure(seconds: float) -> dict[str, float]:
    """Milliseconds from the publication of a window's last sample to its score, and the agent's processor time."""
    with tempfile.TemporaryDirectory(prefix="hushfleet-bench-") as place:
        port = free_port()
        broker, kept = Path(place) / "broker", Path(place) / "agent"
        broker.mkdir()
        kept.mkdir()
        with LocalBroker(broker, port, f"listener {port} {HOST}\nallow_anonymous true\n"):
            child = subprocess.Popen([sys.executable, __file__, "--agent", str(port), str(kept)])
            try:
                return _listen(port, seconds, child.pid)
            finally:
                child.kill()
                child.wait()


def _listen(port: int, seconds: float, agent_process: int) -> dict[str, float]:
    published: dict[int, float] = {}
    late: list[float] = []

    def on_score(_: object, __: object, message: mqtt.MQTTMessage) -> None:
        arrived = time.time()
        sent = published.get(round(json.loads(message.payload)["at"] * RATE))
        if sent is not None:
            late.append(1e3 * (arrived - sent))

    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.on_message = on_score
    client.connect(HOST, port)
    client.subscribe("hushfleet/wrist/state")
    client.loop_start()
    chance = np.random.default_rng(0)
    sample = int(time.time() * RATE) + 1
    end = time.time() + seconds + SAMPLES / RATE
    spent = 0.0
    while time.time() < end:
        time.sleep(max(0.0, sample / RATE - time.time()))
        said = {axis: round(float(value), 3) for axis, value in zip(AXES, chance.normal(0, 5, 6), strict=True)}
        published[sample] = time.time()
        client.publish("wrist", json.dumps({**said, "at": sample / RATE}))
        if not late:
            began, spent = time.time(), processor_seconds(agent_process)
        sample += 1
    share = (processor_seconds(agent_process) - spent) / (time.time() - began)
    client.disconnect()
    client.loop_stop()
    p50, p99 = np.percentile(late, [50, 99])
    return {"scores": len(late), "p50_ms": float(p50), "p99_ms": float(p99), "agent_core_share": share}


@click.command()
@click.option("--seconds", type=click.FloatRange(1), default=60.0, show_default=True, help="How long to measure.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here.")
def main(seconds: float, json_path: Path | None) -> None:
    """Measure how late scores are."""
    click.echo(f"measuring for {seconds:g} s")
    figures = measure(seconds)
    click.echo(f"{figures['scores']} scores; {figures['p50_ms']:.1f} ms in the median, {figures['p99_ms']:.1f} at p99")
    click.echo(f"the agent's part took {figures['agent_core_share']:.1%} of a core")
    click.echo(Goal("p99, ms from sensor message to score", figures["p99_ms"], GOAL_MS, at_least=False).line())
    if json_path:
        json_path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--agent"]:
        agent(int(sys.argv[2]), Path(sys.argv[3]))
    main()
