"""Rows of a database: a table or a query with a row an event, its columns mapped in configs/shop.toml.

In: a SQLAlchemy URL (PostgreSQL, SQLite, or any other whose driver is installed) and the `[sources.<name>]` section.
Out: canonical events, a chunk at a time, through a cursor that the server keeps: never the whole table. NULL becomes
the column's default; a NaN is an error that names the row. A timestamp without a time zone is taken for UTC. The
connection reads and never commits. No message shows the password of the URL.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus

import pandas as pd
import sqlalchemy as sa
from pydantic import ConfigDict, Field

from features.errors import EventError
from features.settings import Settings, SettingsError
from features.shop import SourceSettings
from features.sources.convert import canonical
from features.sources.reading import Reading

DEFAULTS: Final = SourceSettings()
# Rows as Python objects take some ten times what canonical events take: fewer of them at once.
_FETCHED_ROWS: Final = 20_000


class SqlOptions(Settings):
    """What `[sources.<name>.options]` may hold for this reader.

    table: the table or view with a row an event; or
    query: a SELECT in the database's own SQL; one of the two.
    schema: the schema of the table; the connection's own by default.
    order_by: columns to order the table's rows by, as SQL; not needed, because the events are sorted later.
    url_variable: the environment variable that holds the URL, so that no secret stands in a file or a command; the
        path is then only a name.
    """

    # a field called `schema` would shadow a method of pydantic
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    table: str = ""
    query: str = ""
    schema_name: str = Field("", alias="schema")
    order_by: str = ""
    url_variable: str = ""


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the table or query.

    Raises
    ------
    SettingsError
        The URL or an option cannot be used, or the database's driver is not installed.
    EventError
        The database refuses, there is no such table or column, or a row breaks the contract of the event.
    """
    options = reading.options(SqlOptions)
    with Database(reading.location, options.url_variable) as database:
        where = f"{database.name}, {'table ' + options.table if options.table else 'query'}"
        statement = _statement(database, options, reading)
        whole = 0 if options.query else database.rows_known(options.table, options.schema_name)
        row = 0
        # closed here, so that an early end leaves no connection behind
        with closing(database.stream(statement, min(reading.chunk_rows, _FETCHED_ROWS))) as parts:
            for names, part in parts:
                raw = {
                    ours: _series(ours, [values[_place(names, ours, theirs, where)] for values in part])
                    for ours, theirs in reading.settings.columns.items()
                }
                yield canonical(raw, reading, where, row)
                row += len(part)
                # of 0 where nobody knows how many there are
                reading.progress(min(row, whole) if whole else row, whole)


