//! The examples' channels, as a user of the library would test them: with its test kit.
#![expect(clippy::disallowed_methods, reason = "the clock that is read is the paused one")]

mod chat;
mod conformance;
mod counter;
mod embed;
mod image;
mod prompts;
mod resources;
mod session;
mod tools;
