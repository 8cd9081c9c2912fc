//! Reading the tables of a manifest, collecting every mistake with its line.
//!
//! A key that nobody asked for is a mistake. A reader never stops early: what cannot be read becomes
//! a mistake and a missing value, and the caller goes on.

use std::cell::RefCell;
use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::Mistake;

/// One file that is being read: its name, its text, and what was found wrong so far.
pub(super) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            mistakes: RefCell::default(),
        }
    }

    /// The root table, as far as the text is TOML.
    pub(super) fn root(&self) -> Spanned<DeTable<'a>> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            self.wrong(at, format!("not TOML: {}", error.message()));
        }
        root
    }

    /// The line of the byte `at`; the first is 1.
    pub(super) fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    /// Notes a mistake at the byte `at`.
    pub(super) fn wrong(&self, at: usize, what: impl Into<String>) {
        let line = self.line(at);
        self.mistakes.borrow_mut().push(Mistake {
            file: self.file.to_owned(),
            line,
            what: what.into(),
        });
    }

    /// What was found, in the order of the file.
    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort();
        mistakes.dedup();
        mistakes
    }
}

/// A value with the place it stands at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// A table that is being read; [`Table::finish`] refuses the keys that were not asked for.
pub(super) struct Table<'t, 'a> {
    source: &'t Source<'a>,
    table: &'t DeTable<'a>,
    /// Where the table begins.
    at: usize,
    path: String,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'t, 'a> Table<'t, 'a> {
    pub(super) fn root(source: &'t Source<'a>, table: &'t Spanned<DeTable<'a>>) -> Self {
        Self::new(source, table.get_ref(), 0, String::new())
    }

    fn new(source: &'t Source<'a>, table: &'t DeTable<'a>, at: usize, path: String) -> Self {
        Self {
            source,
            table,
            at,
            path,
            asked: RefCell::default(),
        }
    }

    /// Notes a mistake of the table as a whole.
    pub(super) fn wrong(&self, what: impl Into<String>) {
        self.source.wrong(self.at, self.named(&what.into()));
    }

    /// Notes a mistake at `at`.
    pub(super) fn wrong_at(&self, at: usize, what: impl Into<String>) {
        self.source.wrong(at, what);
    }

    /// Where the table begins, in bytes of the file.
    pub(super) const fn place(&self) -> usize {
        self.at
    }

    /// Whether the key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// A text.
    pub(super) fn text(&self, key: &'static str) -> Option<At<String>> {
        let value = self.value(key)?;
        let DeValue::String(text) = value.get_ref() else {
            return self.instead(key, value, "a string");
        };
        Some(At {
            value: text.to_string(),
            at: value.span().start,
        })
    }

    /// A text that must be there.
    pub(super) fn needed(&self, key: &'static str) -> Option<At<String>> {
        if !self.has(key) {
            self.asked.borrow_mut().insert(key);
            self.wrong(format!("{key} is missing"));
            return None;
        }
        self.text(key)
    }

    /// A text read by `parse`, whose error says what is wrong with it.
    pub(super) fn parsed<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.parse(key, self.text(key)?, parse)
    }

