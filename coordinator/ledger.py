"""What the coordinator must not lose: documents, the open round, every accepted chunk, what has been published."""

from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path

from sqlalchemy import Column, Connection, LargeBinary, MetaData, Table, bindparam, create_engine, event
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql import Executable

from hushfleet.records import RecordStore, Row
from hushfleet.storage import PADDING, FileKind

KIND = FileKind(
    name="ledger",
    application_id=0x68666C65,  # "hfle"
    remedy="put all its files of the newest undamaged copy in place, or move them away to start with an empty ledger",
)

_RECORDS = Table(
    "records",
    MetaData(),
    Column("key", LargeBinary, primary_key=True),
    Column("padding", LargeBinary, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("checksum", LargeBinary, nullable=False),
)
_C = _RECORDS.columns
_COLUMNS = _RECORDS.select().with_only_columns(_C.key, _C.value, _C.checksum)
_SELECT = _COLUMNS.where(_C.key == bindparam("name"))
_RANGE = (
    _COLUMNS.where(_C.key >= bindparam("start"), _C.key < bindparam("end")).order_by(_C.key).limit(bindparam("count"))
)
_INSERT = insert(_RECORDS)
_UPSERT = _INSERT.on_conflict_do_update(
    index_elements=[_C.key], set_={"value": _INSERT.excluded.value, "checksum": _INSERT.excluded.checksum}
)
_PADDING = bytes(PADDING)
_DELETE = _RECORDS.delete().where(_C.key == bindparam("name"))


class Ledger(RecordStore):
    """The durable store of a coordinator: one SQLite file of mode 0600 in a directory of mode 0700."""

    def __init__(self, path: Path) -> None:
        """Open the ledger, or create it.

        Args:
            path: of the database; its directory is created if missing.

        Raises:
            StorageError: the file cannot be used; the text says why and what to do.
        """
        super().__init__(path, KIND)
        engine = create_engine("sqlite://", creator=lambda: self._file.connection, poolclass=StaticPool)
        event.listen(engine, "begin", _begin)
        event.listen(engine, "handle_error", _raise_original)
        self._connection = engine.connect()

    def _begin(self) -> None:
        self._connection.begin()

    def _commit(self) -> None:
        self._connection.commit()

    def _rollback(self) -> None:
        self._connection.rollback()

    def _select(self, key: bytes) -> Row | None:
        return next(iter(self._rows(_SELECT, name=key)), None)

    def _range(self, start: bytes, end: bytes, limit: int) -> list[Row]:
        return self._rows(_RANGE, start=start, end=end, count=limit)

    def _upsert(self, rows: Collection[Row]) -> None:
        parameters = [
            {"key": key, "padding": _PADDING, "value": value, "checksum": checksum} for key, value, checksum in rows
        ]
        self._connection.execute(_UPSERT, parameters)

    def _delete(self, keys: Collection[bytes]) -> int:
        return self._connection.execute(_DELETE, [{"name": key} for key in keys]).rowcount

    def _rows(self, statement: Executable, **parameters: object) -> list[Row]:
        # SQLAlchemy begins a transaction before any statement; outside of ours a read is one of its own.
        with nullcontext() if self._connection.in_transaction() else self._connection.begin():
            rows = self._connection.execute(statement, parameters)
            return [(row.key, row.value, row.checksum) for row in rows]


def _begin(connection: Connection) -> None:
    # The driver is in autocommit mode; SQLAlchemy leaves the statement to us.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _raise_original(context: ExceptionContext) -> None:
    # `RecordStore` explains the driver's own errors.
    raise context.original_exception
