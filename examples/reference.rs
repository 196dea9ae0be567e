//! The application behind the recorded transcripts (tests/transcripts/phoenix): what a Phoenix server with these sockets
//! and channels says, this one has to say as well.
//!
//! `reference --port N` listens on 127.0.0.1 (N = 0 for a free port) and prints `listening on ADDRESS`. With
//! `--tls-certificate FILE --tls-key FILE` it does so with TLS, with `--history PATTERN` the topics that match keep history.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bennu::channel::{
    Channel, Compression, ConnectError, ConnectInfo, Connected, Cx, Endpoint, HistoryOptions, JoinCx, LongPollOptions,
    Next, Payload, PayloadError, Refusal, Reply, SocketSpec, SocketSpecBuilder, StopReason, TrackError,
};
use bennu::protocol::origin::{OriginPolicy, OriginRule};
use bennu::server::{self, Server, TlsOptions};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use warp::Filter;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut port = 4100;
    let (mut certificate, mut key, mut history) = (None, None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--port", Some(value)) => port = value.parse()?,
            ("--tls-certificate", Some(value)) => certificate = Some(value),
            ("--tls-key", Some(value)) => key = Some(value),
            ("--history", Some(pattern)) => history = Some(pattern),
            (other, _) => {
                let expected = "--port N, --tls-certificate FILE, --tls-key FILE or --history PATTERN";
                return Err(format!("expected {expected}, got {other:?}").into());
            }
        }
    }
    let runtime = server::runtime(0)?;
    let tls = certificate.zip(key).map(|(certificate, key)| TlsOptions::new(certificate, key));
    runtime.block_on(serve(SocketAddr::from(([127, 0, 0, 1], port)), tls, history))
}

async fn serve(
    address: SocketAddr,
    tls: Option<TlsOptions>,
    history: Option<String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = Endpoint::start();
    if let Some(pattern) = history {
        endpoint.keep(&pattern, HistoryOptions::default());
    }
    let server = Server::new(&endpoint).routes(broadcast_route(endpoint.clone())).options(|options| options.tls = tls);
    let running = sockets(&endpoint)?.into_iter().fold(server, Server::socket).listen(address)?;
    println!("listening on {}", running.address());
    std::io::stdout().flush()?;
    running.until_signalled().await;
    Ok(())
}

/// Who a client says it is.
struct User(Option<String>);

async fn connect(info: ConnectInfo) -> Result<Connected, ConnectError> {
    match info.params.get_str("token") {
        Some("bad") => return Err(ConnectError::Refused),
        Some("error_tuple") => return Err(ConnectError::Reason("not today".to_owned())),
        Some("raise") => panic!("connect was asked to raise"),
        _ => {}
    }
    let user_id = info.params.get_str("user_id").map(str::to_owned);
    let id = user_id.as_ref().map(|user_id| format!("user:{user_id}"));
    let mut connected = Connected::with(User(user_id));
    connected.id = id;
    Ok(connected)
}

async fn connect_with_token(info: ConnectInfo) -> Result<Connected, ConnectError> {
    if info.auth_token.as_deref() == Some("reject-me") {
        return Err(ConnectError::Refused);
    }
    Ok(Connected::with(info))
}

type Built<T> = Result<T, Box<dyn std::error::Error>>;

