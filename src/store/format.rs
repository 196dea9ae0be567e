//! What is in a store's file: which format it has, how an older one becomes the current one, and how a value is known to be
//! what was written.
//!
//! ```text
//! 1   tables of keys and values as they are, of names that are known; no table `bennu`      (bennu 0.4 to 0.7)
//! 2   the table `bennu` names the format and the version that wrote it; a checksum follows each value
//! ```
//!
//! In the table `bennu`: `format` is four bytes, the highest first; `version` is text.

use flate2::Crc;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableError,
    TableHandle, TypeName, Value, WriteTransaction,
};

/// The current format.
pub(super) const FORMAT: u32 = 2;
/// Bytes of a checksum.
pub(super) const CHECKSUM_BYTES: usize = 4;

/// The table that tells the format. No other may have its name.
pub(super) const META: &str = "bennu";
const META_TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(META);
/// The tables that bennu 0.4 to 0.7 knew. A database of redb's that has others, and no table `bennu`, is somebody else's.
const TABLES_OF_1: [&str; 19] = [
    "api_key_uses",
    "api_keys",
    "mcp_datasets",
    "mcp_memories",
    "mcp_notifications",
    "mcp_projects",
    "revoked_credentials",
    "workflow_context_versions",
    "workflow_contexts",
    "workflow_contexts_owned",
    "workflow_contexts_used",
    "workflow_events",
    "workflow_run_keys",
    "workflow_runs",
    "workflow_runs_ended",
    "workflow_runs_live",
    "workflow_templates",
    "workflow_triggers",
    "workflows",
];
/// Before the name of a table as it was in format 1, while its entries are moved from it.
const MOVING: &str = "bennu:1:";
/// Bytes, and entries, that one step of moving takes.
const MOVED_BYTES_MAX: usize = 4 << 20;
const MOVED_ENTRIES_MAX: usize = 4_096;

/// A table as it is in format 1.
pub(super) type Plain<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;
/// A table as it is.
pub(super) type Definition<'a> = TableDefinition<'a, &'static [u8], Checked>;

/// A value with its checksum behind it. A type of its own to redb: a program that knows format 1 alone is refused such a table
/// instead of taking the checksum for a part of the value.
#[derive(Debug)]
pub(super) struct Checked;

impl Value for Checked {
    type SelfType<'a> = &'a [u8];
    type AsBytes<'a> = &'a [u8];

    fn fixed_width() -> Option<usize> {
        None
    }

    fn from_bytes<'a>(data: &'a [u8]) -> &'a [u8]
    where
        Self: 'a,
    {
        data
    }

    fn as_bytes<'a, 'b: 'a>(value: &'a &'b [u8]) -> &'a [u8]
    where
        Self: 'b,
    {
        value
    }

    fn type_name() -> TypeName {
        TypeName::new("bennu::Checked")
    }
}

/// CRC-32 of the table's name, the key and the value, each but the last with its length: so a value in another's place is found
/// as well as one that has changed.
fn checksum(table: &str, key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut crc = Crc::new();
    let lengths =
        [table.len(), key.len()].map(|length| u32::try_from(length).expect("names and keys are short").to_be_bytes());
    for part in [lengths.as_flattened(), table.as_bytes(), key, value] {
        crc.update(part);
    }
    crc.sum().to_be_bytes()
}

/// The value as it is stored.
pub(super) fn seal(table: &str, key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(table, key, &value);
    value.extend_from_slice(&checksum);
    value
}

/// The value of what is stored, if its checksum is right.
pub(super) fn unseal<'a>(table: &str, key: &[u8], stored: &'a [u8]) -> Option<&'a [u8]> {
    let (value, stored) = stored.split_last_chunk::<CHECKSUM_BYTES>()?;
    (checksum(table, key, value) == *stored).then_some(value)
}

