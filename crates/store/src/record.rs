//! Cache records: which key made which layers, and out of what. Owns the tables `record`, `alias` and `kv`. Refuses
//! to judge: whether a record can be used, its layers being there, is the solver's question.

use std::collections::HashMap;

use rbuild_oci::{DiffId, Digest};
use serde::{Deserialize, Serialize};

use crate::error::IndexError;
use crate::index::Tables;
use crate::name::{DigestColumn, LayerId};
use crate::store::{Store, Used};

/// The result of one vertex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Cache key of the vertex.
    pub key: Digest,
    /// Where in a build it stands (stage and position, as the caller counts them): records of one site are compared
    /// with each other to name the cause of a miss.
    pub site: String,
    /// What the vertex was called, for people.
    pub vertex: String,
    /// The layers of the result, bottom first.
    pub layers: Vec<LayerEntry>,
    /// What the key was made of: names and values, in the order they went in. Values are short; long ones are
    /// digests.
    pub ingredients: Vec<(String, String)>,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
}

/// One layer of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerEntry {
    /// Its directory, which need not exist if there is a descriptor.
    pub id: LayerId,
    /// Which output of the vertex it is part of.
    #[serde(default, skip_serializing_if = "is_first")]
    pub output: u32,
    /// Digest of its tar, if known then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<DiffId>,
    /// OCI descriptor (JSON) of the blob it can be unpacked from, for layers that were pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_first(output: &u32) -> bool {
    *output == 0
}

/// Keys asked for in one statement.
const BULK: usize = 32;
/// Layers of an output that a record is found by, from the top: all that docker's images have. A step on a thousand others
/// would note a thousand, in as many places of the table. What has lost a layer further down turns out to be gone when it is used.
const NOTED_MAX: usize = 128;
/// Columns of a record, in the order [`Row`] reads them.
const COLUMNS: &str = "key, site, vertex, layers, ingredients, created, used";

struct Row {
    record: Record,
    used: i64,
}

impl Store {
    /// Adds or replaces a record.
    ///
    /// # Errors
    /// The index's.
    pub fn put_record(&self, record: &Record) -> Result<(), IndexError> {
        self.put_records(std::slice::from_ref(record))
    }

    /// Adds or replaces records, all or none.
    ///
    /// # Errors
    /// The index's.
    pub(crate) fn put_records(&self, records: &[Record]) -> Result<(), IndexError> {
        self.index().write("add record", |tables| {
            for record in records {
                forget_record(tables, record.key.as_str())?;
                tables.run(
                    "INSERT INTO record(key, site, vertex, layers, ingredients, created, used)
                     VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    (
                        record.key.as_str(),
                        &record.site,
                        &record.vertex,
                        json(&record.layers)?,
                        json(&record.ingredients)?,
                        record.created_ms,
                        self.now(),
                    ),
                )?;
                for (at, layer) in record.layers.iter().enumerate() {
                    let above = record.layers.get(at + NOTED_MAX);
                    if above.is_none_or(|above| above.output != layer.output) {
                        tables.run(
                            "INSERT OR IGNORE INTO record_layer(layer, key) VALUES(?1, ?2)",
                            (&layer.id, record.key.as_str()),
                        )?;
                    }
                    if let Some(blob) = layer.descriptor.as_deref().and_then(descriptor_digest) {
                        tables.run(
                            "INSERT OR IGNORE INTO record_blob(digest, key) VALUES(?1, ?2)",
                            (blob.as_str(), record.key.as_str()),
                        )?;
                    }
                }
            }
            Ok(())
        })
    }

    /// The record of a key.
    ///
    /// # Errors
    /// The index's.
    pub fn get_record(&self, key: &Digest) -> Result<Option<Record>, IndexError> {
        Ok(self.get_records(std::slice::from_ref(key))?.remove(key))
    }

    /// The records of those keys that have one, an alias leading to the record of its key.
    ///
    /// # Errors
    /// The index's.
    pub(crate) fn get_records(&self, keys: &[Digest]) -> Result<HashMap<Digest, Record>, IndexError> {
        let rows = self.index().read("find records", |tables| {
            let mut rows = Vec::new();
            for part in keys.chunks(BULK) {
                // One prepared statement for every number of keys: absent ones are NULL, which equals nothing.
                let marks = vec!["?"; BULK].join(",");
                let sql = format!("SELECT {COLUMNS} FROM record WHERE key IN ({marks})");
                let values = part
                    .iter()
                    .map(|key| Some(key.as_str()))
                    .chain(std::iter::repeat(None))
                    .take(BULK);
                rows.extend(tables.all(&sql, rusqlite::params_from_iter(values), read_record)?);
            }
            Ok(rows)
        })?;
        let mut found = HashMap::new();
        for row in rows {
            self.note_used(Used::Record, row.record.key.as_str(), row.used);
            found.insert(row.record.key.clone(), row.record);
        }
        Ok(found)
    }

