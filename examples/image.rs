//! Pictures for everyone in a room: binary messages in and out.
//!
//! `cargo run --example image`, then open what it prints in two tabs. `PORT` is 4000 where it is not set. phoenix.js
//! sends and hands over binary payloads as an `ArrayBuffer`:
//!
//! ```js
//! channel.on("image", buffer => show(new Blob([buffer])))
//! channel.push("image", await file.arrayBuffer()).receive("error", ({ reason }) => alert(reason))
//! ```
//!
//! What comes is looked at, not believed: its size, and that it begins as a PNG, JPEG, GIF or WebP does. That keeps out
//! what a browser might run, such as SVG. What is in a picture is for the browser to decode.

use bennu::channel::SocketSpecBuilder;
use bennu::{Channel, Cx, Endpoint, JoinCx, Next, Payload, Refusal, Server};
use serde_json::json;
use warp::Filter;

/// Bytes of one picture.
pub const IMAGE_BYTES_MAX: usize = 1 << 20;

/// Someone who sees a room's pictures.
pub struct Viewer;

impl Channel for Viewer {
    type Info = ();

    async fn join(_room: &str, _params: Payload, _cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        Ok((Viewer, json!({"bytes_max": IMAGE_BYTES_MAX}).into()))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        match (event, &payload) {
            ("image", Payload::Binary(data)) => match image_type(data) {
                Ok(image_type) => {
                    cx.broadcast_from("image", payload);
                    Next::ok(json!({"type": image_type}))
                }
                Err(reason) => Next::error(Payload::reason(&reason)),
            },
            ("image", Payload::Json(_)) => Next::error(Payload::reason("a picture is binary data")),
            _ => Next::unknown(event),
        }
    }
}

/// The media type that a picture's first bytes say it has.
///
/// # Errors
/// Why it is no picture that may be shown, in words for who sent it.
fn image_type(data: &[u8]) -> Result<&'static str, String> {
    if data.len() > IMAGE_BYTES_MAX {
        return Err(format!("the picture has {} bytes, the limit is {IMAGE_BYTES_MAX}", data.len()));
    }
    match data {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Ok("image/png"),
        [0xff, 0xd8, 0xff, ..] => Ok("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok("image/webp"),
        _ => Err("expected a PNG, JPEG, GIF or WebP picture".to_owned()),
    }
}

/// Where clients connect.
pub fn socket(endpoint: &Endpoint) -> SocketSpecBuilder {
    endpoint.socket("/socket").channel::<Viewer>("images:*").options(|options| {
        // A picture that is somewhat too big is refused with a reply; one that is far too big ends the connection.
        options.frame_bytes_max = 4 * IMAGE_BYTES_MAX;
        options.message_bytes_max = 4 * IMAGE_BYTES_MAX;
        // So many pictures may wait for a slow client before it is cut off.
        options.outbox_bytes_max = 8 * IMAGE_BYTES_MAX;
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let page = warp::path::end().map(|| warp::reply::html(include_str!("image/index.html")));
    const PHOENIX: &str = include_str!("../src/dashboard/vendor/phoenix.mjs");
    let js = warp::path!("phoenix.mjs").map(|| warp::reply::with_header(PHOENIX, "content-type", "text/javascript"));
    let port = std::env::var("PORT").map_or(Ok(4000), |port| port.parse())?;

    let endpoint = Endpoint::start();
    let server = Server::new(&endpoint).socket(socket(&endpoint)).routes(page.or(js)).listen(([127, 0, 0, 1], port))?;
    println!("listening on http://localhost:{}", server.address().port());
    server.until_signalled().await;
    Ok(())
}
