"""One database connection behind one thread, with group commit.

Everything asked of the database is a function of a connection, run in the order asked by the writer thread. What
comes in while a commit is on its way to the disk, and for at most `commit_interval` after the last one, shares the
next transaction; a lone write commits at once. A caller resumes only after COMMIT returned, and SQLite runs with
WAL and synchronous=FULL, so that COMMIT returns after fsync: what was acknowledged survives kill -9 and power loss.

Results are delivered to the event loop in commit order, one wake-up a batch. Each may carry a `then`, run on the
loop before its caller resumes: that is where caches learn of a change, in the order of the database and even if
the caller was cancelled meanwhile. A change by another process (SQLite: PRAGMA data_version) is reported the same way.
"""

import asyncio
import fcntl
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from provisioning.metrics import COMMIT, OPERATIONS
from provisioning.schema import apply_schema

T = TypeVar("T")
MAX_BATCH = 1_000
"""Operations in one transaction: bounds how long the first of them waits for the last."""
MAX_WAITING = 50_000
"""Operations waiting before new ones are refused: the disk is hopelessly behind."""
LOCK_FILE = "server.pid"
"""In the data directory: locked by the server that uses it, and its process id."""
LOCK_TIMEOUT = 5.0
"""Seconds a SQLite transaction waits for another process's."""
PATIENCE = {"connect_timeout": 3, "tcp_user_timeout": 5000}
"""Seconds PostgreSQL may take to answer a connection, milliseconds it may leave what we sent unacknowledged; libpq
itself would wait for minutes, in which nothing is written."""
SWITCH_INTERVAL = 0.0001
"""Seconds after which the writer thread gets the interpreter from a busy event loop (process-wide). Each statement asks
for it anew: at Python's 5 ms a saturated loop let 140 writes a second through, at 0.1 ms all of 500, p99 27 ms."""


class StoreError(OSError):
    """The database cannot be opened or did not do what was asked; nothing of the operation is stored."""


@dataclass(frozen=True, slots=True)
class _Request:
    operation: Callable[[Connection], Any]
    then: Callable[[Any], None] | None
    answer: "asyncio.Future[Any]"