    /// The records made at a site, last used first, at most `max`.
    ///
    /// # Errors
    /// The index's.
    pub fn nearest_records(&self, site: &str, max: usize) -> Result<Vec<Record>, IndexError> {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        self.index().read("find records", |tables| {
            let sql = format!(
                "SELECT {COLUMNS} FROM record WHERE site = ?1 ORDER BY used DESC, created DESC LIMIT ?2"
            );
            Ok(tables
                .all(&sql, (site, max), read_record)?
                .into_iter()
                .map(|row| row.record)
                .collect())
        })
    }

    /// Says that `alias` is another key for what `key` made (a definition whose content was found to be the same).
    ///
    /// # Errors
    /// The index's.
    pub fn put_alias(&self, alias: &Digest, key: &Digest) -> Result<(), IndexError> {
        self.index().write("add alias", |tables| {
            tables
                .run(
                    "INSERT OR REPLACE INTO alias(alias, key, used) VALUES(?1, ?2, ?3)",
                    (alias.as_str(), key.as_str(), self.now()),
                )
                .map(drop)
        })
    }

    /// The key an alias stands for.
    ///
    /// # Errors
    /// The index's.
    pub fn get_alias(&self, alias: &Digest) -> Result<Option<Digest>, IndexError> {
        let found = self.index().read("find alias", |tables| {
            tables.one(
                "SELECT key, used FROM alias WHERE alias = ?1",
                [alias.as_str()],
                |row| Ok((row.get::<_, DigestColumn>(0)?.0, row.get::<_, i64>(1)?)),
            )
        })?;
        Ok(found.map(|(key, used)| {
            self.note_used(Used::Alias, alias.as_str(), used);
            key
        }))
    }

    /// A small value kept under a name: a stat cache, a resolved tag. `space` keeps users of the table apart.
    ///
    /// # Errors
    /// The index's.
    pub fn kv(&self, space: &str, key: &str) -> Result<Option<Vec<u8>>, IndexError> {
        self.index().read("find value", |tables| {
            tables.one(
                "SELECT value FROM kv WHERE space = ?1 AND key = ?2",
                (space, key),
                |row| row.get(0),
            )
        })
    }

    /// Sets a value.
    ///
    /// # Errors
    /// The index's.
    pub fn put_kv(&self, space: &str, key: &str, value: &[u8]) -> Result<(), IndexError> {
        self.put_kvs(space, &[(key, value)])
    }

    /// Sets values, all or none.
    ///
    /// # Errors
    /// The index's.
    pub(crate) fn put_kvs(&self, space: &str, values: &[(&str, &[u8])]) -> Result<(), IndexError> {
        let now = self.now();
        self.index()
            .write("set value", |tables| put_kvs(tables, space, values, now))
    }

    /// Removes a value.
    ///
    /// # Errors
    /// The index's.
    pub fn remove_kv(&self, space: &str, key: &str) -> Result<(), IndexError> {
        self.index().write("remove value", |tables| {
            tables
                .run("DELETE FROM kv WHERE space = ?1 AND key = ?2", (space, key))
                .map(drop)
        })
    }

    /// Sets several values, and keeps the `keep` values of the space that were set last.
    ///
    /// # Errors
    /// The index's.
    pub fn keep_kvs(&self, space: &str, values: &[(&str, &[u8])], keep: usize) -> Result<(), IndexError> {
        let (now, keep) = (self.now(), i64::try_from(keep).unwrap_or(i64::MAX));
        self.index().write("set and prune values", |tables| {
            put_kvs(tables, space, values, now)?;
            tables
                .run(
                    "DELETE FROM kv WHERE space = ?1 AND rowid NOT IN
                     (SELECT rowid FROM kv WHERE space = ?1 ORDER BY used DESC, rowid DESC LIMIT ?2)",
                    (space, keep),
                )
                .map(drop)
        })
    }

    /// Notes `key` in a space that has no values, and keeps the `keep` keys that were noted last. Written once: what most
    /// builds note was noted before.
    ///
    /// # Errors
    /// The index's.
    pub fn note_kv(&self, space: &str, key: &str, keep: usize) -> Result<(), IndexError> {
        if self.kv(space, key)?.is_none() {
            self.keep_kvs(space, &[(key, &[])], keep)?;
        }
        Ok(())
    }
}

