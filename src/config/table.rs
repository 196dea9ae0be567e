//! What a table of settings is made of: its rows, and the macro that writes structs and rows from one description.

use toml::Value;

use super::kind::{Kind, Raw};

pub(super) const HOUR_MS: u64 = 3_600_000;
pub(super) const GIB: u64 = 1 << 30;

/// One row of a table.
pub(super) struct Setting {
    /// The dotted key: `section.name`.
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    pub(super) fallback: Fallback,
    /// What it means, as the macro takes it from the comments.
    pub(super) raw_doc: &'static str,
}

/// What a setting is when no source gives it; values are written as in the environment.
#[derive(Clone, Copy)]
pub(super) enum Fallback {
    Unset,
    Is(&'static str),
    ByMode { development: &'static str, production: &'static str },
}

impl Setting {
    /// Returns what holds where no source gives anything; `None` where that is nothing.
    pub(super) fn default(&self, production: bool) -> Option<Value> {
        let text = match self.fallback {
            Fallback::Unset => return None,
            Fallback::Is(text) => text,
            Fallback::ByMode { production: text, .. } if production => text,
            Fallback::ByMode { development: text, .. } => text,
        };
        Some(self.kind.read(Raw::Text(text)).expect("a test reads every default"))
    }

    pub(super) fn section(&self) -> &'static str {
        self.key.split_once('.').expect("the macro writes section.name").0
    }

    pub(super) fn name(&self) -> &'static str {
        self.key.split_once('.').expect("the macro writes section.name").1
    }

    /// Returns the environment variable: `server.listen` is `BENNU_SERVER_LISTEN`.
    pub(super) fn variable(&self) -> String {
        format!("BENNU_{}", self.key.replace('.', "_").to_ascii_uppercase())
    }

    /// Returns the flag without its dashes: `server.log_format` is `server-log-format`.
    pub(super) fn flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }

    pub(super) fn doc(&self) -> &'static str {
        self.raw_doc.trim()
    }
}

pub(super) const fn milliseconds(min: u64, max: u64) -> Kind {
    Kind::Count { unit: "milliseconds", min, max }
}

pub(super) const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Count { unit: "bytes", min, max }
}

pub(super) const fn count(unit: &'static str, min: u64, max: u64) -> Kind {
    Kind::Count { unit, min, max }
}

/// Writes each section's struct and its rows from one description, so that they can't differ.
///
/// The two names are those of the lists it makes: of the sections, and of all rows. An attribute is for the first.
macro_rules! table {
    ($(#[$attribute:meta])? $SECTIONS:ident, $TABLE:ident: $(
        #[doc = $section_doc:literal]
        $section:ident: $Section:ident {
            $( $(#[doc = $doc:literal])+ $name:ident: $type:ty = $fallback:expr, $kind:expr; )+
        }
    )+) => {
        $(
            #[doc = $section_doc]
            #[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $Section {
                $( $(#[doc = $doc])+ pub $name: $type, )+
            }
        )+

        /// The sections in their order, each with its first sentence.
        $(#[$attribute])?
        pub(in crate::config) const $SECTIONS: &[(&str, &str)] = &[$( (stringify!($section), $section_doc), )+];

        /// Every setting, section by section.
        pub(in crate::config) const $TABLE: &[crate::config::table::Setting] = &[$($(
            crate::config::table::Setting {
                key: concat!(stringify!($section), ".", stringify!($name)),
                kind: $kind,
                fallback: $fallback,
                raw_doc: concat!($($doc),+),
            },
        )+)+];
    };
}

pub(super) use table;