/// Brings a file from one format to the next.
type Step = fn(&Database) -> Result<(), redb::Error>;

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) format: u32,
    /// The version that wrote it; format 1 does not tell.
    pub(super) version: Option<String>,
}

/// What a database of redb's is to us.
pub(super) enum Content {
    /// There is nothing in it yet.
    Nothing,
    Store(Found),
    /// Tables that no version of this program had.
    Foreign,
}

/// Reads the format.
pub(super) fn found(transaction: &ReadTransaction) -> Result<Content, redb::Error> {
    let table = match transaction.open_table(META_TABLE) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return without_meta(transaction),
        Err(
            TableError::TableTypeMismatch { .. }
            | TableError::TableIsMultimap(_)
            | TableError::TypeDefinitionChanged { .. },
        ) => return Ok(Content::Foreign),
        Err(error) => return Err(error.into()),
    };
    let format = table.get("format")?.and_then(|value| value.value().try_into().ok()).map(u32::from_be_bytes);
    let format = format.ok_or_else(|| redb::Error::Corrupted("the table `bennu` has no format".to_owned()))?;
    let version = table.get("version")?.map(|value| String::from_utf8_lossy(value.value()).into_owned());
    Ok(Content::Store(Found { format, version }))
}

/// Format 1, also where its migration was broken off, or something else.
fn without_meta(transaction: &ReadTransaction) -> Result<Content, redb::Error> {
    if transaction.list_multimap_tables()?.next().is_some() {
        return Ok(Content::Foreign);
    }
    let mut content = Content::Nothing;
    for table in transaction.list_tables()? {
        let name = table.name();
        let is_known = TABLES_OF_1.contains(&name.strip_prefix(MOVING).unwrap_or(name));
        if !is_known || !is_table(transaction, name)? {
            return Ok(Content::Foreign);
        }
        content = Content::Store(Found { format: 1, version: None });
    }
    Ok(content)
}

