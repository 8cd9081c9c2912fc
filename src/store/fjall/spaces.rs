//! The eight key spaces and the options they are opened with.
//!
//! Owns: their names, numbers and tuning (`storage.md` 4.5). Few and fixed for ever: none per
//! tenant, endpoint or hour; `clear` and `delete_keyspace` are never called (`reliability.md` D4).
//! The number of a key space is its bit in a batch record: append only.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use ::fjall::compaction::Leveled;
use ::fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy};
use ::fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, Snapshot};

use super::gone::{self, Floors};
use crate::config::Storage;
use crate::store::Error;

/// Which key space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    Messages = 0,
    Parked = 1,
    Attempts = 2,
    AttemptsLate = 3,
    Lists = 4,
    Idem = 5,
    State = 6,
    Meta = 7,
}

impl Space {
    pub(super) const ALL: [Self; 8] = [
        Self::Messages,
        Self::Parked,
        Self::Attempts,
        Self::AttemptsLate,
        Self::Lists,
        Self::Idem,
        Self::State,
        Self::Meta,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Parked => "parked",
            Self::Attempts => "attempts",
            Self::AttemptsLate => "attempts_late",
            Self::Lists => "lists",
            Self::Idem => "idem",
            Self::State => "state",
            Self::Meta => "meta",
        }
    }

    /// Its bit in a batch record.
    pub(super) const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Whether its markers stand in the ring. Messages carry numbers of their own, the batch records
    /// are those of `meta`, and attempts have theirs at the tail.
    pub(super) const fn has_ring(self) -> bool {
        !matches!(self, Self::Messages | Self::Attempts | Self::Meta)
    }

    fn options(self, memtable: u64) -> KeyspaceCreateOptions {
        let base = KeyspaceCreateOptions::default()
            .manual_journal_persist(true)
            .max_memtable_size(memtable)
            .compaction_strategy(Arc::new(Leveled::default()))
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4));
        match self {
            // Written in key order and looked up by keys that exist: no filters.
            Self::Messages => base
                .data_block_size_policy(BlockSizePolicy::all(16 * 1024))
                .filter_policy(FilterPolicy::disabled())
                .expect_point_read_hits(true),
            Self::Attempts | Self::Lists => base
                .data_block_size_policy(BlockSizePolicy::all(16 * 1024))
                .filter_policy(FilterPolicy::disabled()),
            Self::Parked | Self::AttemptsLate | Self::Idem | Self::State | Self::Meta => base,
        }
    }
}

/// The database and its key spaces. Clones share them.
#[derive(Clone)]
pub(super) struct Spaces {
    pub(super) db: Database,
    all: [Keyspace; 8],
}

impl Spaces {
    /// Opens or creates the database. Whoever calls has looked at the journals first: opening cuts
    /// what it cannot read (`reliability.md` F1).
    pub(super) fn open(dir: &Path, options: &Storage) -> Result<Self, ::fjall::Error> {
        Self::open_expiring(dir, options, &Arc::default())
    }

    /// The same; compactions leave out what `floors` say is gone.
    pub(super) fn open_expiring(
        dir: &Path,
        options: &Storage,
        floors: &Arc<Floors>,
    ) -> Result<Self, ::fjall::Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let least_journal = 64 * 1024 * 1024;
        if dir.join("version").exists() {
            // Empty, and only there to be locked; without it the database would not open.
            let lock = dir.join("lock");
            File::options().append(true).create(true).open(lock)?;
        }
        let db = Database::builder(dir)
            .cache_size(options.cache.get())
            .max_journaling_size(options.max_journal.get().max(least_journal))
            .manual_journal_persist(true)
            .journal_compression(CompressionType::None)
            .with_compaction_filter_factories(gone::filters(floors))
            .worker_threads(if cores >= 4 { 2 } else { 1 })
            .open()?;
        let memtable = options.memtable.get();
        let [a, b, c, d, e, f, g, h] = Space::ALL;
        let open = |space: Space| db.keyspace(space.name(), || space.options(memtable));
        let all = [
            open(a)?,
            open(b)?,
            open(c)?,
            open(d)?,
            open(e)?,
            open(f)?,
            open(g)?,
            open(h)?,
        ];
        Ok(Self { db, all })
    }

    /// The key space itself.
    pub(super) const fn of(&self, space: Space) -> &Keyspace {
        let [a, b, c, d, e, f, g, h] = &self.all;
        match space {
            Space::Messages => a,
            Space::Parked => b,
            Space::Attempts => c,
            Space::AttemptsLate => d,
            Space::Lists => e,
            Space::Idem => f,
            Space::State => g,
            Space::Meta => h,
        }
    }

    /// What is committed now, unchanging. Short-lived: it holds back the collection of old versions.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.db.snapshot()
    }
}

/// A failed read in the words of the seam. What is not the disk's fault is damage: waiting and
/// starting again would not help.
pub(super) fn unreadable(error: &::fjall::Error) -> Error {
    if is_of_the_disk(error) {
        return Error::Unavailable(error.to_string());
    }
    Error::Corrupt {
        what: String::from("block of a table file"),
        why: error.to_string(),
    }
}

/// Whether the disk, or another process, kept the database from reading; everything else means
/// that what was read is not what was written.
pub(super) fn is_of_the_disk(error: &::fjall::Error) -> bool {
    let io = match error {
        ::fjall::Error::Io(io) | ::fjall::Error::Storage(::fjall::LsmError::Io(io)) => io,
        ::fjall::Error::Locked | ::fjall::Error::Poisoned => return true,
        _ => return false,
    };
    !matches!(
        io.kind(),
        ErrorKind::NotFound
            | ErrorKind::UnexpectedEof
            | ErrorKind::InvalidData
            | ErrorKind::InvalidInput
    )
}
