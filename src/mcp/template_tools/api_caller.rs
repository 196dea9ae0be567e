//! `api_caller`: an HTTP GET to a host that the operator has allowed.
//!
//! What is allowed is a name, or an address written as one, and nothing is compared with where the name leads: whoever
//! answers for an allowed name in DNS is trusted already, so that rebinding it gains nothing. Redirects are not
//! followed, since they could lead to another host; neither are proxies used, which would resolve names elsewhere.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::parameters::Whole;
use super::{About, Effect, described};
use crate::mcp::upstream::why;
use crate::mcp::{CallError, Tool};

/// Characters of an endpoint.
const ENDPOINT_CHARS_MAX: u32 = 2_048;
/// Bytes of an answer's body.
const BODY_BYTES_MAX: usize = 262_144;
/// Attempts after the first.
const RETRIES_MAX: u64 = 10;
/// In which an attempt has to bring its whole answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before the second attempt; it doubles with each.
const BACKOFF: Duration = Duration::from_millis(200);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// All attempts and their pauses, and a little.
const EXECUTION_MS_MAX: u64 = 150_000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Call {
    /// The URL, of http or https, whose host the setting `mcp.api_hosts` names; without user and password.
    #[schemars(length(min = 1, max = ENDPOINT_CHARS_MAX))]
    endpoint: String,
    /// How often it is tried again where no connection is made, or the status is 500 or above.
    #[serde(default = "no_retries")]
    retries: Whole<0, RETRIES_MAX>,
}

fn no_retries() -> Whole<0, RETRIES_MAX> {
    Whole(0)
}

#[derive(Debug, PartialEq, Serialize, JsonSchema)]
struct Answer {
    /// The URL without its query, which may hold what is secret.
    endpoint: String,
    /// The status of HTTP.
    status: u16,
    /// The answer's MIME type, where it says one.
    content_type: Option<String>,
    /// JSON as a value, another body as a text; null where it is empty.
    body: Value,
    /// The body's length.
    bytes: usize,
    /// How often it was tried.
    attempts: u64,
}

/// What calls need.
struct Caller {
    hosts: Vec<String>,
    backoff: Duration,
    /// Made by the first call that is allowed.
    client: OnceLock<Client>,
}

/// Why an attempt brought no answer.
#[derive(Debug)]
enum Failed {
    /// Another attempt may.
    ForNow(String),
    ForGood(String),
}

pub(super) fn tool(hosts: &[String]) -> Tool {
    let caller = Arc::new(Caller::new(hosts, BACKOFF));
    let call = Tool::structured("api_caller", move |wanted: Call, _| {
        let caller = Arc::clone(&caller);
        async move { caller.call(wanted).await }
    });
    described(call, About {
        description: "Asks an HTTP endpoint by GET, if the operator has allowed its host (the setting mcp.api_hosts).",
        category: "integration",
        effect: Effect::Asks,
        examples: json!([{"endpoint": "http://localhost:4000/healthz", "retries": 3}]),
    })
    .max_execution_ms(EXECUTION_MS_MAX)
}

impl Caller {
    fn new(hosts: &[String], backoff: Duration) -> Self {
        let hosts = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Caller { hosts, backoff, client: OnceLock::new() }
    }

    async fn call(&self, wanted: Call) -> Result<Answer, CallError> {
        let url = self.allowed(&wanted.endpoint)?;
        let client = self.client()?;
        let retries = wanted.retries.checked("retries")?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let why = match attempt(client, &url).await {
                Ok(answer) => return Ok(Answer { attempts, ..answer }),
                Err(Failed::ForGood(why)) => return Err(CallError::Failed(why)),
                Err(Failed::ForNow(why)) => why,
            };
            if attempts > retries {
                let times = if attempts == 1 {
                    "at the only attempt".to_owned()
                } else {
                    format!("at each of {attempts} attempts")
                };
                return Err(CallError::Failed(format!("{why} {times}")));
            }
            let doublings = u32::try_from(attempts - 1).unwrap_or(u32::MAX).min(16);
            tokio::time::sleep((self.backoff * 2_u32.pow(doublings)).min(BACKOFF_MAX)).await;
        }
    }

    /// The URL, if it may be asked. No fault repeats more of it than its host, since the rest may hold what is secret.
    fn allowed(&self, endpoint: &str) -> Result<Url, CallError> {
        let unfit = |why: &str| CallError::InvalidArguments(format!("endpoint: {why}"));
        let mut url = Url::parse(endpoint)
            .map_err(|_| unfit("expected a URL such as \"https://api.example.com/items\", came none"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(unfit(&format!("expected a URL of http or https, came one of {:?}", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(unfit("expected a URL without user and password, came one with them"));
        }
        let host = url.host_str().unwrap_or_default();
        let with_port = format!("{host}:{}", url.port_or_known_default().unwrap_or_default());
        if !self.hosts.iter().any(|allowed| *allowed == host || *allowed == with_port) {
            let text = format!("endpoint: expected a host that the setting mcp.api_hosts names, came {with_port:?}");
            return Err(CallError::Failed(text));
        }
        url.set_fragment(None);
        Ok(url)
    }

    fn client(&self) -> Result<&Client, CallError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        // One that the program has chosen before stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().redirect(Policy::none()).no_proxy().timeout(ATTEMPT_TIMEOUT).build();
        let client = client.map_err(|error| CallError::Failed(format!("preparing requests: {}", why(&error))))?;
        Ok(self.client.get_or_init(|| client))
    }
}

async fn attempt(client: &Client, url: &Url) -> Result<Answer, Failed> {
    let failed = |error: reqwest::Error| {
        let text = format!("the endpoint can't be reached: {}", why(&error));
        if error.is_connect() { Failed::ForNow(text) } else { Failed::ForGood(text) }
    };
    let request = client
        .get(url.clone())
        .header(ACCEPT, "application/json, text/*;q=0.9, */*;q=0.1")
        .header(USER_AGENT, concat!("bennu/", env!("CARGO_PKG_VERSION")));
    let mut response = request.send().await.map_err(failed)?;
    let status = response.status();
    if status.is_server_error() {
        return Err(Failed::ForNow(format!("the endpoint answered {status}")));
    }
    let content_type = mime_type(&response);
    let too_long =
        || Failed::ForGood(format!("the endpoint's answer is more than {BODY_BYTES_MAX} bytes, which is the limit"));
    if response.content_length().is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_long());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(too_long());
        }
        body.extend_from_slice(&chunk);
    }
    let bytes = body.len();
    let body = value_of(body, content_type.as_deref())?;
    let mut endpoint = url.clone();
    endpoint.set_query(None);
    Ok(Answer { endpoint: endpoint.into(), status: status.as_u16(), content_type, body, bytes, attempts: 0 })
}

