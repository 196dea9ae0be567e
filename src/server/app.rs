//! Bennu itself: its settings become its sockets.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use super::{
    DrainOptions, McpHttpOptions, Server, ServerOptions, admin, admin_mcp, admin_queues, admin_store, history, pages,
    queues, security, upstreams,
};
use crate::channel::{Compression, Endpoint, LongPollOptions, SocketOptions};
use crate::config::{AuthMethod, CheckOrigin, LOCAL_HOSTS, LogFormat, McpCompat, Mode, SessionDurability, Settings};
use crate::mcp::auth::Development;
use crate::mcp::deployment::Deployment;
use crate::mcp::{Mcp, McpServer, TemplateToolOptions, TemplateTools, tools, workflow_tools};
use crate::protocol::jsonrpc::Compat;
use crate::protocol::origin::{OriginPolicy, OriginRule};
use crate::security::Security;
use crate::transport::accept::HttpOptions;
use crate::transport::{AdmissionLimits, Secret, TlsOptions};

/// Descriptors that the process needs for itself.
const DESCRIPTORS_RESERVED: usize = 64;

/// How long threads may take to end when everything else has.
const RUNTIME_END: Duration = Duration::from_secs(2);

/// What the development setting means.
const DEVELOPMENT_NOTICE: &str = "  \
  DEVELOPMENT SETTING: there is no authentication. Everyone on this machine is the user `dev`;
  only loopback is listened on, and pages of other sites are refused. For anything else set
  server.mode = \"production\" (see `bennu check`).

";

/// How long the programs of MCP servers of others may take to end; what is left is killed with this one.
const UPSTREAMS_END: Duration = Duration::from_secs(5);

/// How long tools may take to heed their cancellation at the end.
const RUNS_END: Duration = Duration::from_secs(2);

/// How long the store may take to write what it was given and to close its file.
const STORE_END: Duration = Duration::from_secs(5);

/// Runs the server until it is told to stop.
///
/// # Errors
/// The address can't be listened on, or the runtime can't be started.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    // An authenticator of a program's own is that program's; settings that ask for one must not become an open server here.
    anyhow::ensure!(
        settings.auth.method != AuthMethod::Module,
        "auth.method = \"module\" needs an authenticator, and this program brings none"
    );
    start_log(&settings)?;
    let runtime = super::runtime(settings.server.workers).context("starting the runtime")?;
    let served = runtime.block_on(serve(settings));
    // A tool that computes can't be stopped: the process does not wait for it.
    runtime.shutdown_timeout(RUNTIME_END);
    served
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let development = settings.server.mode == Mode::Development;
    let is_open = settings.auth.method == AuthMethod::None;
    anyhow::ensure!(development || !is_open, "production needs authentication");
    let listen = settings.server.listen;
    let options = server_options(&settings)?;
    let tls = options.tls.is_some();
    let socket_path = settings.socket.path.clone();
    let socket_options = socket_options(&settings)?;
    let endpoint = Endpoint::start();
    let deployment = match &settings.store.path {
        None => Deployment::in_memory(),
        Some(path) => Deployment::open(path).await?,
    };
    history::keep(&endpoint, &settings);
    history::restore(&endpoint, deployment.store()).await.context("reading what topics kept from the store")?;
    endpoint.use_queues(queues::open(&deployment, &settings).await.context("reading queues from the store")?);
    let security = Security::start(&endpoint, &deployment, security::options(&settings)?).await?;
    let mcp = mcp(&settings, &endpoint, &deployment, (!is_open).then_some(&security))?;
    mcp.boot();
    mcp.resume().await.context("reading MCP sessions and workflows from the store")?;
    let socket = endpoint.socket(&socket_path).options(|settings| *settings = socket_options);
    // The routes of MCP come first: no pattern of topics takes one of them.
    let socket = security.queues(mcp.routes(socket), &queues::topics(&settings));
    let socket = security.socket(socket, &settings.topics.patterns);
    let mut server = Server::new(&endpoint)
        .socket(socket)
        .routes(admin_queues::admin_queues(Arc::clone(&security), endpoint.queues().clone()))
        .routes(admin_mcp::admin_mcp(Arc::clone(&security), Arc::clone(&mcp)))
        .routes(admin_store::admin_store(Arc::clone(&security), deployment.store().clone()))
        .routes(admin::admin(Arc::clone(&security)));
    if settings.mcp.http {
        server = server.mcp(&mcp);
    }
    let running = server
        .routes(pages::assets(&socket_path, !is_open))
        .options(|settings| *settings = options)
        .start()
        .with_context(|| format!("listening on {listen}"))?;

    let address = running.address();
    announce(address, tls, &socket_path, is_open);
    running.until_signalled().await;
    if tokio::time::timeout(RUNS_END, mcp.drain()).await.is_err() {
        tracing::warn!("tools that did not heed their cancellation were cut off");
    }
    if tokio::time::timeout(UPSTREAMS_END, mcp.stop_upstreams()).await.is_err() {
        tracing::warn!("MCP servers of others that did not end were left to be killed");
    }
    if tokio::time::timeout(STORE_END, security.close()).await.is_err() {
        tracing::warn!("the audit log was not written out in time");
    }
    if tokio::time::timeout(STORE_END, endpoint.queues().flush()).await.is_err() {
        tracing::warn!("what queues had decided last was not stored in time: some messages will come again");
    }
    match tokio::time::timeout(STORE_END, history::store(&endpoint, deployment.store())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "what topics keep was not stored: clients will be told of a gap"),
        Err(_) => tracing::warn!("what topics keep was not stored in time: clients will be told of a gap"),
    }
    if tokio::time::timeout(STORE_END, deployment.close()).await.is_err() {
        tracing::warn!("the store was not closed in time; it will be checked when it is opened again");
    }
    Ok(())
}

