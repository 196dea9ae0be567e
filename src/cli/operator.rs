//! Where an operator's commands act: on the store's file, or on the server that has it open.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::auth::api_keys::{ApiKeys, PREFIX_DEFAULT};
use crate::config::Settings;
use crate::security;
use crate::store::{Store, StoreError};

/// How long a running server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it may take to make a backup and to send it.
const BACKUP_PATIENCE: Duration = Duration::from_secs(3_600);

/// Where the keys are.
pub(super) enum Place {
    /// In a file that nobody has open.
    File(ApiKeys, Store),
    /// At a server that runs.
    Server(Client),
}

impl Place {
    /// Opens the store's file, or turns to the server that has it.
    pub(super) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let Some(path) = &settings.store.path else {
            // A server without a file has its keys in memory.
            return Ok(Place::Server(Client::new(settings)?));
        };
        match Store::open(path).await {
            Ok(store) => Ok(Place::File(ApiKeys::open(store.clone(), PREFIX_DEFAULT).await?, store)),
            Err(StoreError::InUse { .. }) => Ok(Place::Server(Client::new(settings)?)),
            Err(error) => Err(error.into()),
        }
    }
}

/// A client of the server's operator interface, at the address that the settings name.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    pub(super) fn new(settings: &Settings) -> anyhow::Result<Self> {
        let mut address = settings.server.listen;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                [127, 0, 0, 1].into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            });
        }
        let is_tls = settings.tls.certificate_file.is_some();
        // It fails where there is one already, which does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Whom it speaks with, the address says; what certificate a proxy's name would need does not matter on this machine.
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .no_proxy()
            .danger_accept_invalid_certs(is_tls && address.ip().is_loopback())
            .build()
            .context("preparing HTTP")?;
        let scheme = if is_tls { "https" } else { "http" };
        let token = match &settings.server.secret_key_base {
            Some(secret) => security::operator_token(secret.expose())?,
            // Only the development setting goes without, which lets everyone of this machine in.
            None => String::new(),
        };
        Ok(Client { http, base: format!("{scheme}://{address}/admin/api/"), token })
    }

    /// Asks, and gives the answer's text.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<String>) -> anyhow::Result<String> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        answered(request).await?.text().await.context("reading the server's answer")
    }

    /// Asks for what is long, and writes the answer's body as it comes.
    pub(super) async fn download(&self, path: &str, mut to: impl std::io::Write) -> anyhow::Result<()> {
        let mut answer = answered(self.request(Method::GET, path).timeout(BACKUP_PATIENCE)).await?;
        while let Some(chunk) = answer.chunk().await.context("reading the server's answer")? {
            to.write_all(&chunk).context("writing what the server sends")?;
        }
        Ok(())
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    /// Asks, and gives the answer's JSON.
    pub(super) async fn ask_json(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let text = self.ask(method, path, body.map(|body| body.to_string())).await?;
        serde_json::from_str(&text).context("the server's answer is no JSON")
    }
}

/// Sends it, and gives the answer if that is a good one.
async fn answered(request: RequestBuilder) -> anyhow::Result<Response> {
    let answer = request.send().await.context("asking the server")?;
    let status = answer.status();
    if status != StatusCode::OK {
        let text = answer.text().await.context("reading the server's answer")?;
        let detail = serde_json::from_str::<Value>(&text).ok();
        let detail = detail.as_ref().and_then(|value| value["errors"]["detail"].as_str()).unwrap_or("no reason given");
        bail!("the server answers {status}: {detail}");
    }
    Ok(answer)
}

/// A text as a value of a query.
pub(super) fn query_value(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~,".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