fn put_kvs(tables: &Tables<'_>, space: &str, values: &[(&str, &[u8])], now: i64) -> Result<(), IndexError> {
    for (key, value) in values {
        tables.run(
            "INSERT INTO kv(space, key, value, used) VALUES(?1, ?2, ?3, ?4)
             ON CONFLICT(space, key) DO UPDATE SET value = ?3, used = ?4",
            (space, key, value, now),
        )?;
    }
    Ok(())
}

/// Forgets a record and what was noted of its parts. Those are found by what the record says of itself: their tables are in
/// the order of the parts, and would have to be read as a whole for a key.
pub(crate) fn forget_record(tables: &Tables<'_>, key: &str) -> Result<(), IndexError> {
    let sql = "SELECT layers FROM record WHERE key = ?1";
    let Some(layers) = tables.one(sql, [key], |row| row.get::<_, String>(0))? else {
        return Ok(());
    };
    let layers: Vec<LayerEntry> = serde_json::from_str(&layers).unwrap_or_default();
    for layer in &layers {
        let sql = "DELETE FROM record_layer WHERE layer = ?1 AND key = ?2";
        tables.run(sql, (&layer.id, key))?;
        if let Some(blob) = layer.descriptor.as_deref().and_then(descriptor_digest) {
            let sql = "DELETE FROM record_blob WHERE digest = ?1 AND key = ?2";
            tables.run(sql, (blob.as_str(), key))?;
        }
    }
    tables.run("DELETE FROM record WHERE key = ?1", [key])?;
    Ok(())
}

/// The digest in a descriptor; none if it is not a descriptor of a digest we know.
fn descriptor_digest(text: &str) -> Option<Digest> {
    #[derive(Deserialize)]
    struct Descriptor {
        digest: Digest,
    }
    serde_json::from_str::<Descriptor>(text)
        .ok()
        .map(|descriptor| descriptor.digest)
}

fn read_record(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let record = Record {
        key: row.get::<_, DigestColumn>(0)?.0,
        site: row.get(1)?,
        vertex: row.get(2)?,
        layers: from_json(row, 3)?,
        ingredients: from_json(row, 4)?,
        created_ms: row.get(5)?,
    };
    Ok(Row {
        record,
        used: row.get(6)?,
    })
}