/// Says on standard output where it listens and what to open. Whoever reads that may have gone.
fn announce(address: SocketAddr, tls: bool, socket_path: &str, is_open: bool) {
    let secure = if tls { "s" } else { "" };
    let mut text = format!(
        "listening on {address}\n\n  open     http{secure}://{address}/\n  socket   ws{secure}://{address}{socket_path}/websocket\n\n"
    );
    if is_open {
        text.push_str(DEVELOPMENT_NOTICE);
        tracing::warn!("development setting: no authentication, loopback only");
    }
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The built-in server, which the page at `/` shows, and those of others that the settings name.
fn mcp(
    settings: &Settings,
    endpoint: &Endpoint,
    deployment: &Deployment,
    security: Option<&Arc<Security>>,
) -> anyhow::Result<Arc<Mcp>> {
    let mcp = &settings.mcp;
    let server = McpServer::builder("bennu").display_name("Bennu").tools(tools::builtin(mcp.search_root.clone()));
    let server = deployment.add_to(server).tools(workflow_tools());
    let server = server.tools(TemplateTools::new(deployment, template_tool_options(settings))).build()?;
    let builder = match security {
        Some(security) => Mcp::builder(endpoint, security.mcp()),
        None => Mcp::builder(endpoint, Development),
    };
    let mut builder = builder.deployment(deployment).server(server).settings(|chosen| {
        chosen.heartbeat_timeout_ms = mcp.heartbeat_timeout_ms;
        chosen.recovery_window_ms = mcp.recovery_window_ms;
        chosen.stores_sessions = mcp.session_durability == SessionDurability::Durable;
        chosen.calls_per_session_max = mcp.tool_calls_per_session_max;
        chosen.runs_max = mcp.runs_max;
        chosen.run_events_max = mcp.run_events_max;
        chosen.run_bytes_max = mcp.run_bytes_max;
        chosen.run_retention_ms = mcp.run_retention_ms;
        chosen.compat = match mcp.compat {
            McpCompat::Standard => Compat::Standard,
            McpCompat::Elixir => Compat::Elixir,
        };
    });
    for upstream in &settings.mcp_servers {
        builder = builder.server(McpServer::upstream(&upstream.name, upstreams::options(upstream))?);
    }
    if let Some(secret) = &settings.server.secret_key_base {
        builder = builder.secret(secret.expose().as_bytes());
    }
    Ok(builder.build()?)
}

fn template_tool_options(settings: &Settings) -> TemplateToolOptions {
    let options = TemplateToolOptions::default();
    match &settings.mcp.api_hosts {
        Some(hosts) => options.api_hosts(hosts),
        // Whoever may call has the whole machine already.
        None if settings.server.mode == Mode::Development => options.api_hosts(LOCAL_HOSTS),
        None => options,
    }
}

/// Which pages may come in.
fn origin_policy(settings: &Settings, checked: &CheckOrigin) -> anyhow::Result<OriginPolicy> {
    Ok(match checked {
        CheckOrigin::Host => OriginPolicy::Host(settings.server.host.clone()),
        CheckOrigin::Off => OriginPolicy::Off,
        CheckOrigin::Conn => OriginPolicy::Conn,
        CheckOrigin::Origins(origins) => {
            OriginPolicy::List(origins.iter().map(|origin| OriginRule::parse(origin)).collect::<Result<_, _>>()?)
        }
    })
}

/// MCP over HTTP: in production by the server's own name, and for the pages that its sockets are for.
fn mcp_http_options(settings: &Settings) -> anyhow::Result<McpHttpOptions> {
    let mut options = McpHttpOptions::default();
    if settings.server.mode == Mode::Production {
        options.hosts = vec![settings.server.host.clone()];
        options.origins = origin_policy(settings, &settings.socket.check_origin)?;
    }
    options.resource = security::resource(settings)?.map(Arc::new);
    if let Some(hosts) = &settings.mcp.hosts {
        options.hosts.clone_from(hosts);
    }
    Ok(options)
}

fn socket_options(settings: &Settings) -> anyhow::Result<SocketOptions> {
    let (socket, longpoll) = (&settings.socket, &settings.longpoll);
    let check_origin = match &socket.check_origin {
        // The development setting lets in local pages alone, whatever the socket would allow.
        _ if settings.server.mode == Mode::Development => OriginPolicy::Off,
        checked => origin_policy(settings, checked)?,
    };
    Ok(SocketOptions {
        idle_timeout_ms: socket.idle_timeout_ms,
        channels_max: socket.channels_per_socket_max,
        frame_bytes_max: socket.frame_bytes_max,
        message_bytes_max: socket.message_bytes_max,
        outbox_bytes_max: socket.outbox_bytes_max,
        inbox_messages_max: socket.inbox_messages_max,
        websocket: true,
        longpoll: socket.longpoll.then_some(LongPollOptions {
            window_ms: longpoll.window_ms,
            batch_messages_max: longpoll.batch_messages_max,
            body_bytes_max: longpoll.body_bytes_max,
            buffer_bytes_max: longpoll.buffer_bytes_max,
        }),
        check_origin,
        auth_token: socket.auth_token,
        subprotocols: Vec::new(),
        compression: if socket.compress { Compression::On } else { Compression::Off },
    })
}

fn server_options(settings: &Settings) -> anyhow::Result<ServerOptions> {
    let server = &settings.server;
    Ok(ServerOptions {
        listen: server.listen,
        tls: tls_options(settings),
        http: HttpOptions {
            handshake_timeout_ms: server.handshake_timeout_ms,
            header_bytes_max: server.header_bytes_max,
            write_timeout_ms: server.write_timeout_ms,
        },
        admission: AdmissionLimits {
            connections_max: connections_max(server.connections_max),
            connections_per_ip_max: server.connections_per_ip_max,
        },
        secret: server.secret_key_base.as_ref().map(|secret| Secret::derive(secret.expose().as_bytes())),
        longpoll_sessions_max: settings.longpoll.sessions_max,
        longpoll_body_timeout_ms: settings.longpoll.body_timeout_ms,
        mcp: mcp_http_options(settings)?,
        local_only: server.mode == Mode::Development,
        drain: DrainOptions {
            delay_ms: server.shutdown_delay_ms,
            total_ms: server.shutdown_drain_ms,
            batch_connections: server.shutdown_batch_connections,
            batch_interval_ms: server.shutdown_batch_interval_ms,
            ..DrainOptions::default()
        },
    })
}

/// Both files or none, which the settings' rules hold.
fn tls_options(settings: &Settings) -> Option<TlsOptions> {
    let (certificates, key) = settings.tls.certificate_file.clone().zip(settings.tls.key_file.clone())?;
    Some(TlsOptions::new(certificates, key))
}

/// The setting, or what the limit on open files leaves of it.
fn connections_max(wanted: usize) -> usize {
    let Some(files) = open_files_max() else { return wanted };
    let possible = files.saturating_sub(DESCRIPTORS_RESERVED).max(1);
    if possible < wanted {
        tracing::warn!(wanted, possible, "server.connections_max is lowered to what the limit on open files leaves");
    }
    wanted.min(possible)
}

/// The soft limit on open files. Source: proc(5), `/proc/self/limits`.
fn open_files_max() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

fn start_log(settings: &Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.server.log).context("server.log")?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match settings.server.log_format {
        LogFormat::Pretty => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("starting the log: {error}"))
}
