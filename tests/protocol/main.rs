//! The pure protocol from outside: what fuzzers have found in it stays found; examples of workflows are such.

mod corpus;
mod queue;
mod recovery;
mod workflows;
