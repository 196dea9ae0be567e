//! The log and the calls, case by case.

mod calls;
mod keeping;
mod stored;