fn mime_type(response: &Response) -> Option<String> {
    let said = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    Some(said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// A body as a value. One that says not what it is, or that it is JSON and is not, is what it looks like.
fn value_of(body: Vec<u8>, content_type: Option<&str>) -> Result<Value, Failed> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    if content_type.is_none_or(|kind| kind == "application/json" || kind.ends_with("+json"))
        && let Ok(value) = serde_json::from_slice(&body)
    {
        return Ok(value);
    }
    let bytes = body.len();
    String::from_utf8(body).map(Value::String).map_err(|_| {
        Failed::ForGood(format!("expected an answer of JSON or text in UTF-8, came {bytes} bytes of something else"))
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::super::testing::{Tools, refused};
    use super::*;

    /// A server that gives these answers, one a connection, and gives back the requests that it got.
    async fn server(answers: &[String]) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let answers = answers.to_vec();
        let serving = tokio::spawn(async move {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut bytes = [0; 1_024];
                    let count = stream.read(&mut bytes).await.expect("a request");
                    assert_ne!(count, 0, "the request broke off");
                    request.extend_from_slice(&bytes[..count]);
                }
                requests.push(String::from_utf8(request).expect("a request is ASCII"));
                // Whoever has read enough does not read the rest.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
            requests
        });
        (address, serving)
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
    }

    async fn call(address: &str, path: &str, retries: u64) -> Result<Answer, String> {
        let caller = Caller::new(&[address.to_owned()], Duration::ZERO);
        let wanted = Call { endpoint: format!("http://{address}{path}"), retries: Whole(retries) };
        caller.call(wanted).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn an_answer_is_told_without_the_query_of_its_endpoint() {
        let json = answer("200 OK", "Content-Type: application/JSON; charset=utf-8\r\n", r#"{"a":[1]}"#);
        let (address, serving) = server(&[json]).await;

        let told = call(&address, "/items?token=hush#part", 0).await;

        let expected = Answer {
            endpoint: format!("http://{address}/items"),
            status: 200,
            content_type: Some("application/json".to_owned()),
            body: json!({"a": [1]}),
            bytes: 9,
            attempts: 1,
        };
        assert_eq!(told, Ok(expected));
        let requests = serving.await.expect("served");
        assert!(requests[0].starts_with("GET /items?token=hush HTTP/1.1\r\n"), "{requests:?}");
        assert!(requests[0].contains(&format!("host: {address}\r\n")), "{requests:?}");
    }

    #[tokio::test]
    async fn a_busy_endpoint_is_tried_again() {
        let busy = answer("503 Service Unavailable", "", "");
        let (address, serving) = server(&[busy.clone(), busy.clone(), answer("200 OK", "", "fine")]).await;

        let told = call(&address, "/", 3).await.expect("an answer");

        assert_eq!((told.body, told.attempts), (json!("fine"), 3));
        serving.await.expect("served");
        let (address, serving) = server(&[busy.clone(), busy.clone(), busy.clone()]).await;
        let told = call(&address, "/", 2).await;
        assert_eq!(told, Err("the endpoint answered 503 Service Unavailable at each of 3 attempts".to_owned()));
        serving.await.expect("served");
        let (address, _serving) = server(&[busy]).await;
        let told = call(&address, "/", 0).await;
        assert_eq!(told, Err("the endpoint answered 503 Service Unavailable at the only attempt".to_owned()));
    }

    #[tokio::test]
    async fn an_endpoint_that_is_not_there_is_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        drop(listener);

        let told = call(&address, "/?token=hush", 1).await.expect_err("nobody is there");

        assert!(told.starts_with("the endpoint can't be reached: no connection"), "{told}");
        assert!(told.ends_with(" at each of 2 attempts") && !told.contains("hush"), "{told}");
    }

    #[tokio::test]
    async fn what_is_final_is_not_tried_again() {
        let (address, _serving) = server(&[answer("404 Not Found", "", "")]).await;
        let told = call(&address, "/", 3).await.expect("an answer");
        assert_eq!((told.status, told.body, told.attempts), (404, Value::Null, 1));

        let (address, _serving) = server(&[answer("302 Found", "Location: http://127.0.0.1:1/\r\n", "")]).await;
        assert_eq!(call(&address, "/", 3).await.map(|told| told.status), Ok(302));

        let (address, _serving) = server(&["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_owned()]).await;
        let told = call(&address, "/", 3).await.expect_err("half an answer");
        assert!(told.starts_with("the endpoint can't be reached: "), "{told}");
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_off() {
        let limit = Err("the endpoint's answer is more than 262144 bytes, which is the limit".to_owned());
        let long = "x".repeat(BODY_BYTES_MAX + 1);
        let (address, _serving) = server(&[answer("200 OK", "", &long)]).await;
        assert_eq!(call(&address, "/", 3).await, limit);

        let unsaid = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{long}");
        let (address, _serving) = server(&[unsaid]).await;
        assert_eq!(call(&address, "/", 3).await, limit);

        let (address, _serving) = server(&[answer("200 OK", "", &long[1..])]).await;
        assert_eq!(call(&address, "/", 3).await.map(|told| told.bytes), Ok(BODY_BYTES_MAX));
    }

    #[test]
    fn a_body_is_what_it_says_or_looks_like() {
        let value = |body: &[u8], kind| value_of(body.to_vec(), kind).map_err(|_| ());

        assert_eq!(value(b"{\"a\":1}", Some("application/problem+json")), Ok(json!({"a": 1})));
        assert_eq!(value(b"7", None), Ok(json!(7)));
        assert_eq!(value(b"7", Some("text/plain")), Ok(json!("7")));
        assert_eq!(value(b"{", Some("application/json")), Ok(json!("{")));
        assert_eq!(value(b"", Some("application/json")), Ok(Value::Null));
        assert_eq!(value(b"\xff", Some("text/plain")), Err(()));
    }

    #[tokio::test]
    async fn hosts_that_the_setting_does_not_name_are_refused() {
        let tools = Tools::asking(&["API.example.com", "[::1]:4000", "10.0.0.1:80"]);
        let ask =
            async |endpoint: &str| tools.try_call("api_caller", json!({"endpoint": endpoint, "retries": "0"})).await;
        let not_named = |host: &str| {
            refused(&format!("endpoint: expected a host that the setting mcp.api_hosts names, came {host:?}"))
        };

        assert_eq!(ask("http://localhost/?token=hush").await, not_named("localhost:80"));
        assert_eq!(ask("https://api.example.com.evil.example/").await, not_named("api.example.com.evil.example:443"));
        assert_eq!(ask("https://example.com/").await, not_named("example.com:443"));
        assert_eq!(ask("http://[::1]/").await, not_named("[::1]:80"));
        assert_eq!(ask("https://10.0.0.1/").await, not_named("10.0.0.1:443"));
        let none = Tools::new().try_call("api_caller", json!({"endpoint": "http://127.0.0.1:1/"})).await;
        assert_eq!(none, not_named("127.0.0.1:1"));
        let caller = Caller::new(&["API.example.com".to_owned(), "[::1]:4000".to_owned()], Duration::ZERO);
        for allowed in ["http://api.example.com:8080/", "https://API.EXAMPLE.com", "http://[0:0::1]:4000/a?b"] {
            assert!(caller.allowed(allowed).is_ok(), "{allowed}");
        }
    }

    #[tokio::test]
    async fn what_is_no_url_of_http_is_refused_and_not_repeated() {
        let tools = Tools::asking(&["a.example"]);
        let ask = async |endpoint: &str| tools.try_call("api_caller", json!({"endpoint": endpoint})).await;
        let unfit = |why: &str| refused(&format!("invalid arguments: endpoint: {why}"));

        let none = "expected a URL such as \"https://api.example.com/items\", came none";
        assert_eq!(ask("a.example/?token=hush").await, unfit(none));
        assert_eq!(ask("ftp://a.example/").await, unfit("expected a URL of http or https, came one of \"ftp\""));
        assert_eq!(ask("file:///etc/passwd").await, unfit("expected a URL of http or https, came one of \"file\""));
        let user = "expected a URL without user and password, came one with them";
        assert_eq!(ask("http://ann:hush@a.example/").await, unfit(user));
        assert_eq!(ask("http://ann@a.example/").await, unfit(user));
    }
}
