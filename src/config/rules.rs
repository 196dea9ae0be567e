//! What settings demand of each other and of the machine: the development and the production rules.
//!
//! A setting whose value is faulty has its fault already; rules that need it are passed over.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::Value;

use super::Files;
use super::fault::{Fault, Place, Problem};
use super::kind::{Kind, shown};
use super::layers::Layers;
use super::settings::{LOCAL_HOSTS, SECRET_BYTES_MIN, TABLE};
use super::table::Setting;
use crate::protocol::policy::Roles;

/// The settings as they hold: given or default, each with its place.
///
/// Has no `Debug`: it holds secrets.
pub(super) struct Held<'a> {
    layers: &'a Layers,
    production: Option<bool>,
}

impl<'a> Held<'a> {
    pub(super) fn new(layers: &'a Layers) -> Held<'a> {
        let mut held = Held { layers, production: None };
        held.production = held.text("server.mode").map(|mode| mode == "production");
        held
    }

    /// Returns a setting's value; `None` where it is unset or faulty.
    pub(super) fn value(&self, setting: &Setting) -> Option<Value> {
        if let Some(found) = self.layers.find(setting.key) {
            return found.value.clone();
        }
        setting.default(self.production == Some(true))
    }

    fn text(&self, key: &str) -> Option<String> {
        let setting = Setting::find(key).expect("rules name rows of the table");
        self.value(setting)?.as_str().map(str::to_owned)
    }

    pub(super) fn number(&self, key: &str) -> Option<i64> {
        let setting = Setting::find(key).expect("rules name rows of the table");
        self.value(setting)?.as_integer()
    }

    fn switch(&self, key: &str) -> Option<bool> {
        let setting = Setting::find(key).expect("rules name rows of the table");
        self.value(setting)?.as_bool()
    }

    pub(super) fn place(&self, key: &str) -> Place {
        self.layers.find(key).map_or(Place::Default, |found| found.place.clone())
    }

    fn is_given(&self, key: &str) -> bool {
        self.layers.find(key).is_some()
    }
}

/// Judges the rules between settings.
pub(super) fn judge(held: &Held<'_>, authenticator: bool, files: &dyn Files, faults: &mut Vec<Fault>) {
    match held.production {
        Some(true) => judge_production(held, faults),
        Some(false) => judge_development(held, faults),
        None => {}
    }
    if held.text("auth.method").as_deref() == Some("module") && !authenticator {
        faults.push(Fault { place: held.place("auth.method"), problem: Problem::NoAuthenticator });
    }
    if let Some(came) = held.text("auth.default_role")
        && !Roles::default().contains(&came)
        && !held.layers.roles().iter().any(|(role, _)| *role == came)
    {
        let expected = "the name of a role: one that is built in, or of [roles]".to_owned();
        let problem = Problem::Value { key: "auth.default_role".to_owned(), expected, came: shown(&came) };
        faults.push(Fault { place: held.place("auth.default_role"), problem });
    }
    if held.text("mcp.session_durability").as_deref() == Some("durable") {
        let needed = |keys: &[&str]| !keys.iter().any(|key| held.is_given(key));
        let needs = [
            ("store.path", "a file", needed(&["store.path"])),
            ("server.secret_key_base", "a secret", needed(&["server.secret_key_base", "server.secret_key_base_file"])),
        ];
        for (key, what, _) in needs.into_iter().filter(|(_, _, is_missing)| *is_missing) {
            let expected = format!("{what}, for mcp.session_durability = \"durable\"");
            let problem = Problem::Value { key: key.to_owned(), expected, came: "none".to_owned() };
            faults.push(Fault { place: held.place("mcp.session_durability"), problem });
        }
    }
    let (certificate, key) = ("tls.certificate_file", "tls.key_file");
    for (given, missing) in [(certificate, key), (key, certificate)] {
        if held.is_given(given) && !held.is_given(missing) {
            faults.push(Fault { place: held.place(given), problem: Problem::HalfOfTls { given, missing } });
        }
    }
    for key in ["socket.outbox_bytes_max", "longpoll.buffer_bytes_max"] {
        if let (Some(came), Some(run_bytes)) = (held.number(key), held.number("mcp.run_bytes_max"))
            && came <= run_bytes
        {
            faults.push(Fault { place: held.place(key), problem: Problem::BelowRun { key, run_bytes, came } });
        }
    }
    for setting in TABLE {
        if let (Kind::Folder, Some(path)) = (setting.kind, held.text(setting.key))
            && !files.is_folder(Path::new(&path))
        {
            let problem = Problem::NoFolder { key: setting.key.to_owned(), came: path };
            faults.push(Fault { place: held.place(setting.key), problem });
        }
    }
}

fn judge_development(held: &Held<'_>, faults: &mut Vec<Fault>) {
    if let Some(came) = held.text("server.listen") {
        let address: SocketAddr = came.parse().expect("Kind::Address parsed it");
        if !address.ip().to_canonical().is_loopback() {
            let problem = Problem::ListenBeyondLoopback { came };
            faults.push(Fault { place: held.place("server.listen"), problem });
        }
    }
    if let Some(came) = held.text("server.host")
        && !LOCAL_HOSTS.contains(&came.to_ascii_lowercase().as_str())
    {
        faults.push(Fault { place: held.place("server.host"), problem: Problem::HostBeyondLocal { came } });
    }
}

fn judge_production(held: &Held<'_>, faults: &mut Vec<Fault>) {
    if !held.is_given("server.secret_key_base") && !held.is_given("server.secret_key_base_file") {
        let problem = Problem::SecretMissing { bytes_min: SECRET_BYTES_MIN };
        faults.push(Fault { place: held.place("server.mode"), problem });
    }
    if held.switch("auth.test_key") == Some(true) {
        faults.push(Fault { place: held.place("auth.test_key"), problem: Problem::TestKey });
    }
    if held.text("auth.method").as_deref() == Some("none") {
        let needed_by = if held.is_given("auth.method") { "auth.method" } else { "server.mode" };
        faults.push(Fault { place: held.place(needed_by), problem: Problem::AuthenticationMissing });
    }
}

/// Returns the secret from the stronger of its two settings, reading the file where that is the one.
pub(super) fn secret(held: &Held<'_>, files: &dyn Files, faults: &mut Vec<Fault>) -> Option<String> {
    let from_file = held.place("server.secret_key_base_file");
    match strength(&held.place("server.secret_key_base")).cmp(&strength(&from_file)) {
        std::cmp::Ordering::Greater => held.text("server.secret_key_base"),
        std::cmp::Ordering::Equal => {
            if from_file != Place::Default {
                faults.push(Fault { place: from_file, problem: Problem::SecretTwice });
            }
            None
        }
        std::cmp::Ordering::Less => {
            let path = PathBuf::from(held.text("server.secret_key_base_file")?);
            match secret_from_file(&path, files) {
                Ok(secret) => Some(secret),
                Err(problem) => {
                    faults.push(Fault { place: from_file, problem });
                    None
                }
            }
        }
    }
}

fn strength(place: &Place) -> u8 {
    match place {
        Place::Default => 0,
        Place::File { .. } => 1,
        Place::Environment(_) => 2,
        Place::Flag(_) => 3,
    }
}

fn secret_from_file(path: &Path, files: &dyn Files) -> Result<String, Problem> {
    let bytes = files.read(path).map_err(Problem::SecretFileUnreadable)?;
    let too_little = |came: String| Problem::SecretFile { bytes_min: SECRET_BYTES_MIN, came };
    let text = String::from_utf8(bytes).map_err(|_| too_little("bytes that are not UTF-8".to_owned()))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.len() < SECRET_BYTES_MIN {
        return Err(too_little(format!("one of {} bytes", secret.len())));
    }
    Ok(secret.to_owned())
}
