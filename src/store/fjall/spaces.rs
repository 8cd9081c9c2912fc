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
use ::fjall::{
    AbstractTree as _, CompressionType, Database, Keyspace, KeyspaceCreateOptions, Snapshot,
};

use super::gone::{self, Floors};
use crate::config::Storage;
use crate::store::Error;

/// Bytes of the memory table of objects and endpoint states at most.
const STATE_MEMTABLE: u64 = 4 << 20;
/// Bytes of a table on disk, and with it of a compaction: some ten tables of the level below for one. The
/// only worker flushes nothing meanwhile, and full memory tables wait (ADR 0350).
const TABLE: u64 = 16 << 20;

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

    /// Bytes of its memory table at most, of those that are configured.
    fn memtable(self, configured: u64) -> u64 {
        match self {
            // Objects and states: written now and then, read once at start. What is here stays in memory until
            // it is full, at a gateway with ten thousand endpoints for ever.
            Self::State => configured.min(STATE_MEMTABLE),
            _ => configured,
        }
    }

    fn options(self, memtable: u64) -> KeyspaceCreateOptions {
        let base = KeyspaceCreateOptions::default()
            .manual_journal_persist(true)
            .max_memtable_size(self.memtable(memtable))
            .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(TABLE)))
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
            // Read in key order; one row by its key only when somebody asks for that delivery.
            Self::Parked => base.filter_policy(FilterPolicy::disabled()),
            Self::AttemptsLate | Self::Idem | Self::State | Self::Meta => base,
        }
    }
}

/// The database and its key spaces. Clones share them.
#[derive(Clone)]
pub(super) struct Spaces {
    pub(super) db: Database,
    all: [Keyspace; 8],
    /// `storage.memtable`
    memtable: u64,
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
        Ok(Self { db, all, memtable })
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

    /// Hands the memory tables of `touched` that are full to the flush. Called after each commit, by the only
    /// thread that commits while the store is in use.
    ///
    /// The database does that too, but by a message to its worker with every commit beyond the limit. A worker
    /// that compacts meanwhile finds its bounded queue full of them; then it puts its request for the flush
    /// at the end of the same queue and waits for ever for itself to make room: nothing is flushed any more,
    /// and memory and journals grow until the process ends (fjall-rs/fjall#323). With this it sends one such
    /// message a table, and finds it done.
    pub(super) fn flush_full(
        &self,
        touched: impl IntoIterator<Item = Space>,
    ) -> Result<(), ::fjall::Error> {
        for space in touched {
            let keyspace = self.of(space);
            if keyspace.tree.active_memtable().size() > space.memtable(self.memtable) {
                keyspace.rotate_memtable()?;
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ByteSize;

    const LIMIT: ByteSize = ByteSize::kib(256);

    /// fjall-rs/fjall#323: memory and journals of a gateway with ten million pending deliveries grew by
    /// gigabytes, because the only worker waited for room in its own queue. The queue fills with one
    /// message a commit for as long as a table is too large, so none may be when a commit returns.
    #[test]
    fn no_memory_table_is_too_large_when_a_commit_returns_and_all_of_them_are_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let options = Storage {
            dir: dir.path().to_owned(),
            memtable: LIMIT,
            ..crate::config::Config::default().storage
        };
        let spaces = Spaces::open(&dir.path().join("db"), &options).unwrap();
        let messages = spaces.of(Space::Messages);
        let mut handed_over = 0;
        let mut before = 0;
        for no in 0..20_000_u64 {
            let mut batch = spaces.db.batch();
            batch.insert(messages, no.to_be_bytes(), vec![7; 200]);
            batch.commit().unwrap();
            spaces.flush_full([Space::Messages]).unwrap();
            let size = messages.tree.active_memtable().size();
            assert!(size <= LIMIT.get(), "{size} bytes after commit {no}");
            handed_over += u32::from(size < before);
            before = size;
        }
        assert!(handed_over >= 10, "{handed_over} tables");
        // Ends only if the worker works.
        messages.rotate_memtable_and_wait().unwrap();
        assert_eq!(messages.tree.sealed_memtable_count(), 0);
    }
}
