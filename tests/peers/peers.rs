//! MCP clients that others wrote, each with its own library, against the fixture of the conformance suites
//! (`examples/conformance`): what they need works, in the revisions with a handshake and in the one without.

mod fixture;
mod python_sdk;
mod rmcp_client;
mod rmcp_stories;

use std::time::Duration;

/// Bounds every wait for something that has to happen.
const DEADLINE: Duration = Duration::from_secs(20);

/// How a client opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Era {
    /// With `initialize`.
    Legacy,
    /// With `server/discover`, and everything in each request.
    Modern,
}