fn sockets(endpoint: &Endpoint) -> Built<Vec<Arc<SocketSpec>>> {
    let longpoll = Some(LongPollOptions::default());
    let mut short_longpoll = LongPollOptions::default();
    short_longpoll.window_ms = 1_000;
    let origins = ["https://example.com", "//p.example.net:888", "//*.wild.example.org"];
    let origins = origins.map(OriginRule::parse).into_iter().collect::<Result<_, _>>()?;
    Ok(vec![
        room_socket(endpoint, "/socket").options(|options| options.longpoll = longpoll).build(),
        room_socket(endpoint, "/short_socket")
            .options(|options| {
                options.idle_timeout_ms = 2_000;
                options.longpoll = Some(short_longpoll);
            })
            .build(),
        endpoint
            .socket("/auth_socket")
            .connect(connect_with_token)
            .channel::<Info>("info:*")
            .channel::<Room>("room:*")
            .options(|options| {
                options.auth_token = true;
                options.longpoll = longpoll;
            })
            .build(),
        room_socket(endpoint, "/origin_list_socket")
            .options(|options| {
                options.check_origin = OriginPolicy::List(origins);
                options.longpoll = longpoll;
            })
            .build(),
        room_socket(endpoint, "/origin_conn_socket")
            .options(|options| options.check_origin = OriginPolicy::Conn)
            .build(),
        room_socket(endpoint, "/origin_off_socket").options(|options| options.check_origin = OriginPolicy::Off).build(),
        room_socket(endpoint, "/sub_socket")
            .options(|options| options.subprotocols = vec!["sip".to_owned(), "mqtt".to_owned()])
            .build(),
        room_socket(endpoint, "/err_socket").on_connect_error(|_| (401, "custom unauthorized".to_owned())).build(),
        room_socket(endpoint, "/compress_socket").options(|options| options.compression = Compression::On).build(),
        endpoint
            .socket("/limit_socket")
            .channel::<Room>("room:*")
            .options(|options| {
                options.channels_max = 2;
                options.frame_bytes_max = 1_024;
            })
            .build(),
    ])
}

fn room_socket(endpoint: &Endpoint, path: &str) -> SocketSpecBuilder {
    endpoint
        .socket(path)
        .connect(connect)
        .channel::<Room>("room:*")
        .channel::<Room>("exact")
        .channel::<Bench>("bench:*")
}

/// The JSON text of a payload, to be put inside another. Binary data has none.
fn raw(payload: &Payload) -> Result<&RawValue, PayloadError> {
    Ok(payload.parse()?)
}

/// The room channel of the recordings.
struct Room;

enum RoomInfo {
    AfterJoin,
    Late(bennu::channel::ReplyHandle, Payload),
    Stop,
}

#[derive(Serialize)]
struct Joined<'a> {
    echo_params: &'a RawValue,
    room: &'a str,
}

#[derive(Deserialize)]
struct Track<'a> {
    key: String,
    #[serde(borrow, default)]
    meta: Option<&'a RawValue>,
}

