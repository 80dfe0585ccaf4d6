"""The peer: Flower's SecAgg+, its own server workflow and client mod, every message as the bytes it is sent in.

    python benchmarks/secagg_flower.py DEVICES PARAMETERS

Runs in a virtual environment of its own, with `flwr` in it and nothing of this project; prints one line of JSON. One
process plays the server and all clients. Neither gRPC nor TLS is there, and training is not metered.
"""

# mypy: disable-error-code="import-not-found,misc,no-any-unimported"
import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import json
import logging
import resource
import secrets
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from statistics import median
from time import process_time
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.compat.common import recorddict_compat as compat
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.server import LegacyContext, ServerConfig
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

RUN = 1
SHARES = 31
"""Neighbours that hold shares of a client's keys, itself included; two thirds of them and one recover a key."""
WEIGHT = 1000
"""The workflow's own largest weight: every client counts in full, with the least error."""


class Client:
    """One client: what Flower keeps of it between messages, and what it spent."""

    def __init__(self, node: int, update: NDArray[np.float32]) -> None:
        self.update = update
        self.context = Context(RUN, node, {}, RecordDict(), {})
        self.training = 0.0

    def answer(self, data: bytes) -> bytes:
        """The reply's bytes to a message's bytes."""
        message = message_from_proto(ProtoMessage.FromString(data))
        reply = secaggplus_mod(message, self.context, self._train)
        return bytes(message_to_proto(reply).SerializeToString())

    def _train(self, message: Message, context: Context) -> Message:
        before = process_time()
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self.update]), WEIGHT, {})
        reply = Message(compat.fitres_to_recorddict(result, keep_input=False), reply_to=message)
        self.training += process_time() - before
        return reply


class MeteredGrid(Grid):
    """Hands every message to its client as bytes; counts both, and the processor seconds of every client."""

    def __init__(self, clients: dict[int, Client]) -> None:
        self.clients = clients
        self.seconds: defaultdict[int, float] = defaultdict(float)
        self.bytes_up: Counter[int] = Counter()
        self.bytes_down: Counter[int] = Counter()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Every message's reply."""
        return [self._exchange(message) for message in messages]

    def _exchange(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        message.metadata.__dict__["_message_id"] = secrets.token_hex(32)
        data = message_to_proto(message).SerializeToString()
        before = process_time()
        answer = self.clients[node].answer(data)
        self.seconds[node] += process_time() - before
        self.bytes_down[node] += len(data)
        self.bytes_up[node] += len(answer)
        return message_from_proto(ProtoMessage.FromString(answer))

    # The rest of the interface, which the workflow does not use.

    def set_run(self, run: Any) -> None:
        """Not used."""
        raise NotImplementedError

    @property
    def run(self) -> Any:
        """Not used."""
        raise NotImplementedError

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        """Not used."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """The clients."""
        return self.clients.keys()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Not used."""
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Not used."""
        raise NotImplementedError


def measure(devices: int, parameters: int) -> dict[str, dict[str, float]]:
    """One round of SecAgg+.

    Raises:
        RuntimeError: the round's mean is not the updates' mean.
    """
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN, 1
    pattern = (np.random.default_rng(0).standard_normal(parameters) / parameters**0.5).astype(np.float32)
    nodes = [secrets.randbits(63) for _ in range(devices)]
    grid = MeteredGrid({node: Client(node, np.roll(pattern, at)) for at, node in enumerate(nodes)})
    server = Context(RUN, 0, {}, RecordDict(), {})
    start = ndarrays_to_parameters([np.zeros(parameters, np.float32)])
    server.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(start, keep_input=True)
    server.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 1})
    context = LegacyContext(server, ServerConfig(num_rounds=1), FedAvg(min_available_clients=devices))
    for node in nodes:
        context.client_manager.register(GridClientProxy(node, grid, RUN))
    shares = min(SHARES, devices)
    workflow = SecAggPlusWorkflow(shares, 2 * shares // 3 + 1, max_weight=float(WEIGHT))
    before = process_time()
    workflow(grid, context)
    total = process_time() - before
    mean = np.mean([client.update for client in grid.clients.values()], axis=0)
    after = parameters_to_ndarrays(
        compat.arrayrecord_to_parameters(context.state.array_records[MAIN_PARAMS_RECORD], keep_input=True)
    )[0]
    if not np.abs(after - mean).max() < 1e-4:
        raise RuntimeError("SecAgg+ did not come to the updates' mean")
    figures = {
        "client_seconds": median(grid.seconds[node] - client.training for node, client in grid.clients.items()),
        # There is no such party: every client is a member of its neighbours' committees.
        "member_seconds": 0.0,
        "coordinator_seconds": total - sum(grid.seconds.values()),
        "bytes_up": median(grid.bytes_up.values()),
        "bytes_down": median(grid.bytes_down.values()),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    return {"figures": figures, "details": {}}


if __name__ == "__main__":
    logging.getLogger("flwr").setLevel(logging.ERROR)
    print(json.dumps(measure(*map(int, sys.argv[1:3]))))
