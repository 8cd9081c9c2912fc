//! All manifests: those compiled in, and those of a directory that override or add.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::builtin::MANIFESTS;
use super::manifest::{Draft, Manifest};
use super::mistake::Mistake;

/// A manifest's file at most, bytes.
const MAX_FILE: u64 = 256 * 1024;

/// All manifests by id. Immutable; cheap to share.
#[derive(Debug, Clone)]
pub struct Catalogue(BTreeMap<String, Arc<Manifest>>);

impl Catalogue {
    /// The manifests that are compiled in.
    ///
    /// # Errors
    /// Never in a build whose tests pass.
    pub fn builtin() -> Result<Self, Vec<Mistake>> {
        Self::load(None)
    }

    /// The manifests that are compiled in, then every `ID.toml` of `overrides`, which replaces the one
    /// of its id or adds one. Read once: a changed directory wants a restart.
    ///
    /// # Errors
    /// All mistakes of all files, with file and line; a directory or file that cannot be read.
    pub fn load(overrides: Option<&Path>) -> Result<Self, Vec<Mistake>> {
        let mut loading = Loading::default();
        for (id, text) in MANIFESTS {
            loading.take(id, &format!("{id}.toml"), text);
        }
        if let Some(directory) = overrides {
            loading.directory(directory);
        }
        loading.finish()
    }

    /// The manifest of this id.
    pub fn get(&self, id: &str) -> Option<&Arc<Manifest>> {
        self.0.get(id)
    }

    /// All, ordered by id.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Manifest>> {
        self.0.values()
    }
}

#[derive(Default)]
struct Loading {
    drafts: BTreeMap<String, Draft>,
    mistakes: Vec<Mistake>,
}

impl Loading {
    fn take(&mut self, id: &str, file: &str, text: &str) {
        let (draft, mistakes) = Draft::read(id, file, text);
        self.mistakes.extend(mistakes);
        self.drafts.insert(id.to_owned(), draft);
    }

    fn directory(&mut self, directory: &Path) {
        let name = directory.display().to_string();
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(&name, &error),
        };
        let mut paths = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => paths.push(entry.path()),
                Err(error) => self.unreadable(&name, &error),
            }
        }
        paths.sort();
        for path in paths {
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                self.file(&path);
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let name = path.display().to_string();
        let id = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        let size = std::fs::metadata(path).map(|about| about.len());
        match size.and_then(|size| Ok((size, std::fs::read_to_string(path)?))) {
            Ok((size, _)) if size > MAX_FILE => self.mistakes.push(Mistake {
                file: name,
                line: 0,
                what: format!("{size} bytes, at most {MAX_FILE}"),
            }),
            Ok((_, text)) => self.take(&id.unwrap_or_default(), &name, &text),
            Err(error) => self.unreadable(&name, &error),
        }
    }

    fn unreadable(&mut self, file: &str, error: &std::io::Error) {
        self.mistakes.push(Mistake {
            file: file.to_owned(),
            line: 0,
            what: format!("cannot be read: {error}"),
        });
    }

    fn finish(mut self) -> Result<Catalogue, Vec<Mistake>> {
        let mut manifests = BTreeMap::new();
        for (id, draft) in &self.drafts {
            let base = draft.base().and_then(|base| self.drafts.get(base));
            match draft.finish(base) {
                Ok(manifest) => {
                    manifests.insert(id.clone(), Arc::new(manifest));
                }
                // A file whose webhook could not be read has told so already.
                Err(_) if self.mistakes.iter().any(|known| known.file == draft.file) => {}
                Err(mistakes) => self.mistakes.extend(mistakes),
            }
        }
        if self.mistakes.is_empty() {
            return Ok(Catalogue(manifests));
        }
        self.mistakes.sort();
        Err(self.mistakes)
    }
}