impl Channel for Room {
    type Info = RoomInfo;
    const INTERCEPT: &'static [&'static str] = &["filtered", "dropped"];

    async fn join(topic: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        match topic {
            "room:forbidden" => return Err(Refusal::reason("unauthorized")),
            "room:crash_join" => panic!("join was asked to crash"),
            "room:bad_return" => panic!("join was asked for an invalid return value"),
            "room:push_in_join" => panic!("a push inside join"),
            "room:bare" => return Ok((Room, Payload::EMPTY)),
            "room:slow_join" => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                return Ok((Room, json!({"room": topic}).into()));
            }
            "room:push_on_join" => {
                cx.send(RoomInfo::AfterJoin);
            }
            _ if topic.starts_with("room:cond:") => {
                let asked: BTreeMap<String, Value> = params.parse().unwrap_or_default();
                let is = |key: &str| asked.get(key) == Some(&Value::Bool(true));
                if is("refuse") {
                    return Err(Refusal::reason("refused"));
                }
                assert!(!is("crash"), "join was asked to crash");
            }
            _ => {}
        }
        let response = Payload::json(&Joined { echo_params: raw(&params)?, room: topic })?;
        Ok((Room, response))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        match event {
            "echo" => Next::ok(payload),
            "echo_error" => Next::error(payload),
            "ok" => Next::ok(Payload::EMPTY),
            "error" => Next::error(Payload::EMPTY),
            "custom_status" => Next::Reply(Reply { status: "my_status".into(), response: payload }),
            "noreply" => Next::NoReply,
            "broadcast" => {
                cx.broadcast("shout", payload);
                Next::ok(Payload::EMPTY)
            }
            "broadcast_from" => {
                cx.broadcast_from("shout", payload);
                Next::ok(Payload::EMPTY)
            }
            "push" => {
                cx.push("pushed", payload);
                Next::NoReply
            }
            "push3_reply" => {
                for i in 1..=3 {
                    cx.push("pushed", json!({"i": i}));
                }
                Next::ok(payload)
            }
            "filtered" | "dropped" => {
                cx.broadcast(event, payload);
                Next::ok(Payload::EMPTY)
            }
            "filtered_from" => {
                cx.broadcast_from("filtered", payload);
                Next::ok(Payload::EMPTY)
            }
            "async_reply" | "async_reply_stop" => {
                let later = cx.reply_handle().expect("this is a message");
                cx.send_after(Duration::from_millis(50), RoomInfo::Late(later, payload));
                if event == "async_reply_stop" {
                    cx.send_after(Duration::from_millis(100), RoomInfo::Stop);
                }
                Next::NoReply
            }
            "slow" => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Next::ok(payload)
            }
            "disconnect_me" => {
                if let Some(User(Some(user_id))) = cx.assigns() {
                    let id = format!("user:{user_id}");
                    cx.broadcast_on(&id, "disconnect", Payload::EMPTY).expect("one broadcast fits");
                }
                Next::NoReply
            }
            "stop" | "stop_shutdown" | "stop_plain_shutdown" | "stop_error" | "stop_reply" | "stop_error_reply" => {
                stop(event, payload)
            }
            "crash" | "kill" | "bad_return" => panic!("asked to {event}"),
            _ if event.starts_with("binary") => binary(event, payload, cx),
            _ if event.starts_with("presence_") => presence(event, &payload, cx),
            _ => Next::unknown(event),
        }
    }

    async fn handle_info(&mut self, info: RoomInfo, cx: &mut Cx<Self>) -> Next {
        match info {
            RoomInfo::AfterJoin => {
                cx.push("welcome", json!({"n": 1}));
                cx.broadcast("shout", json!({"n": 2}));
                Next::NoReply
            }
            RoomInfo::Late(reply, payload) => {
                let _ = reply.send(Reply::ok(payload));
                Next::NoReply
            }
            RoomInfo::Stop => Next::Stop { reason: StopReason::Normal, reply: None },
        }
    }

    async fn handle_out(&mut self, event: &str, payload: &Payload, cx: &mut Cx<Self>) -> Next {
        if event == "filtered" {
            let mut filtered: serde_json::Map<String, Value> = payload.parse().expect("a broadcast is an object");
            let user_id = cx.assigns().and_then(|User(user_id)| user_id.clone());
            filtered.insert("filtered_for".to_owned(), json!(user_id));
            cx.push(event, Value::Object(filtered));
        }
        Next::NoReply
    }
}

fn stop(event: &str, payload: Payload) -> Next {
    let reason = match event {
        "stop" | "stop_reply" => StopReason::Normal,
        "stop_shutdown" | "stop_plain_shutdown" => StopReason::Shutdown,
        _ => StopReason::Error("asked to stop with an error".to_owned()),
    };
    let reply = match event {
        "stop_reply" => Some(Reply::ok(payload)),
        "stop_error_reply" => Some(Reply::error(payload)),
        _ => None,
    };
    Next::Stop { reason, reply }
}

/// The binary data of a message: its payload, or the text under `data`.
fn data(payload: &Payload) -> Bytes {
    match payload {
        Payload::Binary(data) => data.clone(),
        Payload::Json(_) => {
            let text: BTreeMap<String, Value> = payload.parse().expect("an object with data");
            text["data"].as_str().expect("data is a string").to_owned().into()
        }
    }
}

fn binary(event: &str, payload: Payload, cx: &mut Cx<Room>) -> Next {
    match (event, &payload) {
        ("binary", Payload::Binary(data)) => {
            Next::ok(Payload::Binary(data.iter().rev().copied().collect::<Vec<u8>>().into()))
        }
        ("binary_error", Payload::Binary(_)) => Next::error(payload),
        ("binary_size", Payload::Binary(data)) => Next::ok(json!({"size": data.len()})),
        ("binary_reply", Payload::Json(_)) => Next::ok(Payload::Binary(data(&payload))),
        ("binary_push", _) => {
            cx.push("bin_pushed", Payload::Binary(data(&payload)));
            Next::NoReply
        }
        ("binary_broadcast", _) => {
            cx.broadcast("bin_shout", Payload::Binary(data(&payload)));
            Next::ok(Payload::EMPTY)
        }
        _ => Next::crash(format!("no clause for {event:?} with this payload")),
    }
}