fn from_json<T: serde::de::DeserializeOwned>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn json<T: Serialize>(value: &T) -> Result<String, IndexError> {
    serde_json::to_string(value).map_err(|error| IndexError {
        verb: "add record",
        source: rusqlite::Error::ToSqlConversionFailure(Box::new(error)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{manual_store, temporary_store};
    use std::sync::atomic::Ordering;

    fn record(key: &[u8], site: &str, ingredients: &[(&str, &str)]) -> Record {
        Record {
            key: Digest::sha256(key),
            site: site.to_owned(),
            vertex: "[stage-0 2/3] RUN true".to_owned(),
            layers: vec![
                LayerEntry {
                    id: LayerId::of_diff_id(&DiffId(Digest::sha256(b"base"))),
                    output: 0,
                    diff_id: Some(DiffId(Digest::sha256(b"base"))),
                    descriptor: Some(format!(r#"{{"digest":"{}","size":3}}"#, Digest::sha256(b"blob"))),
                },
                LayerEntry {
                    id: LayerId::random().unwrap(),
                    output: 0,
                    diff_id: None,
                    descriptor: None,
                },
            ],
            ingredients: ingredients
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            created_ms: 5,
        }
    }

    #[test]
    fn records_come_back_as_they_went_in() {
        let (_dir, store) = temporary_store();
        let first = record(b"1", "s/1", &[("a", "bc"), ("", "")]);
        let second = record(b"2", "s/1", &[("ab", "c"), ("a", "x")]);
        store.put_records(&[first.clone(), second.clone()]).unwrap();
        assert_eq!(store.get_record(&first.key).unwrap(), Some(first.clone()));
        let mut keys: Vec<Digest> = (0..100u8).map(|n| Digest::sha256(&[n, n])).collect();
        keys.extend([first.key.clone(), second.key.clone()]);
        let found = store.get_records(&keys).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[&second.key], second);
        let replaced = Record {
            layers: vec![],
            ..second.clone()
        };
        store.put_record(&replaced).unwrap();
        assert_eq!(store.get_record(&second.key).unwrap(), Some(replaced));
    }

    #[test]
    fn what_a_record_costs_does_not_depend_on_how_many_there_are() {
        let (_dir, store) = temporary_store();
        let records: Vec<Record> = (0..50u8).map(|n| record(&[n], "s/1", &[])).collect();
        store.put_records(&records).unwrap();
        let parts = |key: &Digest| {
            let count = |table: &str| {
                let sql = format!("SELECT count(*) FROM {table} WHERE key = ?1");
                let found = store.index().read("count", |tables| {
                    tables.one(&sql, [key.as_str()], |row| row.get::<_, i64>(0))
                });
                found.unwrap()
            };
            (count("record_layer"), count("record_blob"))
        };
        assert_eq!(parts(&records[7].key), (Some(2), Some(1)));
        crate::index::rows_searched();
        store.put_record(&record(b"one more", "s/1", &[])).unwrap();
        let replaced = Record {
            layers: vec![],
            ..records[7].clone()
        };
        store.put_record(&replaced).unwrap();
        let forget = |tables: &Tables<'_>| forget_record(tables, records[8].key.as_str());
        store.index().write("forget", forget).unwrap();
        assert_eq!(crate::index::rows_searched(), 0, "a table was searched through");
        assert_eq!(parts(&records[7].key), (Some(0), Some(0)));
        assert_eq!(parts(&records[8].key), (Some(0), Some(0)));
        assert_eq!(parts(&records[9].key), (Some(2), Some(1)));
    }

    #[test]
    fn a_record_of_very_many_layers_is_found_by_those_on_top_of_each_output() {
        let (_dir, store) = temporary_store();
        let entry = |n: u32| LayerEntry {
            id: LayerId::random().unwrap(),
            output: n / 200,
            diff_id: None,
            descriptor: None,
        };
        let record = Record {
            layers: (0..400).map(entry).collect(),
            ..record(b"many", "s/1", &[])
        };
        store.put_record(&record).unwrap();
        let found = |layer: usize| {
            let id = record.layers[layer].id.as_str();
            let found = store
                .index()
                .read("find", |tables| crate::gc::records_without(tables, id));
            !found.unwrap().is_empty()
        };
        let found: Vec<usize> = (0..400).filter(|layer| found(*layer)).collect();
        let expected: Vec<usize> = (72..200).chain(272..400).collect();
        assert_eq!(found, expected);
        assert_eq!(store.get_record(&record.key).unwrap(), Some(record.clone()));
        let forget = |tables: &Tables<'_>| forget_record(tables, record.key.as_str());
        store.index().write("forget", forget).unwrap();
        let left = store.index().read("count", |tables| {
            tables.one("SELECT count(*) FROM record_layer", [], |row| {
                row.get::<_, i64>(0)
            })
        });
        assert_eq!(left.unwrap(), Some(0));
    }

    #[test]
    fn the_nearest_record_is_the_last_used_of_the_site() {
        let (_dir, store, clock) = manual_store();
        let records: Vec<Record> = (0..3u8)
            .map(|n| record(&[n], "s/1", &[("n", &n.to_string())]))
            .collect();
        for record in &records {
            clock.fetch_add(1000, Ordering::SeqCst);
            store.put_record(record).unwrap();
        }
        store.put_record(&record(b"else", "s/2", &[])).unwrap();
        clock.fetch_add(3_600_000, Ordering::SeqCst);
        store.get_record(&records[0].key).unwrap().unwrap();
        store.flush_used();
        let near = store.nearest_records("s/1", 2).unwrap();
        assert_eq!(near, [records[0].clone(), records[2].clone()]);
        assert!(store.nearest_records("s/3", 2).unwrap().is_empty());
    }

    #[test]
    fn aliases_lead_to_keys() {
        let (_dir, store) = temporary_store();
        let (alias, key) = (Digest::sha256(b"alias"), Digest::sha256(b"key"));
        assert_eq!(store.get_alias(&alias).unwrap(), None);
        store.put_alias(&alias, &key).unwrap();
        assert_eq!(store.get_alias(&alias).unwrap(), Some(key));
    }

    #[test]
    fn values_are_kept_apart_and_pruned_by_age() {
        let (_dir, store, clock) = manual_store();
        for n in 0..5u8 {
            clock.fetch_add(1, Ordering::SeqCst);
            store.put_kv("tags", &n.to_string(), &[n]).unwrap();
        }
        store.put_kv("stat", "0", b"other").unwrap();
        clock.fetch_add(1, Ordering::SeqCst);
        store.keep_kvs("tags", &[("0", b"new")], 2).unwrap();
        for n in 1..4u8 {
            assert_eq!(store.kv("tags", &n.to_string()).unwrap(), None, "{n}");
        }
        assert_eq!(store.kv("tags", "0").unwrap().as_deref(), Some(&b"new"[..]));
        assert_eq!(store.kv("tags", "4").unwrap().as_deref(), Some(&[4][..]));
        assert_eq!(store.kv("stat", "0").unwrap().as_deref(), Some(&b"other"[..]));
        store.remove_kv("stat", "0").unwrap();
        assert_eq!(store.kv("stat", "0").unwrap(), None);
    }
}