class Database:
    """A database that is read from; closed at the end of a `with`.

    location: the URL, unless `variable` names the environment variable that holds it.

    Raises
    ------
    SettingsError
        The URL cannot be read, or the database's driver is not installed.
    """

    def __init__(self, location: str, variable: str = "") -> None:
        if variable and not os.environ.get(variable):
            raise SettingsError(f"the environment variable {variable} is not set; put the database's URL into it")
        try:
            url = sa.make_url(os.environ[variable] if variable else location)
        except (sa.exc.ArgumentError, ValueError):
            # what was found may hold a password
            place = f"environment variable {variable}" if variable else "path"
            raise SettingsError(
                f"the {place} is no database URL; expected dialect+driver://user:password@host/database, for example "
                "postgresql+psycopg://reader@db.example/shop or sqlite:///shop.db"
            ) from None
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")  # the one driver that the extra installs
        self._secrets = [str(value) for key, value in url.query.items() if "pass" in key.lower()]
        self._secrets += [url.password] if url.password else []
        self.name = url.set(query={}).render_as_string(hide_password=True)
        file = url.database or ""
        in_file = url.get_backend_name() == "sqlite" and file not in ("", ":memory:") and not file.startswith("file:")
        if in_file and not Path(file).is_file():  # SQLite would make an empty one
            raise EventError(f"no file at {file}; give the path of the database")
        self._engine = self._created(url)

    def _created(self, url: sa.URL) -> sa.Engine:
        try:
            # parameters are values of the log: they have no place in a message
            return sa.create_engine(url, hide_parameters=True)
        except sa.exc.NoSuchModuleError:
            raise SettingsError(
                f"{self.name}: unknown kind of database {url.drivername!r}; there are postgresql+psycopg, sqlite, "
                "mysql+pymysql and what other packages add to SQLAlchemy"
            ) from None
        except ImportError as error:
            package = '"lotse[postgresql]"' if "psycopg" in url.drivername else error.name
            raise SettingsError(
                f"{self.name}: the database's driver {error.name!r} is not installed; run: pip install {package}"
            ) from None

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    @contextmanager
    def _named_errors(self, doing: str) -> Iterator[None]:
        """Errors of the database as ours, without SQLAlchemy's links and without secrets."""
        try:
            yield
        except sa.exc.SQLAlchemyError as error:
            text = " ".join(str(getattr(error, "orig", None) or error).split())
            for secret in self._secrets:
                for form in (secret, quote(secret, safe=""), quote_plus(secret)):
                    text = text.replace(form, "***")
            raise EventError(f"{self.name}, {doing}: {text}") from None

    def columns(self, table: str, schema: str = "") -> list[str]:
        """The names of a table's or view's columns.

        Raises
        ------
        EventError
            There is no such table: says which there are.
        """
        tables = self.tables(schema)
        if table not in tables:
            inside = f" in schema {schema!r}" if schema else ""
            raise EventError(
                f"{self.name} has no table {table!r}{inside}; there are: {', '.join(tables) or 'none'}. "
                "Name one in [sources.<name>.options] table"
            )
        with self._named_errors(f"columns of {table}"):
            return [str(column["name"]) for column in sa.inspect(self._engine).get_columns(table, schema or None)]

    def tables(self, schema: str = "") -> list[str]:
        """The names of the tables and views, sorted."""
        with self._named_errors("list of tables"):
            inspector = sa.inspect(self._engine)
            names = inspector.get_table_names(schema or None) + inspector.get_view_names(schema or None)
            if self._engine.dialect.name == "postgresql":
                names += inspector.get_materialized_view_names(schema or None)
        return sorted(names)

    def rows_known(self, table: str, schema: str = "") -> int:
        """About how many rows a table has, where the database tells without reading them; else 0."""
        name = self._engine.dialect.identifier_preparer.format_table(sa.table(table, schema=schema or None))  # type: ignore[arg-type]
        if self._engine.dialect.name == "postgresql":
            statement = sa.text("SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(:name)")
            statement = statement.bindparams(name=name)
        elif self._engine.dialect.name == "sqlite":
            statement = sa.text(f"SELECT count(*) FROM {name}")  # a walk over pages, far below the cost of reading
        else:
            return 0
        with self._named_errors(f"size of {table}"), self._engine.connect() as connection:
            return max(int(connection.execute(statement).scalar() or 0), 0)  # -1 before the first ANALYZE

    def stream(self, statement: sa.Executable, rows: int) -> Generator[tuple[Sequence[str], Sequence[Sequence[Any]]]]:
        """(names of the columns, at most `rows` rows) as they come, by a cursor that the server keeps."""
        with self._named_errors("while reading"), self._engine.connect() as connection:
            streaming = connection.execution_options(stream_results=True, yield_per=rows)
            with closing(streaming.execute(statement)) as result:
                names = list(result.keys())
                # the number again: yield_per does not reach a statement that is text
                for part in result.partitions(rows):
                    yield names, part

    def rows(self, statement: sa.Executable) -> list[dict[str, Any]]:
        """The rows of a small result, each as {column: value}."""
        with self._named_errors("while reading"), self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]


def _statement(database: Database, options: SqlOptions, reading: Reading) -> sa.Executable:
    if bool(options.table) == bool(options.query):
        raise SettingsError(
            f"[sources.<name>.options] wants one of table and query, found {'both' if options.table else 'none'}; "
            f"tables in {database.name}: {', '.join(database.tables(options.schema_name)) or 'none'}"
        )
    if options.query:
        if options.order_by or options.schema_name:
            raise SettingsError("[sources.<name>.options] order_by and schema go with table; write them into the query")
        # a colon in somebody's SQL is no parameter of ours
        return sa.text(options.query.replace("\\:", ":").replace(":", "\\:"))
    missing = [name for name in ("visitor", "time", "name") if name not in reading.settings.columns]
    found = database.columns(options.table, options.schema_name)
    if missing:
        raise SettingsError(
            f"nothing is mapped to {missing[0]!r}; add it to [sources.<name>.columns] in configs/shop.toml; "
            f"table {options.table} has: {', '.join(found)}"
        )
    where = f"{database.name}, table {options.table}"
    wanted = {theirs: found[_place(found, ours, theirs, where)] for ours, theirs in reading.settings.columns.items()}
    table = sa.table(options.table, *(sa.column(name) for name in wanted), schema=options.schema_name or None)
    statement = sa.select(*table.columns)
    return statement.order_by(sa.text(options.order_by)) if options.order_by else statement


def _place(names: Sequence[str], ours: str, theirs: str, where: str) -> int:
    if theirs not in names:
        raise EventError(
            f"{where} has no column {theirs!r}, which [sources.<name>.columns] maps to {ours!r}; "
            f"found: {', '.join(names)}"
        )
    return names.index(theirs)


def _series(ours: str, values: list[Any]) -> pd.Series:
    if ours == "time":
        present = [value for value in values if value is not None]
        if present and all(isinstance(value, date) for value in present):  # a datetime is one too
            return pd.to_datetime(pd.Series(values, dtype=object), utc=True, errors="coerce")
        if len(present) == len(values) and all(type(value) is int for value in values):
            return pd.Series(values, dtype="int64")  # microseconds and less need all of the 64 bits
    # objects, so that NULL stays None and an id above 2**53 keeps its last digits
    return pd.Series([_cell(value) for value in values], dtype=object)


def _cell(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    # pandas takes a NaN among objects for a missing value; here it is a mistake that should be seen
    return "NaN" if isinstance(value, float | Decimal) and value != value else value  # noqa: PLR0124
