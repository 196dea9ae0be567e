//! What several test targets share, and the tests of that: a check that accepts everything proves nothing.

mod mcp_schema;
mod odd_upstream;
mod run_order;
mod run_order_faults;
mod schema_examples;
mod schema_faults;
mod schema_recorder;
mod upstreams;
mod upstreams_start;