class Database:
    """A database opened for one event loop; `run` is the only way to it. Made by `open`, ended by `close`."""

    def __init__(self, engine: Engine, commit_interval: float, watch_interval: float) -> None:
        self.notices_changes = engine.dialect.name == "sqlite"
        """True when changes by other processes are noticed; else caches must let entries age."""
        self.on_foreign_change: Callable[[], None] = lambda: None
        """Called on the loop when another process may have changed anything."""
        self._engine = engine
        self._commit_interval = commit_interval
        self._watch_interval = watch_interval
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Request | None] = SimpleQueue()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed = False
        self._data_version = 0
        self._thread = threading.Thread(target=self._serve, name="store", daemon=True)

    @classmethod
    async def open(cls, url: str | URL, commit_interval: float = 0.01, watch_interval: float = 0.5) -> Self:
        """Connect to a SQLAlchemy URL and bring its schema up. Intervals in seconds. Raises StoreError."""
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))
        database = cls(_engine(url), commit_interval, watch_interval)
        database._thread.start()
        await database._opened
        return database

    async def run(self, operation: Callable[[Connection], T], then: Callable[[T], None] | None = None) -> T:
        """The operation's result, once the transaction it ran in is durable. It may run twice: a batch in which any
        operation fails is rolled back and repeated one by one. Raises StoreError, or what the operation raised."""
        if self._closed:
            raise StoreError("the store is closed")
        if self._queue.qsize() >= MAX_WAITING:
            raise StoreError("the store is overloaded")
        answer: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Request(operation, then, answer))
        return await answer

    @property
    def waiting(self) -> int:
        """How many operations are."""
        return self._queue.qsize()

    async def close(self) -> None:
        """Finish what was asked before, then disconnect."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        try:
            connection = self._engine.connect()
            with connection.begin():
                apply_schema(connection)
        except (SQLAlchemyError, ValueError) as error:
            self._engine.dispose()
            self._post(self._opened.set_exception, StoreError(f"database {self._name}: {_reason(error)}"))
            return
        self._data_version = self._read_data_version(connection)
        self._post(self._opened.set_result, None)
        with connection:
            self._work(connection)
        self._engine.dispose()

    def _work(self, connection: Connection) -> None:
        last_commit = 0.0
        while batch := self._gather(connection, last_commit):
            requests = [request for request in batch if request]
            begun = time.monotonic()
            answers = self._commit(connection, requests)
            last_commit = time.monotonic()
            COMMIT.observe(last_commit - begun)
            OPERATIONS.inc(len(requests))
            self._post(_deliver, answers)
            if batch[-1] is None:
                break

    @property
    def _name(self) -> str:
        return self._engine.url.render_as_string(hide_password=True)

    def _gather(self, connection: Connection, last_commit: float) -> list[_Request | None]:
        """The next batch; None in it, always last, means close. Looks for foreign changes while there is nothing."""
        while True:
            try:
                batch = [self._queue.get(timeout=self._watch_interval)]
                break
            except Empty:
                self._watch(connection)
        rest = last_commit + self._commit_interval - time.monotonic()
        if rest > 0:
            time.sleep(rest)
        while batch[-1] is not None and len(batch) < MAX_BATCH:
            try:
                batch.append(self._queue.get_nowait())
            except Empty:
                break
        return batch

    def _commit(self, connection: Connection, batch: list[_Request]) -> list[tuple[_Request, Any]]:
        """Run a batch in one transaction; when that fails, each request in its own. Pairs of request and result, an
        exception being a result too."""
        try:
            transaction = connection.begin()
        except SQLAlchemyError as error:  # locked or gone: nobody's fault, and each alone would wait as long again
            failure = StoreError(f"database {self._name}: {_reason(error)}")
            return [(request, failure) for request in batch]
        try:
            with transaction:
                self._watch(connection)
                return [(request, request.operation(connection)) for request in batch]
        except Exception:  # whatever it was belongs to one request: repeated below, where that one gets to see it
            answers: list[tuple[_Request, Any]] = []
            for request in batch:
                answers.append((request, self._alone(connection, request)))
                if connection.invalidated:  # the database server is gone, and is not asked for each of them again
                    answers += [(other, answers[-1][1]) for other in batch[len(answers) :]]
                    break
            return answers

    def _alone(self, connection: Connection, request: _Request) -> Any:
        for last_try in (False, True):
            try:
                with connection.begin():
                    return request.operation(connection)
            except IntegrityError as error:  # another process inserted the same key first: now it is an update
                if last_try:
                    return StoreError(f"database {self._name}: {_reason(error)}")
            except (SQLAlchemyError, UnicodeEncodeError, OverflowError) as error:  # a value no column can hold
                return StoreError(f"database {self._name}: {_reason(error)}")
            except Exception as error:  # handed to the caller of run(), whose operation raised it
                return error
        return None

    def _watch(self, connection: Connection) -> None:
        version = self._read_data_version(connection)
        if version != self._data_version:
            self._data_version = version
            self._post(self._foreign_change)

    def _foreign_change(self) -> None:
        self.on_foreign_change()

    def _read_data_version(self, connection: Connection) -> int:
        """SQLite's count of commits by others; needs no lock and reads no page."""
        if not self.notices_changes:
            return 0
        try:
            cursor = connection.connection.cursor()
            cursor.execute("PRAGMA data_version")
            row = cursor.fetchone()
            cursor.close()
        except (sqlite3.Error, SQLAlchemyError):  # a failing disk: the next operation reports it to its caller
            return self._data_version
        return int(row[0]) if row else 0

    def _post(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more, and what is committed stays committed
            return


def _deliver(answers: list[tuple[_Request, Any]]) -> None:
    for request, result in answers:
        if isinstance(result, Exception):
            if not request.answer.done():
                request.answer.set_exception(result)
            continue
        if request.then:
            request.then(result)
        if not request.answer.done():
            request.answer.set_result(result)


def _engine(location: str | URL) -> Engine:
    try:
        url = make_url(location)
        patience = PATIENCE if url.drivername == "postgresql+psycopg" else {}
        engine = create_engine(url, connect_args=patience)
    except ArgumentError:  # its text may quote the URL, password and all
        raise StoreError("store.url is no database URL, like postgresql+psycopg://user:password@host/name") from None
    except ImportError as error:
        extra = ": pip install '.[postgresql]' in the checkout" if error.name == "psycopg" else ""
        raise StoreError(f"store.url needs a driver that is not installed ({error}){extra}") from None
    if engine.dialect.name == "sqlite":
        if url.database and url.database != ":memory:" and not url.query:
            private_file(Path(url.database))
        event.listen(engine, "connect", _sqlite_connected)
        event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_connected(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transactions by itself: see _sqlite_begin
    for pragma in (f"busy_timeout={int(LOCK_TIMEOUT * 1000)}", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _sqlite_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # take the write lock first, so that no transaction fails half-way


def private_directory(path: Path) -> None:
    """Make the directory with mode 0700. One that exists is closed to others only if it is ours to close: empty, or
    holding our database. Raises StoreError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = os.listdir(path)
        if path.stat().st_uid == os.getuid() and (not names or "dialcast.db" in names):
            path.chmod(0o700)
    except OSError as error:
        raise StoreError(f"data directory {path}: {error.strerror}") from None


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """The data directory is one server's: a second one in it would take the first one's calls for its own.

    Raises StoreError. The lock goes with the process, however that ends.
    """
    path = directory / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "another"
            raise StoreError(
                f"data directory {directory}: in use by process {holder}; stop that, or choose another with data_dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def private_file(path: Path) -> None:
    """Make the file, or an existing one, readable by its owner alone (SQLite gives -wal and -shm the same mode), and
    its name durable. Raises StoreError."""
    if path.exists() and not path.is_file():  # never change the mode of a device or directory
        raise StoreError(f"database {path}: is not a regular file")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(directory)
        os.close(directory)
    except OSError as error:
        raise StoreError(f"database {path}: {error.strerror}") from None


def _reason(error: Exception) -> str:
    """The first line of what the driver said, without SQL or parameters (they may be password hashes)."""
    return str(getattr(error, "orig", None) or error).partition("\n")[0]