fn presence(event: &str, payload: &Payload, cx: &mut Cx<Room>) -> Next {
    if event == "presence_list" {
        return Next::ok(cx.presences());
    }
    let Ok(Track { key, meta }) = payload.parse() else {
        return Next::crash("expected a key and a meta");
    };
    let meta = meta.map(|meta| Payload::Json(Bytes::copy_from_slice(meta.get().as_bytes())));
    let done = match (event, &meta) {
        ("presence_track", Some(meta)) => cx.track(&key, meta).map(|_| {
            let state = cx.presences();
            cx.push("presence_state", state);
        }),
        ("presence_update", Some(meta)) => cx.update(&key, meta).map(drop),
        ("presence_untrack", _) => {
            cx.untrack(&key);
            Ok(())
        }
        _ => return Next::crash(format!("no clause for {event:?} with this payload")),
    };
    match done {
        Ok(()) => Next::ok(Payload::EMPTY),
        Err(error) => Next::error(Payload::reason(&elixir_text(&error, &key, cx))),
    }
}

/// The error as the recorded application inspects it.
fn elixir_text(error: &TrackError, key: &str, cx: &Cx<Room>) -> String {
    match error {
        TrackError::NotPresent(_) => ":nopresence".to_owned(),
        TrackError::AlreadyTracked(_) => {
            format!("{{:already_tracked, #PID<0.{}.0>, {:?}, {key:?}}}", cx.connection_id(), cx.topic())
        }
        other => other.to_string(),
    }
}

/// The bench channel.
struct Bench;

impl Channel for Bench {
    type Info = ();

    async fn join(_topic: &str, _params: Payload, _cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        Ok((Bench, Payload::EMPTY))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        match event {
            "echo" => Next::ok(payload),
            "broadcast" => {
                cx.broadcast("shout", payload);
                Next::ok(Payload::EMPTY)
            }
            _ => Next::unknown(event),
        }
    }
}

/// The info channel: what `connect` was told.
struct Info;

impl Channel for Info {
    type Info = ();

    async fn join(_topic: &str, _params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let info: &ConnectInfo = cx.assigns().ok_or_else(|| Refusal::reason("no connect info"))?;
        let response = json!({
            "auth_token": info.auth_token,
            "keys": ["auth_token", "peer_data", "uri", "user_agent", "x_headers"],
            "params": info.params,
            "peer_data": {"address": info.peer.ip(), "port": info.peer.port(), "ssl_cert": null},
            "uri": {
                "authority": info.uri.host,
                "host": info.uri.host,
                "path": info.uri.path,
                "port": info.uri.port,
                "query": info.uri.query,
                "scheme": info.uri.scheme,
            },
            "user_agent": info.header("user-agent"),
            "x_headers": info.headers.iter().filter(|(name, _)| name.starts_with("x-")).collect::<Vec<_>>(),
        });
        Ok((Info, response.into()))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, _cx: &mut Cx<Self>) -> Next {
        match event {
            "echo" => Next::ok(payload),
            _ => Next::unknown(event),
        }
    }
}

/// `POST /broadcast?topic=..&event=..` with a JSON object broadcasts it from the endpoint.
fn broadcast_route(
    endpoint: Endpoint,
) -> impl Filter<Extract = (warp::reply::Response,), Error = warp::Rejection> + Clone + Send + Sync + 'static {
    warp::post()
        .and(warp::path!("broadcast"))
        .and(warp::query::<BTreeMap<String, String>>())
        .and(warp::body::json())
        .map(move |query: BTreeMap<String, String>, body: Value| {
            let parameter = |name| query.get(name).map(String::as_str).unwrap_or_default();
            let sent = endpoint.broadcast(parameter("topic"), parameter("event"), body);
            let reply = warp::reply::json(&json!({"ok": sent.is_ok()}));
            let reply = warp::reply::with_header(reply, "content-type", "application/json; charset=utf-8");
            warp::Reply::into_response(reply)
        })
}
