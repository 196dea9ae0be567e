//! Every protocol limit: value, unit, and where the number comes from. Those that are settings have these as defaults.

/// Topics that one socket may have joined at once. Source: Phoenix 1.8.9, `max_channels_per_transport`.
pub const CHANNELS_PER_SOCKET_MAX: usize = 100;

/// Milliseconds without a frame from the client after which its socket is closed. Source: Phoenix, `timeout`.
pub const IDLE_TIMEOUT_MS: u64 = 60_000;

/// Bytes of one WebSocket frame's payload. Source: Bandit's default.
pub const FRAME_BYTES_MAX: usize = 8_000_000;

/// Bytes of one message after reassembly and decompression. Source: Bandit's default.
pub const MESSAGE_BYTES_MAX: usize = 8_000_000;

/// Messages that may wait for a channel whose handler waits. Then the connection is not read: TCP pushes back.
pub const CHANNEL_WAITING_MAX: usize = 64;

/// Bytes that may wait for a client that does not read. Then the connection is closed. AnyCable and Centrifugo have 1 MiB;
/// here the answer to joining an MCP run may have as much by itself.
pub const OUTBOX_BYTES_MAX: usize = 2 << 20;

/// Bytes waiting for a client above which its own messages are not read, so that a client that only asks is slowed
/// down by TCP before its outbox is full.
pub const OUTBOX_BYTES_READ_PAUSE: usize = 64 * 1024;

/// Mails (intercepted broadcasts, the server's own messages) that may wait for a connection's channels. Then the
/// connection is closed.
pub const INBOX_MESSAGES_MAX: usize = 1_024;

/// Milliseconds that a poll waits for a message. Source: Phoenix, `window_ms`.
pub const LONGPOLL_WINDOW_MS: u64 = 10_000;

/// Messages of one POST; the rest is ignored. Source: Phoenix 1.8 after CVE-2026-32689.
pub const LONGPOLL_BATCH_MESSAGES_MAX: usize = 100;

/// Bytes of one POST's body. Source: `Plug.Conn.read_body/2`.
pub const LONGPOLL_BODY_BYTES_MAX: usize = 8_000_000;

/// Seconds that a long-poll token is valid: two weeks. Source: Phoenix, `crypto: [max_age: 1209600]`.
pub const LONGPOLL_TOKEN_AGE_MAX_S: u64 = 1_209_600;

/// Handlers of ended channels (a duplicate join, a waiting `terminate`) that may run on, on one connection. Then it is not
/// read until there are fewer.
pub const ORPHAN_HANDLERS_MAX: usize = 64;

/// Milliseconds that a handler may run on after its connection is gone.
pub const ORPHAN_HANDLER_MS: u64 = 5_000;

/// Milliseconds that a closed WebSocket's TCP connection is kept to hear the client's close.
pub const CLOSE_LINGER_MS: u64 = 5_000;

/// Presences that one channel may track at once.
pub const PRESENCES_PER_CHANNEL_MAX: usize = 1_000;

/// Subscriptions to further topics that one channel may hold at once.
pub const SUBSCRIPTIONS_PER_CHANNEL_MAX: usize = 1_000;

/// Broadcasts that may wait for a subscriber that is no channel. Then it misses some, and is told how many.
pub const SUBSCRIBER_BROADCASTS_MAX: usize = 1_024;

/// Commands (broadcasts, subscriptions, output behind them) that may wait for a shard of PubSub. Above it broadcasts from
/// outside are refused, and connections are not read until half of them are done.
pub const SHARD_COMMANDS_MAX: usize = 65_536;

/// Broadcasts that a topic with history keeps. The oldest go first, as with each of the bounds below.
pub const HISTORY_MESSAGES_MAX: usize = 1_000;

/// Bytes of the broadcasts that a topic with history keeps.
pub const HISTORY_BYTES_MAX: usize = 1 << 20;

/// Milliseconds that a topic with history keeps a broadcast. Source: the recovery window of the Elixir deployment.
pub const HISTORY_AGE_MS: u64 = 300_000;

/// Bytes of a topic that keeps history: its name is kept with it when its clients have gone. A longer one keeps none.
pub const HISTORY_TOPIC_BYTES_MAX: usize = 1_024;

/// Topics that may have a history at once. Further ones have none until there are fewer.
pub const HISTORY_TOPICS_MAX: usize = 100_000;

/// Bytes of the broadcasts that all topics keep together. Beyond it the topic that is published on keeps less.
pub const HISTORY_TOTAL_BYTES_MAX: usize = 256 << 20;
