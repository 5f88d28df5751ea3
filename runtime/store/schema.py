"""Makes a new database file, and brings an old one to the newest shape."""

import shutil
import uuid
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb

from runtime.errors import StoreUnavailableError
from runtime.files import sync
from runtime.store.queries import sql
from runtime.store.seal import Seal

CONFIG: dict[str, Any] = {
    "threads": 1,  # A query works in the thread that asks it: reports take nothing from the writer.
    "memory_limit": "2GB",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "wal_autocheckpoint": "1TB",  # Never inside a commit: see `Database`.
}
DATABASE = "ledger.duckdb"
BLOBS = "blobs"
SECRETS = "secrets.json"
COPIES = "backup.tmp"
"""Beside the database: where it may write a copy of itself."""
EXPORTS = "reports.tmp"
"""Beside the database: where it may write a report."""
RESTORING = "restore.tmp"
"""Beside the database, while a backup is being restored."""


def connect(path: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(str(path), config=CONFIG)
    connection.execute("PRAGMA disable_checkpoint_on_shutdown")  # Nobody folds the log but `Database`: see `folding`.
    copies, exports = (quoted(f"{path.parent / folder}/") for folder in (COPIES, EXPORTS))
    connection.execute(sql("confine").replace("$copies", copies, 1).replace("$exports", exports))
    return connection


def quoted(text: str) -> str:
    """As SQL text, for statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


def create(data_dir: Path, seal: Seal) -> None:
    """Makes the database beside its name and moves it there whole: a crash leaves either nothing or all of it.

    Raises StoreUnavailableError for a folder that already holds what a lost database must have known.
    """
    if (data_dir / f"{DATABASE}.wal").exists() or any((data_dir / BLOBS).glob("*/*")):
        raise _not_ours(data_dir, f"it holds data, but no {DATABASE}")
    if (data_dir / RESTORING).exists():
        raise _not_ours(data_dir, "a backup was being restored there and that was cut off; run `restore` again")
    beside = data_dir / f"{DATABASE}.new"
    for left_over in (beside, data_dir / f"{DATABASE}.new.wal"):
        left_over.unlink(missing_ok=True)
    with connect(beside) as connection:
        migrate(connection)
        cluster_id = str(uuid.uuid4())
        key_check = seal.close(cluster_id.encode(), "cluster")
        connection.execute(sql("add_cluster"), {"cluster_id": cluster_id, "key_check": key_check})
        connection.execute("CHECKPOINT")
    beside.chmod(0o600)
    sync(beside)
    beside.rename(data_dir / DATABASE)
    sync(data_dir)


def check(connection: duckdb.DuckDBPyConnection, data_dir: Path, seal: Seal) -> str:
    """The cluster's id. Raises StoreUnavailableError when the file is not this product's, or the key is not its."""
    if ("cluster",) not in connection.execute(sql("table_names")).fetchall():
        raise _not_ours(data_dir, f"{DATABASE} has no cluster_id")
    rows = connection.execute(sql("cluster")).fetchall()
    if len(rows) != 1:
        raise _not_ours(data_dir, f"{DATABASE} has {len(rows)} rows of cluster_id instead of one")
    cluster_id, key_check = rows[0]
    if seal.open(key_check, "cluster") != cluster_id.encode():
        raise _not_ours(data_dir, "its cluster_id was altered")
    return str(cluster_id)


def migrate(connection: duckdb.DuckDBPyConnection) -> None:
    """Applies, in order, what was not applied yet; each step whole or not at all. Repeating changes nothing."""
    connection.execute(sql("make_migrations"))
    applied = {name for (name,) in connection.execute(sql("applied_migrations")).fetchall()}
    steps = [step for step in files("runtime.store.migrations").iterdir() if step.name.endswith(".sql")]
    for step in sorted(steps, key=lambda step: step.name):
        if step.name in applied:
            continue
        connection.execute("BEGIN")
        connection.execute(step.read_text())
        connection.execute(sql("add_migration"), {"name": step.name})
        connection.execute("COMMIT")


def clear_unfinished(data_dir: Path) -> None:
    """Removes what a backup, report or restore that was cut off left behind. Only for the folder's owner."""
    for left_over in (COPIES, EXPORTS, RESTORING):
        shutil.rmtree(data_dir / left_over, ignore_errors=True)


def _not_ours(data_dir: Path, why: str) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"{data_dir} is not a data folder of Masterbuilder: {why}.",
        "Point DATA_DIR to the right folder, restore a backup, or choose an empty folder.",
    )
