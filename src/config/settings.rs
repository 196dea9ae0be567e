//! The one table of all settings: name, type, default, range and meaning.
//!
//! From it come the structs that the server reads, the names of flags and environment variables, the check, and
//! docs/settings.md with bennu.example.toml (a test compares both).

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::kind::Kind;
use super::mcp_servers::McpServerSettings;
use super::table::Fallback::{ByMode, Is, Unset};
use super::table::{GIB, HOUR_MS, Setting, bytes, count, milliseconds, table};

/// The shortest `server.secret_key_base`, in bytes. Source: Plug, which refuses less than 64.
pub const SECRET_BYTES_MIN: usize = 64;

/// The names by which the development setting may be reached, in `Host` and `Origin`, whatever the port.
pub const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Kinds of credentials.
pub(super) const CREDENTIALS: &[&str] = &["phoenix_token", "jwt", "api_key", "session_token"];

/// Algorithms of JSON web tokens.
const JWT_ALGORITHMS: &[&str] =
    &["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// Writes the struct of all sections, and their table.
macro_rules! settings {
    ($( #[doc = $doc:literal] $section:ident: $Section:ident { $($rows:tt)+ } )+) => {
        /// Every setting, checked, with defaults in the place of what was not given.
        ///
        /// Plain data for the program to hand to the parts that read it. `Debug` shows no secret.
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Settings {
            $( #[doc = $doc] pub $section: $Section, )+
            /// The other MCP servers that this one stands before, in the file's order.
            #[serde(skip)]
            pub mcp_servers: Vec<McpServerSettings>,
            /// The roles that the file gives, each with its capabilities; they stand in the place of those built in that have
            /// their name.
            #[serde(skip)]
            pub roles: Vec<(String, Vec<String>)>,
        }

        table! { SECTIONS, TABLE: $( #[doc = $doc] $section: $Section { $($rows)+ } )+ }
    };
}

impl Setting {
    /// Finds the row of a dotted key.
    pub(super) fn find(key: &str) -> Option<&'static Setting> {
        TABLE.iter().find(|setting| setting.key == key)
    }
}

settings! {
    /// What listens, who may connect and how it stops.
    server: Server {
        /// Whether this is a developer's machine (local, without authentication) or a server that others reach.
        mode: Mode = Is("development"), Kind::Choice(&["development", "production"]);
        /// The address and port to listen on; port 0 takes a free one.
        /// In development the address has to be a loopback address.
        listen: SocketAddr = Is("127.0.0.1:4000"), Kind::Address;
        /// The host that browsers know this server by; `socket.check_origin = "host"` compares with it.
        /// In development it has to be a local name.
        host: String = Is("localhost"), Kind::Host;
        /// The secret that tokens are signed with. Production needs it or its file.
        /// As a flag it shows in the list of processes: prefer the file.
        secret_key_base: Option<Secret> = Unset, Kind::Secret { bytes_min: SECRET_BYTES_MIN };
        /// The file that holds the secret, for instance one that the orchestrator mounts; line ends at its end are dropped.
        /// Of it and `secret_key_base`, the one from the stronger source counts.
        secret_key_base_file: Option<PathBuf> = Unset, Kind::File;
        /// Threads that serve connections; 0 is one for each core.
        workers: usize = Is("0"), count("threads", 0, 1024);
        /// Connections in all; further ones are refused. At start it is lowered to what the limit of open files leaves.
        connections_max: usize = Is("100_000"), count("connections", 1, 10_000_000);
        /// Connections from one IP address, and long-poll sessions from one; 0 is no limit.
        /// Behind a proxy all clients share the proxy's address: set 0 there, and limit at the proxy.
        connections_per_ip_max: usize = ByMode { development: "0", production: "1000" },
            count("connections", 0, 10_000_000);
        /// The time from accepting a connection to its last request header or its upgrade. With TLS, the time for the handshake
        /// alone, and then as much again for the header.
        handshake_timeout_ms: u64 = Is("10_000"), milliseconds(10, HOUR_MS);
        /// The request line and headers together.
        header_bytes_max: usize = Is("16_384"), bytes(8_192, 1 << 20);
        /// The time that a client may leave what was sent to it unacknowledged, or take nothing at all; then its connection is cut,
        /// a WebSocket too.
        write_timeout_ms: u64 = Is("30_000"), milliseconds(100, HOUR_MS);
        /// The time between `/readyz` turning to 503 and the first socket being closed, for balancers to notice.
        shutdown_delay_ms: u64 = ByMode { development: "0", production: "5_000" }, milliseconds(0, HOUR_MS);
        /// The time that closing the sockets may take in all; those still open afterwards are closed at once, and cut a second later.
        shutdown_drain_ms: u64 = Is("30_000"), milliseconds(0, HOUR_MS);
        /// Connections that a shutdown closes at a time, so that their clients don't all come back in one moment.
        shutdown_batch_connections: usize = Is("10_000"), count("connections", 1, 10_000_000);
        /// The pause between two such batches.
        shutdown_batch_interval_ms: u64 = Is("2_000"), milliseconds(0, HOUR_MS);
        /// How much is logged, in all or for a part of the program.
        log: String = Is("info"), Kind::LogLevels;
        /// How a log line looks: for people, or one JSON object a line.
        log_format: LogFormat = Is("pretty"), Kind::Choice(&["pretty", "json"]);
    }

    /// TLS of the server's own listener: both files, or neither for plain HTTP, as behind a proxy that adds TLS.
    tls: Tls {
        /// The PEM file with the server's certificate and then those that lead to a root.
        /// It is read again, with the key, at SIGHUP and some seconds after either has changed; connections that are open stay.
        certificate_file: Option<PathBuf> = Unset, Kind::File;
        /// The PEM file with the certificate's private key (PKCS#8, SEC1 or PKCS#1), without a passphrase.
        key_file: Option<PathBuf> = Unset, Kind::File;
    }

    /// Who may come in.
    auth: Auth {
        /// How clients authenticate: not at all (development only), by what this section and the next ones say, or by the module
        /// that the program embedding this server brings along.
        method: AuthMethod = ByMode { development: "none", production: "builtin" },
            Kind::Choice(&["none", "builtin", "module"]);
        /// What a socket takes as `token`, `api_key` or `authToken`: the first kind that a credential is of decides.
        socket: Vec<String> = Is("phoenix_token,jwt,api_key"), Kind::List(&Kind::Choice(CREDENTIALS));
        /// What an MCP topic takes as `token` or `apiKey`, and MCP over HTTP as its bearer token.
        mcp: Vec<String> = Is("phoenix_token,jwt,api_key,session_token"), Kind::List(&Kind::Choice(CREDENTIALS));
        /// What single MCP topics take instead, `mcp:server:NAME` meaning that server over HTTP too: `mcp:server:files=jwt+api_key`,
        /// or `mcp:server:*=jwt`. The first that fits counts.
        mcp_topics: Vec<String> = Is(""), Kind::List(&Kind::TopicCredentials);
        /// Whether a join of another MCP topic than `mcp:session` that brings no credential is its socket's user.
        socket_user: bool = Is("true"), Kind::Switch;
        /// The role of whoever has none that `[roles]` knows.
        default_role: String = Is("user"), Kind::Text;
        /// Whether the API key `test_key` is the user `mcp_user_test` of the role `api_user`; development only.
        test_key: bool = Is("false"), Kind::Switch;
        /// The salt of the Phoenix tokens of sockets, whose data is the user's id.
        user_salt: String = Is("user socket"), Kind::Text;
        /// The salt of the Phoenix tokens of MCP topics, whose data is a map with `user_id`.
        mcp_salt: String = Is("mcp_auth"), Kind::Text;
        /// The salt of encrypted Phoenix tokens, with the same data as either; without it none is taken.
        encryption_salt: Option<String> = Unset, Kind::Text;
        /// How old a Phoenix token may be, in seconds.
        token_max_age_s: u64 = Is("86_400"), count("seconds", 1, 10 * 365 * 86_400);
        /// The rounds by which the keys of Phoenix tokens are derived from `server.secret_key_base`.
        key_iterations: u32 = Is("1000"), count("rounds", 1, 1_000_000);
        /// Bytes of such a key.
        key_bytes: usize = Is("32"), bytes(1, 1_024);
        /// The digest by which it is derived.
        key_digest: String = Is("sha256"), Kind::Choice(&["sha256", "sha384", "sha512"]);
        /// MCP sessions that a user may have at once; 0 is no limit.
        sessions_per_user_max: usize = ByMode { development: "0", production: "5" }, count("sessions", 0, 1_000_000);
        /// How long a session token holds.
        session_timeout_ms: u64 = Is("3_600_000"), milliseconds(1_000, 30 * 24 * HOUR_MS);
        /// How long before its end a session token may be made anew.
        session_refresh_window_ms: u64 = Is("300_000"), milliseconds(1_000, 30 * 24 * HOUR_MS);
    }

    /// JSON web tokens. They are taken where a key is given here.
    jwt: Jwt {
        /// The algorithms that are accepted, each only with keys of its own kind.
        algorithms: Vec<String> = Is("RS256,ES256,EdDSA"), Kind::List(&Kind::Choice(JWT_ALGORITHMS));
        /// The secret of HS256, HS384 and HS512.
        secret: Option<Secret> = Unset, Kind::Secret { bytes_min: 32 };
        /// A file with public keys: PEM, or a JWK set as JSON.
        key_file: Option<PathBuf> = Unset, Kind::File;
        /// Where a JWK set is fetched; of https, or on this machine.
        jwks_url: Option<String> = Unset, Kind::Url;
        /// How old what was fetched may be before it is fetched again. An unknown key is looked for at once.
        jwks_refresh_ms: u64 = Is("600_000"), milliseconds(1_000, 30 * 24 * HOUR_MS);
        /// Issuers that are accepted; without them any.
        issuers: Vec<String> = Is(""), Kind::List(&Kind::Text);
        /// Audiences of which a token has to name one; without them any.
        audiences: Vec<String> = Is(""), Kind::List(&Kind::Text);
        /// By how much the clocks may differ.
        leeway_s: u64 = Is("30"), count("seconds", 0, 3_600);
        /// The claim that is the user's id.
        user_claim: String = Is("sub"), Kind::Text;
        /// Whether of a user such as `user?id=7`, as the Elixir deployment has them, `7` is the id.
        user_after_id: bool = Is("true"), Kind::Switch;
        /// The claim that lists roles; dots lead into objects.
        roles_claim: String = Is("roles"), Kind::Text;
        /// The claim that lists capabilities, or has them in one text separated by spaces.
        capabilities_claim: String = Is("scope"), Kind::Text;
    }

    /// MCP as a protected resource of OAuth (RFC 9728): `/.well-known/oauth-protected-resource` says where tokens are made.
    oauth: Oauth {
        /// The URL by which clients know this server's MCP path. A token has to name it as its audience, unless `jwt.audiences` says more.
        resource: Option<String> = Unset, Kind::Url;
        /// The issuers of tokens, whose metadata clients read.
        authorization_servers: Vec<String> = Is(""), Kind::List(&Kind::Url);
        /// Scopes that clients may ask for.
        scopes: Vec<String> = Is(""), Kind::List(&Kind::Text);
    }

    /// Topics for dashboards and other clients, without code: who may join hears what others send there.
    topics: Topics {
        /// Exact topics, and patterns such as `room:*`. What a client may do there say the capabilities `topics:join:<topic>`,
        /// `topics:broadcast:<topic>` and `topics:presence:<topic>`.
        patterns: Vec<String> = Is(""), Kind::List(&Kind::Topic);
    }

    /// What topics keep, for clients that come back and ask for what they missed. None keeps anything unless it is named here.
    history: History {
        /// Topics, or patterns of them, that keep what is broadcast on them. A client that resumes one and reads too slowly gets
        /// what it misses once it has room, or is told that it has missed something.
        topics: Vec<String> = Is(""), Kind::List(&Kind::Topic);
        /// Such as above, but of what waits for a slow client only the latest of each event, and of each value of `latest_key`, is
        /// left. What stands in an earlier list counts.
        latest: Vec<String> = Is(""), Kind::List(&Kind::Topic);
        /// The field of a payload whose values have each a latest, such as `symbol`.
        latest_key: Option<String> = Unset, Kind::Text;
        /// Such as above, but the connection of a slow client is closed.
        disconnect: Vec<String> = Is(""), Kind::List(&Kind::Topic);
        /// Whether what topics keep is in memory alone, or is stored when the server stops in order (with `store.path`), so that
        /// clients resume behind a restart what they missed. After a crash they are told of a gap in either case.
        durability: HistoryDurability = Is("memory"), Kind::Choice(&["memory", "restart"]);
        /// Broadcasts that one topic keeps; as with the other bounds, the oldest go.
        messages_max: usize = Is("1_000"), count("messages", 1, 100_000);
        /// Bytes of one topic's broadcasts, with 128 bytes for each, its topic and its event. One that is larger by itself is given
        /// to those who are there, and leaves the topic with nothing.
        bytes_max: usize = Is("1_048_576"), bytes(1_024, GIB);
        /// How long a broadcast is kept, and a topic that nobody reads or publishes on.
        age_ms: u64 = Is("300_000"), milliseconds(100, 24 * HOUR_MS);
        /// Topics that keep something at once; further ones do not.
        topics_max: usize = Is("100_000"), count("topics", 1, 10_000_000);
        /// Bytes of all topics' broadcasts together; beyond it the topic that is published on keeps less.
        total_bytes_max: usize = Is("268_435_456"), bytes(1_024, 100 * GIB);
    }

    /// Queues: messages that must arrive. Each queue is a topic of its name.
    queues: Queues {
        /// Queues, or patterns of them, whose messages are in the store's file, synced, before a producer is answered. `session:*`
        /// are those of MCP sessions. Without `store.path` they are kept in memory, and answers say so.
        durable: Vec<String> = Is("inbox:*,queue:*,session:*"), Kind::List(&Kind::Topic);
        /// Queues whose messages end with the process. What stands in an earlier list counts.
        memory: Vec<String> = Is(""), Kind::List(&Kind::Topic);
        /// Queues that keep nothing: a message goes to a consumer that is there, once, or is refused.
        ephemeral: Vec<String> = Is(""), Kind::List(&Kind::Topic);
        /// How long a message waits for its acknowledgement before it expires, where it says nothing itself.
        ttl_ms: u64 = Is("300_000"), milliseconds(1, 30 * 24 * HOUR_MS);
        /// Failures after which a message is tried again, where it says nothing itself; with one more it is a dead letter.
        retries_max: u32 = Is("3"), count("retries", 0, 100);
        /// How long a consumer has a message before that counts as a failure.
        lease_ms: u64 = Is("30_000"), milliseconds(10, 24 * HOUR_MS);
        /// Deliveries of one message after which it is a dead letter, though nobody said that it failed.
        deliveries_max: u32 = Is("100"), count("deliveries", 1, 1_000_000);
        /// The wait before the second try; it doubles with each further one. Up to half of it is left to chance.
        backoff_base_ms: u64 = Is("1_000"), milliseconds(1, 24 * HOUR_MS);
        /// The longest wait before a try.
        backoff_max_ms: u64 = Is("60_000"), milliseconds(1, 24 * HOUR_MS);
        /// Messages that one consumer may have without having acknowledged them.
        in_flight_max: usize = Is("100"), count("messages", 1, 10_000);
        /// Messages of one queue; producers are refused beyond them.
        messages_max: usize = Is("10_000"), count("messages", 1, 10_000_000);
        /// Bytes of one queue's messages.
        bytes_max: usize = Is("16_777_216"), bytes(1_024, GIB);
        /// Bytes of all queues' messages and dead letters, which are in memory whatever their class.
        total_bytes_max: usize = Is("268_435_456"), bytes(1_024, 100 * GIB);
        /// Queues at once; one that has been empty and without a consumer for a while is none.
        queues_max: usize = Is("100_000"), count("queues", 1, 10_000_000);
        /// Dead letters of one queue; the oldest go first.
        dead_letters_max: usize = Is("1_000"), count("dead letters", 0, 1_000_000);
        /// How long a dead letter is kept.
        dead_letter_ttl_ms: u64 = Is("3_600_000"), milliseconds(1, 365 * 24 * HOUR_MS);
        /// How long an idempotency key is remembered.
        dedup_window_ms: u64 = Is("300_000"), milliseconds(1, 30 * 24 * HOUR_MS);
        /// Idempotency keys of one queue that are remembered; producers of new ones are refused beyond them.
        dedup_keys_max: usize = Is("10_000"), count("keys", 1, 10_000_000);
    }

    /// How often a user may ask, in tokens of a bucket; on MCP requests.
    limits: Limits {
        /// Whether requests are counted at all.
        enabled: bool = ByMode { development: "false", production: "true" }, Kind::Switch;
        /// Tokens of one user, and of one user and method.
        user_tokens: u64 = Is("100"), count("tokens", 1, 1_000_000_000);
        /// Tokens that come back in a minute.
        user_refill_per_minute: u64 = Is("60"), count("tokens", 1, 1_000_000_000);
        /// Tokens on top of that, for bursts.
        user_burst: u64 = Is("20"), count("tokens", 0, 1_000_000_000);
        /// Tokens of all users together.
        global_tokens: u64 = Is("10_000"), count("tokens", 1, 1_000_000_000);
        /// Tokens that come back in a minute.
        global_refill_per_minute: u64 = Is("600_000"), count("tokens", 1, 1_000_000_000);
        /// Tokens on top of that, for bursts.
        global_burst: u64 = Is("1000"), count("tokens", 0, 1_000_000_000);
        /// Roles whose users have five times the tokens of others.
        high_roles: Vec<String> = Is("power_user"), Kind::List(&Kind::Text);
        /// Roles whose users have ten times the tokens of others.
        critical_roles: Vec<String> = Is("admin"), Kind::List(&Kind::Text);
        /// Costs of methods in tokens, where they are others than those of the Elixir deployment: `tools/call=5`.
        costs: Vec<String> = Is(""), Kind::List(&Kind::Cost);
    }

    /// From which addresses clients may come.
    access: Access {
        /// Addresses that may connect: `10.0.0.7`, `10.0.0.0/8`, `10.0.*.*`, `2001:db8::/32`; where it is empty, all.
        allow: Vec<String> = Is(""), Kind::List(&Kind::IpPattern);
        /// Addresses that may not, whatever `allow` says.
        deny: Vec<String> = Is(""), Kind::List(&Kind::IpPattern);
        /// Proxies whose `X-Forwarded-For` is believed.
        trusted_proxies: Vec<String> = Is(""), Kind::List(&Kind::IpPattern);
        /// Sockets that one address may try to open in a minute; 0 is no limit.
        attempts_per_minute: u32 = ByMode { development: "0", production: "600" }, count("attempts", 0, 1_000_000);
        /// Different wrong credentials from one address within five minutes, at any door, after which it is locked out; 0 is no limit.
        failures_max: u32 = ByMode { development: "0", production: "20" }, count("attempts", 0, 1_000_000);
        /// For how long it is locked out.
        lockout_ms: u64 = Is("300_000"), milliseconds(1_000, 24 * HOUR_MS);
    }

    /// What is written down of who did what.
    audit: Audit {
        /// Whether it is.
        enabled: bool = ByMode { development: "false", production: "true" }, Kind::Switch;
        /// The folder of the files, a day each, one JSON object a line; it is made where there is none. Without it the last entries are kept in memory.
        folder: Option<PathBuf> = Unset, Kind::File;
        /// The size at which a file is put aside and the next begun.
        file_bytes_max: u64 = Is("100_000_000"), bytes(4_096, 100 * GIB);
        /// For how many days files are kept.
        retention_days: u32 = Is("90"), count("days", 1, 36_500);
    }

    /// Phoenix sockets: limits of one client's connection.
    socket: Socket {
        /// Where the socket is mounted: WebSocket is below it at `/websocket`, long poll at `/longpoll`.
        path: String = Is("/socket"), Kind::Route;
        /// The time without any frame from the client after which its connection is closed.
        idle_timeout_ms: u64 = Is("60_000"), milliseconds(100, 24 * HOUR_MS);
        /// Channels joined on one socket; further joins are refused.
        channels_per_socket_max: usize = Is("100"), count("channels", 1, 1_000_000);
        /// One WebSocket frame from the client.
        frame_bytes_max: usize = Is("8_000_000"), bytes(1_024, GIB);
        /// One message from the client, all its fragments together, after decompression.
        message_bytes_max: usize = Is("8_000_000"), bytes(1_024, GIB);
        /// What may wait to be sent to one client; a client that reads more slowly is disconnected. More than `mcp.run_bytes_max`,
        /// since a run's events so far are sent at once.
        outbox_bytes_max: usize = Is("2_097_152"), bytes(1_024, GIB);
        /// Messages that may wait inside the server for one connection's channels.
        inbox_messages_max: usize = Is("1024"), count("messages", 1, 1_000_000);
        /// Which pages may connect: those of `server.host`, all, those of the scheme, host and port that the request names, or these
        /// origins. A request's scheme is https only where the server has certificates itself: behind a proxy that adds TLS, name
        /// the origins.
        /// Development takes local origins alone, whatever this says.
        check_origin: CheckOrigin = Is("host"), Kind::Origins;
        /// Whether WebSocket messages may be compressed; costs memory for each connection.
        compress: bool = Is("false"), Kind::Switch;
        /// Whether clients may use long poll.
        longpoll: bool = Is("true"), Kind::Switch;
        /// Whether a token in the subprotocol or the long-poll header is read, as phoenix.js sends its `authToken`.
        auth_token: bool = Is("true"), Kind::Switch;
    }

    /// Long poll, the transport for clients without WebSocket.
    longpoll: Longpoll {
        /// How long a poll waits for messages before it answers with none.
        window_ms: u64 = Is("10_000"), milliseconds(10, 600_000);
        /// Messages in one request of the client.
        batch_messages_max: usize = Is("100"), count("messages", 1, 1_000_000);
        /// The body of one request of the client.
        body_bytes_max: usize = Is("8_000_000"), bytes(1_024, GIB);
        /// The time in which that body has to arrive.
        body_timeout_ms: u64 = Is("30_000"), milliseconds(10, HOUR_MS);
        /// What may wait between two polls of one client; beyond it the session ends.
        buffer_bytes_max: usize = Is("2_097_152"), bytes(1_024, GIB);
        /// Long-poll sessions in all; further ones are refused.
        sessions_max: usize = Is("10_000"), count("sessions", 1, 10_000_000);
    }

    /// MCP sessions and the runs of their tools.
    mcp: Mcp {
        /// The time without any frame from the client after which an MCP channel ends.
        heartbeat_timeout_ms: u64 = Is("60_000"), milliseconds(100, 24 * HOUR_MS);
        /// How long an MCP session is kept whose client asked for that and has lost its connection; 0 turns recovery off.
        recovery_window_ms: u64 = Is("300_000"), milliseconds(0, 24 * HOUR_MS);
        /// Whether such a session is in memory alone, or is stored with all that it says before its client gets that, so that it
        /// outlives the process; with `store.path` and `server.secret_key_base`.
        session_durability: SessionDurability = Is("memory"), Kind::Choice(&["memory", "durable"]);
        /// Events kept of one run for those who join it late.
        run_events_max: usize = Is("1024"), count("events", 1, 1_000_000);
        /// The bytes of those events.
        run_bytes_max: usize = Is("1_048_576"), bytes(1_024, GIB);
        /// How long a run can still be joined after its end.
        run_retention_ms: u64 = Is("300_000"), milliseconds(0, 24 * HOUR_MS);
        /// Runs in memory, running or ended; the oldest ended go first, and a call is refused when all are running.
        runs_max: usize = Is("1000"), count("runs", 1, 1_000_000);
        /// JSON-RPC error codes for clients whose join was the handshake: those of the standard, or -32000 for every error as the Elixir deployment sent.
        compat: McpCompat = Is("standard"), Kind::Choice(&["standard", "elixir"]);
        /// The folder that the text search tool may read; without it the tool answers that none is set.
        search_root: Option<PathBuf> = Unset, Kind::Folder;
        /// Tool calls running at a time in one session; further ones are refused.
        tool_calls_per_session_max: usize = Is("16"), count("calls", 1, 10_000);
        /// Whether MCP is served over HTTP too, at `/mcp`.
        http: bool = Is("true"), Kind::Switch;
        /// The hosts by which requests over HTTP may name this server, `*` for any; where it is not set, `server.host`.
        hosts: Option<Vec<String>> = Unset, Kind::List(&Kind::Text);
        /// The hosts, each with a port or for every port, that the tool `api_caller` may ask over HTTP; all others are refused.
        /// Where it is not set, development allows the local names and production none.
        api_hosts: Option<Vec<String>> = Unset, Kind::List(&Kind::HostPort);
    }

    /// What the server keeps: the projects, memories, data sets and notifications of its MCP users.
    store: Store {
        /// The file that it is kept in, made where there is none; one server at a time may have it.
        /// Without it everything is kept in memory and ends with the process.
        path: Option<PathBuf> = Unset, Kind::File;
    }
}

/// Whether others than the developer can reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Loopback only, local origins only, authentication optional.
    Development,
    /// Any address; needs a secret and authentication.
    Production,
}

/// `history.durability`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HistoryDurability {
    /// In memory alone.
    Memory,
    /// Stored at a stop in order.
    Restart,
}

/// `mcp.session_durability`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionDurability {
    /// In memory alone.
    Memory,
    /// Stored as it goes on.
    Durable,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// How clients authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMethod {
    /// Not at all; development only.
    None,
    /// By what the settings say.
    Builtin,
    /// By the authenticator that the embedding program brings.
    Module,
}

/// Which JSON-RPC error codes MCP answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum McpCompat {
    /// JSON-RPC's and MCP's own.
    Standard,
    /// -32000 for every error.
    Elixir,
}

/// Which pages may open a socket.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "OriginWords")]
pub enum CheckOrigin {
    /// Those whose host is `server.host`.
    Host,
    /// All.
    Off,
    /// Those with the scheme, host and port of the request itself.
    Conn,
    /// Those of these origins: `scheme://host[:port]` or `//host[:port]`, where the host may begin with `*.`.
    Origins(Vec<String>),
}

/// How `CheckOrigin` is written.
#[derive(Deserialize)]
#[serde(untagged)]
enum OriginWords {
    Word(OriginWord),
    Origins(Vec<String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum OriginWord {
    Host,
    Off,
    Conn,
}

impl From<OriginWords> for CheckOrigin {
    fn from(words: OriginWords) -> CheckOrigin {
        match words {
            OriginWords::Word(OriginWord::Host) => CheckOrigin::Host,
            OriginWords::Word(OriginWord::Off) => CheckOrigin::Off,
            OriginWords::Word(OriginWord::Conn) => CheckOrigin::Conn,
            OriginWords::Origins(origins) => CheckOrigin::Origins(origins),
        }
    }
}

/// A text that no log, fault or `Debug` shows.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Returns the secret itself, for the code that signs with it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}