    /// The same for a text that must be there.
    pub(super) fn parsed_needed<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.parse(key, self.needed(key)?, parse)
    }

    fn parse<T>(
        &self,
        key: &str,
        text: At<String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let read = parse(&text.value);
        read.map_err(|why| self.source.wrong(text.at, self.key(key, &why)))
            .ok()
    }

    /// One of the listed words.
    pub(super) fn word<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        self.parsed(key, |text| one_of(text, words))
    }

    /// A whole number within `range`.
    pub(super) fn number(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<u32>,
    ) -> Option<u32> {
        let value = self.value(key)?;
        let read = match value.get_ref() {
            DeValue::Integer(number) => {
                u32::from_str_radix(number.as_str(), number.radix()).unwrap_or(u32::MAX)
            }
            DeValue::String(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => return self.instead(key, value, "a whole number"),
        };
        if range.contains(&read) {
            return Some(read);
        }
        let what = format!("want {} to {}", range.start(), range.end());
        self.source.wrong(value.span().start, self.key(key, &what));
        None
    }

    /// `true` or `false`; false if absent.
    pub(super) fn flag(&self, key: &'static str) -> bool {
        let Some(value) = self.value(key) else {
            return false;
        };
        if let DeValue::Boolean(flag) = value.get_ref() {
            return *flag;
        }
        self.instead::<bool>(key, value, "true or false");
        false
    }

    /// A list of texts; empty if absent.
    pub(super) fn texts(&self, key: &'static str) -> Vec<At<String>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let DeValue::Array(list) = value.get_ref() else {
            self.instead::<()>(key, value, "a list of strings");
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(list.len());
        for item in list.iter() {
            if let DeValue::String(text) = item.get_ref() {
                texts.push(At {
                    value: text.to_string(),
                    at: item.span().start,
                });
            } else {
                self.instead::<()>(key, item, "a list of strings");
            }
        }
        texts
    }

    /// A table of texts; empty if absent.
    pub(super) fn pairs(&self, key: &'static str) -> Vec<(String, At<String>)> {
        let Some(table) = self.table(key) else {
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, value) in table.table.iter() {
            if let DeValue::String(text) = value.get_ref() {
                let at = value.span().start;
                let value = text.to_string();
                pairs.push((name.get_ref().to_string(), At { value, at }));
            } else {
                self.instead::<()>(key, value, "a table of strings");
            }
        }
        pairs
    }

    /// A table within this one.
    pub(super) fn table(&self, key: &'static str) -> Option<Table<'t, 'a>> {
        let value = self.value(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            return self.instead(key, value, "a table");
        };
        Some(self.inner(key, table, value.span().start))
    }

    /// The tables of a list; empty if absent.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Table<'t, 'a>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let DeValue::Array(list) = value.get_ref() else {
            self.instead::<()>(key, value, "a list of tables");
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in list.iter() {
            if let DeValue::Table(table) = item.get_ref() {
                tables.push(self.inner(key, table, item.span().start));
            } else {
                self.instead::<()>(key, item, "a list of tables");
            }
        }
        tables
    }

    /// Any value under a key, by what it is allowed to be.
    pub(super) fn expect(&self, key: &'static str, kind: Kind) {
        let Some(value) = self.value(key) else {
            return;
        };
        if !kind.fits(value.get_ref()) {
            self.instead::<()>(key, value, kind.words());
        }
    }

    /// Refuses what was not asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for (name, _) in self.table.iter() {
            let key: &str = name.get_ref();
            if !asked.contains(key) {
                let near = closest(key, asked.iter().copied());
                let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
                let what = self.key(key, &format!("unknown key{hint}"));
                self.source.wrong(name.span().start, what);
            }
        }
    }

    fn value(&self, key: &'static str) -> Option<&'t Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().insert(key);
        self.table.get(key)
    }

    fn inner(&self, key: &str, table: &'t DeTable<'a>, at: usize) -> Table<'t, 'a> {
        let first = table.iter().map(|(name, _)| name.span().start).min();
        // A table that is spread over headers has no place of its own: its first key stands for it.
        let at = if at == 0 { first.unwrap_or(at) } else { at };
        Table::new(self.source, table, at, format!("{}{key}.", self.path))
    }

    fn instead<T>(&self, key: &str, value: &Spanned<DeValue<'_>>, want: &str) -> Option<T> {
        let what = self.key(key, &format!("want {want}"));
        self.source.wrong(value.span().start, what);
        None
    }

    fn key(&self, key: &str, what: &str) -> String {
        format!("{}{key}: {what}", self.path)
    }

    fn named(&self, what: &str) -> String {
        match self.path.strip_suffix('.') {
            Some(path) => format!("{path}: {what}"),
            None => what.to_owned(),
        }
    }
}

/// What a key of the parts that are checked and not yet used may hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A string.
    Text,
    /// A list of strings.
    Texts,
    /// A whole number.
    Number,
    /// A list of whole numbers.
    Numbers,
    /// A table of strings.
    Pairs,
    /// A table of lists of strings.
    Lists,
}

impl Kind {
    fn fits(self, value: &DeValue<'_>) -> bool {
        let text = |value: &DeValue<'_>| matches!(value, DeValue::String(_));
        let number = |value: &DeValue<'_>| matches!(value, DeValue::Integer(_));
        let texts = |value: &DeValue<'_>| match value {
            DeValue::Array(list) => list.iter().all(|item| text(item.get_ref())),
            _ => false,
        };
        match (self, value) {
            (Self::Text, value) => text(value),
            (Self::Number, value) => number(value),
            (Self::Texts, value) => texts(value),
            (Self::Numbers, DeValue::Array(list)) => list.iter().all(|item| number(item.get_ref())),
            (Self::Pairs, DeValue::Table(table)) => table.iter().all(|(_, v)| text(v.get_ref())),
            (Self::Lists, DeValue::Table(table)) => table.iter().all(|(_, v)| texts(v.get_ref())),
            (Self::Numbers | Self::Pairs | Self::Lists, _) => false,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Texts => "a list of strings",
            Self::Number => "a whole number",
            Self::Numbers => "a list of whole numbers",
            Self::Pairs => "a table of strings",
            Self::Lists => "a table of lists of strings",
        }
    }
}

/// Reads one of the listed words.
pub(super) fn one_of<T: Copy>(text: &str, words: &[(&'static str, T)]) -> Result<T, String> {
    let known = words.iter().find(|(word, _)| *word == text);
    known.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        format!("want one of {}", words.join(", "))
    })
}

/// The known name that shares the longest beginning, if it is long enough to be a slip.
fn closest<'k>(key: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let shared = |name: &str| {
        let pairs = name.bytes().zip(key.bytes());
        pairs.take_while(|(a, b)| a == b).count()
    };
    known
        .map(|name| (shared(name), name))
        .filter(|(shared, name)| *shared >= 3 && *shared * 2 >= name.len())
        .max()
        .map(|(_, name)| name)
}
