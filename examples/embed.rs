//! Bennu inside a warp application that listens by itself: a shop with a REST interface, whose customers watch an order.
//!
//! `cargo run --example embed` (`PORT` is 4000 where it is not set), then join `order:7` at `/socket` with phoenix.js,
//! and change what it is told of:
//!
//! ```sh
//! curl -X PUT -H 'content-type: application/json' -d '{"status":"packed"}' http://localhost:4000/orders/7
//! ```
//!
//! What the application has to do for it: make the sockets a filter ([`Server::into_filter`]), say what happens
//! ([`Endpoint::broadcast`], from any task or thread), and drain the sockets before it stops ([`server::drain`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bennu::channel::{Overloaded, SocketSpecBuilder};
use bennu::server::{self, DrainOptions};
use bennu::{Broadcast, Channel, Cx, Endpoint, JoinCx, Next, Payload, Refusal, Server};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use warp::http::StatusCode;
use warp::{Filter, Rejection, Reply};

/// Bytes of a request's body.
const BODY_BYTES_MAX: u64 = 1_024;

/// How long requests that are under way hold up the end.
const STOP: Duration = Duration::from_secs(5);

/// The orders and how they stand.
pub struct Shop {
    orders: Mutex<BTreeMap<u32, Status>>,
    endpoint: Endpoint,
}

/// How an order stands.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    pub status: String,
}

impl Shop {
    /// A shop with one order, number 7.
    pub fn new(endpoint: Endpoint) -> Self {
        let orders = BTreeMap::from([(7, Status { status: "paid".to_owned() })]);
        Shop { orders: Mutex::new(orders), endpoint }
    }

    pub fn status(&self, order: u32) -> Option<Status> {
        self.orders().get(&order).cloned()
    }

    /// Changes how an order stands, and tells everyone who watches it, in the order of the changes: both happen under one
    /// lock.
    ///
    /// # Errors
    /// [`Overloaded`]: nobody could be told, and nothing was changed.
    pub fn change(&self, order: u32, status: Status) -> Result<(), Overloaded> {
        let mut orders = self.orders();
        self.endpoint.broadcast(&changes_of(order), "status", json!(status))?;
        orders.insert(order, status);
        Ok(())
    }

    fn orders(&self) -> MutexGuard<'_, BTreeMap<u32, Status>> {
        self.orders.lock().expect("nothing panics under the lock")
    }
}

/// Where the shop publishes; clients can't join it, as no route leads there.
fn changes_of(order: u32) -> String {
    format!("changes:{order}")
}

/// A customer who watches an order.
pub struct Watcher;

impl Channel for Watcher {
    type Info = Broadcast;

    async fn join(topic: &str, _params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let shop = cx.state::<Shop>().expect("the route was given the shop");
        let unknown = || Refusal::reason("no such order");
        let order = topic.strip_prefix("order:").and_then(|number| number.parse().ok()).ok_or_else(unknown)?;
        // First listen, then look: a change in between is told twice. The other way it could be missed.
        cx.subscribe(&changes_of(order), |change| change)?;
        let status = shop.status(order).ok_or_else(unknown)?;
        Ok((Watcher, json!(status).into()))
    }

    async fn handle_info(&mut self, change: Broadcast, cx: &mut Cx<Self>) -> Next {
        cx.push(change.event(), change.payload().clone());
        Next::NoReply
    }
}

/// Where customers connect.
pub fn socket(endpoint: &Endpoint, shop: &Arc<Shop>) -> SocketSpecBuilder {
    endpoint.socket("/socket").channel_with::<Watcher>("order:*", Arc::clone(shop))
}

/// The application's own routes, which know nothing of sockets.
fn rest(shop: Arc<Shop>) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone + Send + Sync + 'static {
    let order = warp::path!("orders" / u32).and(warp::any().map(move || Arc::clone(&shop)));
    let show = warp::get().and(order.clone()).map(|order, shop: Arc<Shop>| match shop.status(order) {
        Some(status) => warp::reply::json(&status).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    });
    let body = warp::body::content_length_limit(BODY_BYTES_MAX).and(warp::body::json());
    let change =
        warp::put().and(order).and(body).map(|order, shop: Arc<Shop>, status| match shop.change(order, status) {
            Ok(()) => StatusCode::NO_CONTENT,
            Err(Overloaded) => StatusCode::SERVICE_UNAVAILABLE,
        });
    show.or(change)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = Endpoint::start();
    let shop = Arc::new(Shop::new(endpoint.clone()));
    let sockets = Server::new(&endpoint).socket(socket(&endpoint, &shop)).into_filter();
    let routes = sockets.or(rest(shop));

    let port = std::env::var("PORT").map_or(Ok(4000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://localhost:{}", listener.local_addr()?.port());
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    let serving = tokio::spawn(warp::serve(routes).incoming(listener).graceful(stopped).run());

    server::signalled().await;
    // First nobody new gets in, then everyone is told to come back, elsewhere or later (close code 1012).
    drop(stop);
    server::drain(&endpoint, &DrainOptions::default()).await;
    // warp waits for requests that are under way, and knows no limit to that.
    match tokio::time::timeout(STOP, serving).await {
        Ok(served) => Ok(served?),
        Err(_) => Ok(()),
    }
}
