//! A server in this process whose way in is the one that Bennu brings along; and the program, as operators run it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bennu::auth::jwt::{Algorithm, JwtOptions, LocalKey};
use bennu::channel::LongPollOptions;
use bennu::mcp::deployment::Deployment;
use bennu::mcp::{Mcp, McpServer, Tool, tools, workflow_tools};
use bennu::security::{SecretText, Security, SecurityOptions};
use bennu::server::Running;
use bennu::{Endpoint, Server};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::credentials::{JWT_SECRET, SECRET, operator_token, query, socket_token};
use super::http::{Answer, ask};
use crate::mcp::peer::Peer;

/// A folder of the test's own, removed at its end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("bennu-security-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).expect("a new name in the folder for such");
        Folder(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path of ASCII").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The server in this process.
pub struct House {
    running: Option<Running>,
    runtime: Runtime,
    deployment: Deployment,
    /// Of [`House::with_keys`].
    _folder: Option<Folder>,
}

/// The public key that RS256 is verified with.
pub fn pem() -> String {
    let path = format!("{}/tests/fixtures/jwt/rsa.pub.pem", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("the fixture is there")
}

impl House {
    /// With tokens of both kinds, and the limits on addresses and rates off: all of a test come from one address.
    pub fn new(change: impl FnOnce(&mut SecurityOptions)) -> Self {
        let runtime = bennu::server::runtime(2).expect("a runtime starts");
        Self::of(runtime, Deployment::in_memory(), None, change)
    }

    /// With an API key for each of these users and roles; gives their texts.
    pub fn with_keys(keys: &[(&str, &str)], change: impl FnOnce(&mut SecurityOptions)) -> (Self, Vec<String>) {
        let folder = Folder::new();
        let (store, file) = (folder.path("store.redb"), folder.path("bennu.toml"));
        std::fs::write(&file, format!("store.path = {store:?}\n")).expect("the folder takes it");
        let texts: Vec<String> = keys
            .iter()
            .map(|(user, role)| {
                let flags = ["keys", "create", "--config", &file, "--user", user, "--role", role];
                let made = Command::new(env!("CARGO_BIN_EXE_bennu")).args(flags).output().expect("the program starts");
                let (out, error) = (String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
                assert!(made.status.success(), "{out}{error}");
                out.trim().to_owned()
            })
            .collect();
        let runtime = bennu::server::runtime(2).expect("a runtime starts");
        let deployment = runtime.block_on(Deployment::open(&store)).expect("the store that was made above");
        (Self::of(runtime, deployment, Some(folder), change), texts)
    }

    fn of(
        runtime: Runtime,
        deployment: Deployment,
        folder: Option<Folder>,
        change: impl FnOnce(&mut SecurityOptions),
    ) -> Self {
        let guard = runtime.enter();
        let endpoint = Endpoint::start();
        let mut options = SecurityOptions::default();
        options.secret_key_base = Some(SecretText::new(SECRET));
        options.jwt = Some(JwtOptions {
            algorithms: vec![Algorithm::HS256, Algorithm::RS256],
            keys: vec![LocalKey::Secret(JWT_SECRET.as_bytes().to_vec()), LocalKey::Pem(pem())],
            leeway_s: 0,
            ..JwtOptions::default()
        });
        options.rates = None;
        options.attempts.attempts_max = 0;
        options.locking.failures_max = 0;
        change(&mut options);
        let security =
            runtime.block_on(Security::start(&endpoint, &deployment, options)).expect("the options are good");
        let echo = |arguments: Map<String, Value>, _| async move { Ok(Value::Object(arguments)) };
        let echo = Tool::untyped("echo", json!({"type": "object"}), echo);
        let server = McpServer::builder("bennu").tools(tools::builtin(None)).tool(echo).tools(workflow_tools());
        let server = deployment.add_to(server).build().expect("a server");
        let other = McpServer::builder("other").build().expect("a server");
        let mcp = Mcp::builder(&endpoint, security.mcp()).deployment(&deployment).server(server).server(other);
        let mcp = mcp.build().expect("servers of two names");
        let socket = mcp.routes(endpoint.socket("/socket")).options(|options| {
            options.auth_token = true;
            options.longpoll = Some(LongPollOptions::default());
        });
        let socket = security.socket(socket, &["room:*", "bennu:*", "user_socket:*"].map(str::to_owned));
        let running = Server::new(&endpoint).socket(socket).mcp(&mcp).listen(([127, 0, 0, 1], 0));
        drop(guard);
        let running = Some(running.expect("a free port of 127.0.0.1"));
        House { running, runtime, deployment, _folder: folder }
    }

    pub fn address(&self) -> SocketAddr {
        self.running.as_ref().expect("it runs until it is dropped").address()
    }

    /// A socket of that user.
    pub fn socket(&self, user: &str) -> Peer {
        socket(self.address(), user)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        drop(self.running.take());
        self.runtime.block_on(self.deployment.close());
    }
}

/// A socket of that user, by a token.
pub fn socket(server: SocketAddr, user: &str) -> Peer {
    Peer::open(server, &format!("vsn=2.0.0&token={}", query(&socket_token(user))))
}

/// The join of an MCP session, with a credential under that key.
pub fn join(key: &str, credential: &str) -> Value {
    json!({"clientInfo": {"name": "test", "version": "1"}, key: credential})
}

/// The program in the production setting.
pub struct Program {
    child: Child,
    pub address: SocketAddr,
    /// What it has written to standard error.
    log: Arc<Mutex<String>>,
    pub folder: Folder,
}

impl Program {
    /// With further settings, as dotted keys of TOML: limits are off but for those.
    pub fn start(settings: &str) -> Self {
        Self::start_in(Folder::new(), settings)
    }

    /// The same in a folder that may have the store of another.
    pub fn start_in(folder: Folder, settings: &str) -> Self {
        let given = |key: &str| settings.lines().any(|line| line.trim_start().starts_with(key));
        let mut text = String::new();
        for (key, value) in [
            ("server.mode", "\"production\"".to_owned()),
            ("server.listen", "\"127.0.0.1:0\"".to_owned()),
            ("server.host", "\"localhost\"".to_owned()),
            ("server.secret_key_base", format!("{SECRET:?}")),
            ("server.shutdown_delay_ms", "0".to_owned()),
            ("store.path", format!("{:?}", folder.path("store.redb"))),
            ("jwt.algorithms", "[\"HS256\"]".to_owned()),
            ("jwt.secret", format!("{JWT_SECRET:?}")),
            ("jwt.leeway_s", "0".to_owned()),
            ("access.attempts_per_minute", "0".to_owned()),
            ("access.failures_max", "0".to_owned()),
            ("limits.enabled", "false".to_owned()),
            ("audit.folder", format!("{:?}", folder.path("audit"))),
        ] {
            if !given(key) {
                text += &format!("{key} = {value}\n");
            }
        }
        let file = folder.path("bennu.toml");
        std::fs::write(&file, text + settings).expect("the folder takes it");
        let mut command = Command::new(env!("CARGO_BIN_EXE_bennu"));
        command.args(["serve", "--config", &file]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut stderr = child.stderr.take().expect("stderr is piped above");
        let log = Arc::<Mutex<String>>::default();
        let writing = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut chunk = vec![0; 65_536];
            while let Ok(count @ 1..) = stderr.read(&mut chunk) {
                writing.lock().expect("no panic").push_str(&String::from_utf8_lossy(&chunk[..count]));
            }
        });
        let stdout = child.stdout.take().expect("stdout is piped above");
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix("listening on ").map(str::to_owned));
        let address = address.unwrap_or_else(|| panic!("it says where it listens: {}", log.lock().expect("no panic")));
        // Whatever else it says is read, so that it never waits.
        std::thread::spawn(move || lines.for_each(drop));
        Program { child, address: address.parse().expect("an address"), log, folder }
    }

    /// A socket of that user.
    pub fn socket(&self, user: &str) -> Peer {
        socket(self.address, user)
    }

    /// Asks the operator's interface with that bearer token.
    pub fn ask_as(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", &*bearer), ("Content-Type", "application/json")];
        let body = body.map(Value::to_string);
        ask(self.address, method, &format!("/admin/api/{path}"), &headers, body.as_deref().map(str::as_bytes))
    }

    /// Asks it as the operator of this machine, who has to be served.
    #[track_caller]
    pub fn operate(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let answer = self.ask_as(&operator_token(), method, path, body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Makes an API key; gives its id and its text.
    #[track_caller]
    pub fn key(&self, user: &str, role: &str) -> (String, String) {
        let made = self.operate("POST", "keys", Some(&json!({"user": user, "roles": [role]})));
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("a text: {made}")).to_owned();
        (text(&made["record"]["id"]), text(&made["key"]))
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }

    /// Kills it; gives its folder.
    pub fn kill(mut self) -> Folder {
        self.end();
        std::mem::replace(&mut self.folder, Folder::new())
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}
