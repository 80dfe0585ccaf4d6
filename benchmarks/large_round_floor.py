"""The floor of a large round: receive, verify, add and store the same uploads, and nothing else.

    python benchmarks/large_round_floor.py FACTS

FACTS is a JSON file that large_round.py writes. One MQTT client with the same library, TLS and acknowledgements as the
coordinator, plain libsodium, numpy and SQLite: no receipts, no journal, no recovery, no roles. Says "ready" once it
listens, and one line of JSON when every upload is stored.
"""

import json
import os
import sqlite3
import ssl
import sys
from hashlib import blake2b
from pathlib import Path
from time import process_time
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import msgpack
import numpy as np
import paho.mqtt.client as mqtt
from nacl import bindings
from paho.mqtt.enums import CallbackAPIVersion

BATCH = 64
"""Messages a commit, as the coordinator's."""


class Floor:
    """A receiver of uploads.

    Args:
        facts: where the broker is and who we are there, the topic filter, every device's key, and what a claim holds.
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts
        self._keys = {int(device): bytes.fromhex(key) for device, key in facts["devices"].items()}
        self._claim = bytes.fromhex(facts["claim"])
        self._headers: dict[int, dict[str, Any]] = {}
        self._slices: dict[int, list[bytes]] = {}
        self._total = np.zeros(-(-facts["parameters"] // 64) * 64, np.uint16)
        self._added, self._began, self._ended = 0, 0.0, 0.0
        self._store = sqlite3.connect(facts["store"], isolation_level=None)
        self._store.execute("PRAGMA journal_mode = WAL")
        self._store.execute("PRAGMA synchronous = FULL")
        self._store.execute("CREATE TABLE records (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self._batch: list[mqtt.MQTTMessage] = []
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=facts["client"], protocol=mqtt.MQTTv5, manual_ack=True
        )
        context = ssl.create_default_context(cafile=facts["authority"])
        context.load_cert_chain(facts["certificate"], facts["key"])
        client.tls_set_context(context)
        client.on_connect = self._on_connect
        client.on_subscribe = lambda *_: print("ready", flush=True)
        client.on_message = lambda _, __, message: self._on_message(message)

    def run(self) -> dict[str, float]:
        """Receive all; processor seconds from the first message to the last commit."""
        self._client.connect(self._facts["host"], self._facts["port"], clean_start=True)
        self._client.loop_forever()
        return {"seconds": self._ended - self._began}

    def _on_connect(self, *_: object) -> None:
        self._client.subscribe(self._facts["filter"], qos=1)

    def _on_message(self, message: mqtt.MQTTMessage) -> None:
        self._began = self._began or process_time()
        self._batch.append(message)
        *_, device, _, _, chunk = message.topic.split("/")
        self._take(int(device), int(chunk), bytes(message.payload))
        if len(self._batch) == BATCH or self._added == len(self._keys):
            self._commit()
        if self._added == len(self._keys):
            self._ended = process_time()
            self._client.disconnect()

    def _take(self, device: int, chunk: int, payload: bytes) -> None:
        if chunk == 0:
            header = msgpack.unpackb(msgpack.unpackb(payload)[1])
            self._verify(device, header)
            self._headers[device], self._slices[device] = header, []
            return
        expected = self._headers[device]["hashes"][16 * chunk - 16 : 16 * chunk]
        if blake2b(payload, digest_size=16, person=b"hushfleet.chnk.1").digest() != expected:
            raise ValueError("another slice")
        self._slices[device].append(payload)
        if sum(map(len, self._slices[device])) == self._headers[device]["length"]:
            self._add(b"".join(self._slices.pop(device)))
            self._added += 1

    def _verify(self, device: int, header: dict[str, Any]) -> None:
        upload = blake2b(digest_size=32, person=b"hushfleet.upld.1")
        upload.update(header["length"].to_bytes(4, "little") + header["hashes"])
        claim = self._claim + device.to_bytes(4, "little") + header["y"] + upload.digest()
        bindings.crypto_sign_open(header["sig"] + claim, self._keys[device])
        if not bindings.crypto_core_ed25519_is_valid_point(header["y"]):
            raise ValueError("no point")

    def _add(self, data: bytes) -> None:
        octets = np.frombuffer(data, np.uint8)
        words = octets[len(self._total) : 2 * len(self._total)].astype(np.uint16)
        words <<= 8
        words |= octets[: len(self._total)]
        np.add(self._total, words, out=self._total)

    def _commit(self) -> None:
        self._store.execute("BEGIN")
        rows = ((message.topic, message.payload) for message in self._batch)
        self._store.executemany("INSERT INTO records VALUES (?, ?)", rows)
        self._store.execute("COMMIT")
        for message in self._batch:
            self._client.ack(message.mid, message.qos)
        self._batch.clear()


if __name__ == "__main__":
    print(json.dumps(Floor(json.loads(Path(sys.argv[1]).read_text())).run()))
