"""What is the vault's own: its secret, and that an agent needs nothing but the standard library to keep it."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent.vault import Vault
from hushfleet.errors import StorageError


def test_the_secret_is_drawn_once(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    draws: list[int] = []

    def draw(size: int) -> bytes:
        draws.append(size)
        return bytes(range(size))

    for _ in range(3):
        with closing(Vault(path, draw)) as vault:
            assert vault.get("vault/secret") == bytes(range(32))
    assert draws == [32]


def test_a_failing_draw_leaves_a_vault_that_draws_again(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"

    def fail(size: int) -> bytes:
        raise OSError("no randomness")

    with pytest.raises(OSError, match="no randomness"):
        Vault(path, fail)
    with closing(Vault(path, os.urandom)) as vault:
        assert len(vault.get("vault/secret") or b"") == 32


def test_a_vault_without_its_secret_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    Vault(path, os.urandom).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM records")
    with pytest.raises(StorageError, match=r"its secret is missing.*enrol this device anew"):
        Vault(path, os.urandom)


def test_nothing_it_raises_or_shows_holds_the_secret(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    with closing(Vault(path, lambda size: b"S" * size)) as vault:
        with pytest.raises(StorageError) as refused:
            Vault(path, os.urandom)
        assert "SSSS" not in repr(vault) + str(refused.value)


def test_the_agent_needs_neither_sqlalchemy_nor_numpy_for_it() -> None:
    program = "import sys, edge_agent.vault; sys.exit(bool({'sqlalchemy', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
