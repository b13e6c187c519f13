//! The SQLite connection: how it is opened, locked and asked. Owns the schema; refuses deferred write transactions.
//!
//! Rules kept here: the busy handler is set before the first statement; WAL is switched on once, by whoever makes
//! the store, under its lock; every write is `BEGIN IMMEDIATE`, so it never fails half-way for a lock; the files of
//! the database are opened by nobody else in this process (closing any descriptor of them would drop SQLite's locks).

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Params, Row, TransactionBehavior};

use crate::error::IndexError;

/// Number of [`SCHEMA`]. An index with another number is set aside and rebuilt.
pub(crate) const SCHEMA_VERSION: i64 = 2;
/// Retries of a locked database, about two minutes in all.
const BUSY_TRIES_MAX: i32 = 24_000;
/// Longest pause between them. SQLite's own handler pauses up to 100 ms, ten times as long as a cached build.
const BUSY_PAUSE_MAX: Duration = Duration::from_millis(5);

/// Times are milliseconds since 1970. `boot` is the boot in which the file was written, NULL once it is known to be
/// on the disk. `print` is the layer's fingerprint
/// ([`crate::layer::TreeFacts`]). A mount's `disk_bytes` is nobody's: an older rbuild wrote it.
const SCHEMA: &str = "
CREATE TABLE blob(
  digest TEXT PRIMARY KEY, size INTEGER NOT NULL, inode INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
  created INTEGER NOT NULL, used INTEGER NOT NULL, boot TEXT) WITHOUT ROWID;
CREATE TABLE layer(
  form TEXT NOT NULL, id TEXT NOT NULL, diff_id TEXT, tar_size INTEGER, disk_bytes INTEGER NOT NULL,
  entries INTEGER NOT NULL, print INTEGER NOT NULL, created INTEGER NOT NULL, used INTEGER NOT NULL, boot TEXT,
  PRIMARY KEY(form, id)) WITHOUT ROWID;
CREATE INDEX layer_diff_id ON layer(diff_id) WHERE diff_id IS NOT NULL;
CREATE TABLE diff_blob(
  diff_id TEXT NOT NULL, compression TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
  media_type TEXT NOT NULL, PRIMARY KEY(diff_id, compression)) WITHOUT ROWID;
