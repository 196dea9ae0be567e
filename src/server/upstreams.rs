//! MCP servers of others, from settings.

use std::time::Duration;

use crate::config::{
    McpEra, McpHttpSettings, McpInstances, McpServerSettings, McpServerTransport, McpStart, McpStdioSettings,
};
use crate::mcp::upstream::{Command, Endpoint, Reach, Sharing, SpokenEra, UpstreamOptions};

/// What the settings of a server mean.
pub(super) fn options(settings: &McpServerSettings) -> UpstreamOptions {
    let given = &settings.options;
    let mut options = UpstreamOptions::new(match &settings.transport {
        McpServerTransport::Stdio(stdio) => Reach::Stdio(command(stdio)),
        McpServerTransport::Http(http) => Reach::Http(endpoint(http)),
    });
    options.era = match given.era {
        McpEra::Auto => SpokenEra::Auto,
        McpEra::Legacy => SpokenEra::Legacy,
        McpEra::Stateless => SpokenEra::Stateless,
    };
    options.sharing = match given.instances {
        McpInstances::Auto => Sharing::Auto,
        McpInstances::Shared => Sharing::Shared,
        McpInstances::Session => Sharing::Session,
    };
    let milliseconds = Duration::from_millis;
    let or_never = |ms: u64| (ms > 0).then(|| milliseconds(ms));
    options.instances_max = given.instances_max;
    options.starts_at_boot = given.start == McpStart::Boot;
    options.start_timeout = milliseconds(given.start_timeout_ms);
    options.call_timeout = milliseconds(given.call_timeout_ms);
    options.hang_timeout = or_never(given.hang_timeout_ms);
    options.idle_timeout = or_never(given.idle_timeout_ms);
    options.restart_delay_max = milliseconds(given.restart_delay_max_ms);
    options.message_bytes_max = given.message_bytes_max;
    options
}

fn command(settings: &McpStdioSettings) -> Command {
    let mut command = Command::new(&settings.command, &settings.args);
    let own = |name: &String| Some((name.clone(), std::env::var(name).ok()?));
    command.env = settings.pass_env.iter().filter_map(own).collect();
    command.env.extend(settings.env.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())));
    command.folder.clone_from(&settings.cwd);
    command
}

fn endpoint(settings: &McpHttpSettings) -> Endpoint {
    let mut endpoint = Endpoint::new(&settings.url);
    endpoint.headers = settings.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    endpoint.follow_redirects = settings.follow_redirects;
    endpoint.use_proxy = settings.use_proxy;
    endpoint
}