/// Whether its keys and values are such as ours, of either format.
fn is_table(transaction: &ReadTransaction, name: &str) -> Result<bool, redb::Error> {
    for opened in
        [transaction.open_table(Plain::new(name)).map(drop), transaction.open_table(Definition::new(name)).map(drop)]
    {
        match opened {
            Ok(()) => return Ok(true),
            Err(TableError::TableTypeMismatch { .. } | TableError::TypeDefinitionChanged { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// Writes into an empty file which format it has.
pub(super) fn begin(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    tell(&transaction, FORMAT)?;
    Ok(transaction.commit()?)
}

/// Brings a file to the current format, step by step. A crash in between is gone on from.
pub(super) fn migrate(database: &Database, found: Option<Found>) -> Result<(), redb::Error> {
    /// Step n brings format n + 1 to n + 2.
    const STEPS: [Step; FORMAT as usize - 1] = [add_checksums];
    let Some(found) = found else { return begin(database) };
    for (step, format) in STEPS.iter().zip(1..).skip_while(|(_, format)| *format < found.format) {
        tracing::info!(from = format, to = format + 1, "the store is brought to another format");
        step(database)?;
    }
    if found.version.as_deref() == Some(env!("CARGO_PKG_VERSION")) { Ok(()) } else { begin(database) }
}

fn tell(transaction: &WriteTransaction, format: u32) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(META_TABLE)?;
    table.insert("format", &format.to_be_bytes()[..])?;
    table.insert("version", env!("CARGO_PKG_VERSION").as_bytes())?;
    Ok(())
}

/// Format 1 to 2. The first transaction puts all tables aside and tables of the new type in their places, so that from then on
/// a program that knows format 1 alone is refused them, instead of taking what is not moved yet for all there is. Then the
/// entries move, some with each transaction. The last one tells the format: whatever a crash leaves is still format 1 and gone
/// on with.
fn add_checksums(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for name in plain_tables(database)?.iter().filter(|name| !name.starts_with(MOVING)) {
        transaction.rename_table(Plain::new(name), Plain::new(&format!("{MOVING}{name}")))?;
        transaction.open_table(Definition::new(name))?;
    }
    transaction.commit()?;
    for aside in plain_tables(database)? {
        let (old, name) = (Plain::new(&aside), aside.strip_prefix(MOVING).unwrap_or(&aside));
        loop {
            let transaction = database.begin_write()?;
            let is_empty = {
                let mut from = transaction.open_table(old)?;
                let mut to = transaction.open_table(Definition::new(name))?;
                let mut bytes = 0;
                for _ in 0..MOVED_ENTRIES_MAX {
                    let Some((key, value)) = from.pop_first()? else { break };
                    bytes += key.value().len() + value.value().len();
                    to.insert(key.value(), &*seal(name, key.value(), value.value().to_vec()))?;
                    if bytes > MOVED_BYTES_MAX {
                        break;
                    }
                }
                from.is_empty()?
            };
            if is_empty {
                transaction.delete_table(old)?;
            }
            transaction.commit()?;
            if is_empty {
                break;
            }
        }
    }
    let transaction = database.begin_write()?;
    tell(&transaction, 2)?;
    Ok(transaction.commit()?)
}

/// The tables that are as in format 1.
fn plain_tables(database: &Database) -> Result<Vec<String>, redb::Error> {
    let transaction = database.begin_read()?;
    let mut names = Vec::new();
    for table in transaction.list_tables()? {
        match transaction.open_table(Plain::new(table.name())) {
            Ok(_) => names.push(table.name().to_owned()),
            Err(TableError::TableTypeMismatch { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(names)
}

/// The tables of entries, each with whether its values have checksums; in the order of their names, the format's own left out.
/// What a migration has not moved yet stands under the name that it had.
pub(super) fn tables(transaction: &ReadTransaction) -> Result<Vec<Listed>, redb::Error> {
    let mut listed = Vec::new();
    for table in transaction.list_tables()?.filter(|table| table.name() != META) {
        let name = table.name();
        let is_plain = match transaction.open_table(Plain::new(name)) {
            Ok(_) => true,
            Err(TableError::TableTypeMismatch { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        let name_of_owner = name.strip_prefix(MOVING).unwrap_or(name).to_owned();
        listed.push(Listed { stored_as: name.to_owned(), name: name_of_owner, is_plain });
    }
    listed.sort_by(|a, b| (&a.name, &a.stored_as).cmp(&(&b.name, &b.stored_as)));
    Ok(listed)
}

/// A table that a file has.
pub(super) struct Listed {
    /// Its owner's name for it.
    pub(super) name: String,
    stored_as: String,
    is_plain: bool,
}

impl Listed {
    /// Gives each entry's key and value, the keys in order; no value where its checksum is wrong.
    ///
    /// # Errors
    /// Those of `each`, which end it, and redb's.
    pub(super) fn each<E: From<redb::Error>>(
        &self,
        transaction: &ReadTransaction,
        mut each: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        let of_redb = |error: redb::StorageError| redb::Error::from(error);
        if self.is_plain {
            let table = transaction.open_table(Plain::new(&self.stored_as)).map_err(redb::Error::from)?;
            for entry in table.iter().map_err(of_redb)? {
                let (key, value) = entry.map_err(of_redb)?;
                each(key.value(), Some(value.value()))?;
            }
            return Ok(());
        }
        let table = transaction.open_table(Definition::new(&self.stored_as)).map_err(redb::Error::from)?;
        for entry in table.iter().map_err(of_redb)? {
            let (key, value) = entry.map_err(of_redb)?;
            each(key.value(), unseal(&self.name, key.value(), value.value()))?;
        }
        Ok(())
    }
}

/// What is said of a wrong checksum. Keys may be secret: their length has to do.
pub(super) fn wrong(table: &str, key: &[u8]) -> String {
    format!("an entry of the table {table}, with a key of {} bytes, is not what was written", key.len())
}
