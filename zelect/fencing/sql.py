"""Transactions that an old controller can't commit.

One row of the table `fence` holds the newest term of a resource. The statement that raises it changes nothing for an
older term, and is in the same transaction as the work: so both take effect, or neither. What ends that transaction
early would let the rest of the work through without a fence, and is refused.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from zelect.fencing.core import FenceBroken, FencedOut, HasTerm, term_of

_CREATE = "CREATE TABLE IF NOT EXISTS fence (resource {text} PRIMARY KEY, term {number} NOT NULL)"
_RAISE = (
    "INSERT INTO fence VALUES ({mark}, {mark}) ON CONFLICT (resource) DO UPDATE SET term = excluded.term"
    " WHERE excluded.term >= fence.term"
)
_NEWEST = "SELECT term FROM fence WHERE resource = {mark}"
_SQLITE_TRANSACTION, _SQLITE_SAVEPOINT = 22, 32


def prepare_sqlite(db: sqlite3.Connection) -> None:
    """Make the table `fence`, unless it is there."""
    db.execute(_CREATE.format(text="TEXT", number="INTEGER"))
    db.commit()


@contextmanager
def fenced_sqlite(db: sqlite3.Connection, resource: str, term: HasTerm | int) -> Iterator[sqlite3.Connection]:
    """A transaction of `db` in which `resource` may be written: committed at the end of the `with`, rolled back when
    that raises. `FencedOut` when a newer term has written. `term`: a `zelect.Leadership`, or its term.

    Meanwhile commit, rollback, savepoints and `executescript`, which commits first, raise sqlite3.DatabaseError ("not
    authorized"): for that the connection's authorizer is used, and none is set afterwards. Raises ValueError when a
    transaction is open already, and `FenceBroken` when the work drops the token.
    """
    number = term_of(term)
    if db.in_transaction:
        raise ValueError("a transaction is open already: commit it first; autocommit=False always has one open")
    db.execute("BEGIN IMMEDIATE")
    try:
        if db.execute(_RAISE.format(mark="?"), (resource, number)).rowcount != 1:
            ((newest,),) = db.execute(_NEWEST.format(mark="?"), (resource,))
            raise FencedOut(resource, number, newest)
        db.set_authorizer(_deny_ends)
        try:
            yield db
        finally:
            db.set_authorizer(None)
        if db.execute(_NEWEST.format(mark="?"), (resource,)).fetchone() != (number,):
            raise FenceBroken(f"{resource}: the work changed its token in the table fence; nothing was committed")
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _deny_ends(action: int, *about: str | None) -> int:
    return sqlite3.SQLITE_DENY if action in (_SQLITE_TRANSACTION, _SQLITE_SAVEPOINT) else sqlite3.SQLITE_OK


# -- PostgreSQL ------------------------------------------------------------------------------------------

_ENDS = re.compile(
    r"(^|;)\s*(COMMIT|END|ROLLBACK|ABORT|BEGIN|START|SAVEPOINT|RELEASE|PREPARE\s+TRANSACTION)\b", re.IGNORECASE
)
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_NUMBER = "SELECT txid_current()"


def prepare_postgres(connection: Any) -> None:
    """Make the table `fence`, unless it is there, and commit. `connection`: of psycopg, or another DB-API 2.0 driver
    whose parameters are marked by %s."""
    with connection.cursor() as cursor:
        cursor.execute(_CREATE.format(text="text", number="bigint"))
    connection.commit()


class FencedCursor:
    """The work's cursor: it carries out statements of the fenced transaction, and none that could end it."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def execute(self, statement: str, parameters: Sequence[Any] | None = None) -> FencedCursor:
        """Carry out one statement. Raises ValueError for one that begins or ends a transaction, and what the driver
        raises."""
        self._cursor.execute(_unless_ending(statement), parameters)
        return self

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> FencedCursor:
        """The same for each of `rows`."""
        self._cursor.executemany(_unless_ending(statement), rows)
        return self

    def fetchone(self) -> Any:
        return self._cursor.fetchone()

    def fetchall(self) -> Any:
        return self._cursor.fetchall()

    @property
    def rowcount(self) -> int:
        return int(self._cursor.rowcount)


@contextmanager
def fenced_postgres(connection: Any, resource: str, term: HasTerm | int) -> Iterator[FencedCursor]:
    """A transaction of `connection` in which `resource` may be written, as `fenced_sqlite`. The row of the token stays
    locked until its end: set idle_in_transaction_session_timeout, or a frozen writer makes the newer one wait.

    A transaction that was ended in another way, such as by `connection.commit()`, is noticed at the end and raises
    `FenceBroken`, which says so: what came after it may be committed. Needs a connection that is not in autocommit.
    """
    number = term_of(term)
    if getattr(connection, "autocommit", False):
        raise ValueError("in autocommit each statement is a transaction of its own: turn it off for this connection")
    cursor = connection.cursor()
    try:
        cursor.execute("SELECT txid_current_if_assigned()")
        if cursor.fetchone() != (None,):
            raise ValueError("a transaction that has changed something is open already: commit it first")
        cursor.execute(_RAISE.format(mark="%s"), (resource, number))
        if cursor.rowcount != 1:
            cursor.execute(_NEWEST.format(mark="%s"), (resource,))
            raise FencedOut(resource, number, cursor.fetchone()[0])
        cursor.execute(_NUMBER)
        transaction = cursor.fetchone()
        yield FencedCursor(cursor)
        cursor.execute(_NUMBER)
        if cursor.fetchone() != transaction:
            raise FenceBroken(f"{resource}: the work ended the fenced transaction itself; what it did may be committed")
        cursor.execute(_NEWEST.format(mark="%s"), (resource,))
        if cursor.fetchone() != (number,):
            raise FenceBroken(f"{resource}: the work changed its token in the table fence; nothing was committed")
        connection.commit()
    except BaseException:
        with suppress(Exception):
            connection.rollback()
        raise
    finally:
        cursor.close()


def _unless_ending(statement: str) -> str:
    """`statement`, unless it, or one of several, begins or ends a transaction: then ValueError."""
    if not isinstance(statement, str):
        raise TypeError("give the statement as text: what it does must be seen before it is sent")
    if _ENDS.search(_COMMENTS.sub(" ", statement)):
        raise ValueError("the statement would end the fenced transaction; pass texts that look so as parameters")
    return statement
