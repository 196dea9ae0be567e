//! The pure protocol from outside: what fuzzers have found in it stays found.

mod corpus;