CREATE INDEX diff_blob_digest ON diff_blob(digest);
CREATE TABLE record(
  key TEXT PRIMARY KEY, site TEXT NOT NULL, vertex TEXT NOT NULL, layers TEXT NOT NULL, ingredients TEXT NOT NULL,
  created INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX record_site ON record(site, used);
CREATE TABLE record_layer(
  layer TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY(layer, key)) WITHOUT ROWID;
CREATE TABLE record_blob(
  digest TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY(digest, key)) WITHOUT ROWID;
CREATE TABLE alias(alias TEXT PRIMARY KEY, key TEXT NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX alias_key ON alias(key);
CREATE TABLE kv(
  space TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, used INTEGER NOT NULL, PRIMARY KEY(space, key));
CREATE TABLE image(
  name TEXT PRIMARY KEY, digest TEXT NOT NULL, media_type TEXT NOT NULL, manifest_size INTEGER NOT NULL,
  config TEXT, size INTEGER NOT NULL, created INTEGER NOT NULL, tagged INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE mount(
  dir TEXT PRIMARY KEY, id TEXT NOT NULL, created INTEGER NOT NULL, used INTEGER NOT NULL,
  disk_bytes INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
";

/// How the database keeps its promises on this file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Journal {
    /// Write-ahead log in shared memory: local file systems.
    Wal,
    /// Rollback journal: where `mmap(MAP_SHARED)` between processes is not to be trusted (FUSE).
    Delete,
}

/// One connection, used by one thread at a time.
#[derive(Debug)]
pub(crate) struct Index {
    connection: Mutex<Connection>,
}

impl Index {
    /// Makes the tables in a new database. The caller holds the store's lock.
    pub(crate) fn create(path: &Path, journal: Journal) -> Result<(), IndexError> {
        let at = |source| IndexError {
            verb: "create",
            source,
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = connect(path, flags).map_err(at)?;
        let mode = match journal {
            Journal::Wal => "wal",
            Journal::Delete => "delete",
        };
        // What a power failure takes of a new database is a damaged one, which is replaced.
        connection.pragma_update(None, "synchronous", "off").map_err(at)?;
        connection.pragma_update(None, "journal_mode", mode).map_err(at)?;
        let text = format!("BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;");
        connection.execute_batch(&text).map_err(at)
    }

    /// Opens an existing database; also gives its schema number.
    pub(crate) fn open(path: &Path) -> Result<(Self, i64), IndexError> {
        let at = |source| IndexError { verb: "open", source };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = connect(path, flags).map_err(at)?;
        let version: i64 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(at)?;
        Ok((
            Self {
                connection: Mutex::new(connection),
            },
            version,
        ))
    }

    /// Reads. What several statements see may differ if another process writes between them.
    pub(crate) fn read<T>(
        &self,
        verb: &'static str,
        work: impl FnOnce(&Tables<'_>) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let connection = self.lock();
        work(&Tables {
            connection: &connection,
            verb,
        })
    }

    /// Runs `work` in a write transaction, alone among all processes, and commits unless it fails.
    pub(crate) fn write<T, E: From<IndexError>>(
        &self,
        verb: &'static str,
        work: impl FnOnce(&Tables<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.lock();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| IndexError { verb, source })?;
        let value = work(&Tables {
            connection: &transaction,
            verb,
        })?;
        transaction
            .commit()
            .map_err(|source| IndexError { verb, source })?;
        Ok(value)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere rolled its transaction back when it unwound; the connection is as good as before.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tables, inside a transaction or not.
pub(crate) struct Tables<'c> {
    connection: &'c Connection,
    verb: &'static str,
}

impl Tables<'_> {
    /// Runs one statement; gives the rows it changed.
    pub(crate) fn run(&self, sql: &str, values: impl Params) -> Result<usize, IndexError> {
        self.prepared(sql, |statement| statement.execute(values))
    }

    /// The first row, if any.
    pub(crate) fn one<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, IndexError> {
        self.prepared(sql, |statement| statement.query_row(values, read).optional())
    }

    /// All rows.
    pub(crate) fn all<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, IndexError> {
        self.prepared(sql, |statement| statement.query_map(values, read)?.collect())
    }

    fn prepared<T>(
        &self,
        sql: &str,
        work: impl FnOnce(&mut rusqlite::CachedStatement<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, IndexError> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| {
                let done = work(&mut statement);
                #[cfg(test)]
                searched(&statement);
                done
            })
            .map_err(|source| IndexError {
                verb: self.verb,
                source,
            })
    }
}

#[cfg(test)]
thread_local! {
    static SEARCHED: std::cell::Cell<i32> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
fn searched(statement: &rusqlite::Statement<'_>) {
    let steps = statement.reset_status(rusqlite::StatementStatus::FullscanStep);
    SEARCHED.set(SEARCHED.get() + steps);
}

/// Rows that statements of this thread stepped over without an index since the last time this was asked.
#[cfg(test)]
pub(crate) fn rows_searched() -> i32 {
    SEARCHED.replace(0)
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(|tries: i32| {
        let pause = Duration::from_micros(200 * u64::from(tries.unsigned_abs()) + 100);
        std::thread::sleep(pause.min(BUSY_PAUSE_MAX));
        tries < BUSY_TRIES_MAX
    }))?;
    connection.set_prepared_statement_cache_capacity(64);
    // Waiting for the disk when the last process closes would cost every short build some milliseconds; the log is
    // written back by the commit that makes it long instead.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "wal_autocheckpoint", 256)?;
    Ok(connection)
}
