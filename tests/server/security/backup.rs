//! Backups of the store, made while the server runs and while none does; and looking a store over.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use bennu::mcp::deployment::Deployment;
use serde_json::json;

use super::credentials::operator_token;
use super::house::{Folder, Program};

fn bennu(arguments: &[&str]) -> (bool, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_bennu")).args(arguments).output().expect("the program starts");
    (status.success(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ASCII")
}

#[test]
fn a_backup_of_a_running_server_is_a_store_that_has_what_was_answered() {
    let program = Program::start("");
    let (id, _) = program.key("alice", "user");
    let config = program.folder.0.join("bennu.toml");
    let (backup, address) = (program.folder.0.join("backup.redb"), program.address.to_string());
    let flags = ["--config", text(&config), "--server-listen", &address];

    let (made, said) = bennu(&[&["store", "backup", text(&backup)], &flags[..]].concat());
    let (again, refused) = bennu(&[&["store", "backup", text(&backup)], &flags[..]].concat());
    let (checked, found) = bennu(&["store", "check", text(&backup)]);
    let (is_fine, in_use) = bennu(&[&["check"], &flags[..]].concat());

    assert!(made && said.contains("backup.redb: whole, format 2 by bennu") && said.contains("api_keys 1"), "{said}");
    assert!(!again && refused.contains("is there already"), "{refused}");
    assert!(checked && found == said, "{found}");
    assert!(is_fine && in_use.contains("in use, so it was not read"), "{in_use}");
    let left: Vec<_> =
        std::fs::read_dir(&program.folder.0).expect("a folder").map(|file| file.expect("a file").file_name()).collect();
    assert!(!left.iter().any(|name| text(Path::new(name)).contains(".new")), "{left:?}");
    let mode = std::fs::metadata(&backup).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it is its owner's alone");
    let audit = program.operate("GET", "audit?operation=store/backup", None).to_string();
    assert!(audit.contains("\"operation\":\"store/backup\""), "{audit}");

    // Restoring is putting the file in its place while no server runs.
    let folder = program.kill();
    std::fs::rename(&backup, folder.0.join("store.redb")).expect("renamed");
    let restored = Program::start_in(folder, "");
    let keys = restored.operate("GET", "keys", None);
    assert_eq!(keys["keys"][0]["id"], *id, "{keys}");
}

#[test]
fn only_who_may_have_the_store_gets_it() {
    let program = Program::start("roles.keeper = [\"admin:store\"]\n");
    let (_, keeper) = program.key("kim", "keeper");
    let (_, user) = program.key("uma", "user");

    let got = program.ask_as(&keeper, "GET", "store/backup", None);
    let denied = program.ask_as(&user, "GET", "store/backup", None);
    let unknown = program.ask_as("nobody", "GET", "store/backup", None);
    let wrong = program.ask_as(&operator_token(), "POST", "store/backup", None);

    assert_eq!(got.status, 200, "{}", got.head);
    assert_eq!(got.header("content-type"), Some("application/octet-stream"));
    assert_eq!(got.header("cache-control"), Some("no-store"));
    assert!(got.body.starts_with("redb"), "a file of redb");
    assert_eq!((denied.status, unknown.status, wrong.status), (403, 401, 405), "{denied:?} {unknown:?} {wrong:?}");
    assert!(denied.body.contains("Missing capability: admin:store"), "{}", denied.body);
}

#[test]
fn a_damaged_and_a_foreign_store_are_found_by_check() {
    let folder = Folder::new();
    let (store, config) = (folder.0.join("store.redb"), folder.0.join("bennu.toml"));
    std::fs::write(&config, format!("store.path = {store:?}\n")).expect("written");
    let flags = ["--config", text(&config)];
    let (none, said) = bennu(&[&["check"], &flags[..]].concat());
    assert!(none && !said.contains("redb"), "there is no file yet: {said}");
    let (made, key) = bennu(&[&["keys", "create", "--user", "alice"], &flags[..]].concat());
    assert!(made, "{key}");

    let (whole, said) = bennu(&[&["check"], &flags[..]].concat());
    let backup = folder.0.join("backup.redb");
    let (copied, copy) = bennu(&["store", "backup", text(&backup), "--path", text(&store)]);
    let mut bytes = std::fs::read(&store).expect("a store");
    let at = bytes.windows(5).position(|part| part == b"alice").expect("the key's user");
    bytes[at] ^= 1;
    std::fs::write(&store, &bytes).expect("written");
    let (is_whole, damage) = bennu(&[&["check"], &flags[..]].concat());
    let (checked, damage_again) = bennu(&["store", "check", text(&store)]);
    std::fs::write(&store, "a text").expect("written");
    let (is_store, foreign) = bennu(&[&["check"], &flags[..]].concat());
    std::fs::write(&store, "").expect("written");
    let (is_full, empty) = bennu(&[&["check"], &flags[..]].concat());
    // What can't be reached is not the same as what is not there.
    std::fs::write(&config, format!("store.path = {:?}\n", store.join("below.redb"))).expect("written");
    let (is_reached, unreachable) = bennu(&[&["check"], &flags[..]].concat());

    assert!(whole && said.contains("store.redb: whole, format 2"), "{said}");
    assert!(copied && copy.contains("backup.redb: whole") && copy.contains("api_keys 1"), "{copy}");
    assert!(!is_whole && damage.contains("store.redb is damaged"), "{damage}");
    assert!(!checked && damage_again.contains("is damaged"), "{damage_again}");
    assert!(!is_store && foreign.contains("is no store"), "{foreign}");
    assert!(!is_full && empty.contains("it is empty"), "{empty}");
    assert!(!is_reached && unreachable.contains("below.redb: Not a directory"), "{unreachable}");
}

#[test]
fn one_backup_is_sent_at_a_time_and_a_client_that_goes_makes_room_for_the_next() {
    let program = Program::start("");
    // More than the kernel takes for a client that reads nothing.
    for n in 0..32 {
        let message = json!({"payload": {"text": "x".repeat(1_000_000)}});
        program.operate("POST", &format!("queues/queue:{}/messages", n / 8), Some(&message));
    }
    let token = operator_token();

    let mut slow = TcpStream::connect(program.address).expect("it listens");
    let head = format!(
        "GET /admin/api/store/backup HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    slow.write_all(head.as_bytes()).expect("sent");
    let mut first = [0; 12];
    slow.read_exact(&mut first).expect("it begins to answer");
    let second = program.ask_as(&token, "GET", "store/backup", None);
    drop(slow);
    // The server sees that in its own time.
    let third = loop {
        let answer = program.ask_as(&token, "GET", "store/backup", None);
        if answer.status != 409 {
            break answer;
        }
    };

    assert_eq!(&first, b"HTTP/1.1 200");
    assert_eq!((second.status, third.status), (409, 200), "{second:?} {}", third.head);
    assert!(second.body.contains("another backup is being made"), "{}", second.body);
}

/// A backup by the program from a server that the test plays, at the moment when it has asked.
struct Asking {
    folder: Folder,
    child: Child,
    answer: TcpStream,
    /// Has the store, so that the program turns to the server.
    _store: (tokio::runtime::Runtime, Deployment),
}

impl Asking {
    fn begin() -> Self {
        let folder = Folder::new();
        let runtime = bennu::server::runtime(1).expect("a runtime starts");
        let store = runtime.block_on(Deployment::open(folder.0.join("store.redb"))).expect("a new store");
        let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (config, address) = (folder.0.join("bennu.toml"), server.local_addr().expect("it is bound"));
        let settings = format!("store.path = {:?}\nserver.listen = \"{address}\"\n", folder.0.join("store.redb"));
        std::fs::write(&config, settings).expect("written");
        let child = Command::new(env!("CARGO_BIN_EXE_bennu"))
            .args(["store", "backup", text(&folder.0.join("backup.redb")), "--config", text(&config)])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (answer, _) = server.accept().expect("it asks");
        let mut lines = BufReader::new(answer.try_clone().expect("another handle")).lines();
        let end = lines.find(|line| line.as_ref().expect("a line").is_empty());
        assert!(end.is_some(), "the end of the request");
        Asking { folder, child, answer, _store: (runtime, store) }
    }

    /// What is beside the store and the settings.
    fn left(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.folder.0).expect("a folder");
        let names = files.map(|file| file.expect("a file").file_name().into_string().expect("a text"));
        let mut names: Vec<_> = names.filter(|name| name != "store.redb" && name != "bennu.toml").collect();
        names.sort();
        names
    }
}

#[test]
fn a_backup_that_is_interrupted_leaves_nothing_behind() {
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let mut asking = Asking::begin();
        let under_way = asking.left();

        let id = asking.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().expect("kill starts").success());
        let ended = asking.child.wait().expect("it ends");

        assert_eq!(under_way, ["backup.redb.new-0"]);
        assert_eq!(ended.code(), Some(status), "{signal}");
        assert_eq!(asking.left(), [""; 0], "{signal}");
    }
}

#[test]
fn a_backup_takes_no_name_that_another_has_taken_meanwhile() {
    let mut asking = Asking::begin();
    let whole = Folder::new();
    let (store, config) = (whole.0.join("store.redb"), whole.0.join("bennu.toml"));
    std::fs::write(&config, format!("store.path = {store:?}\n")).expect("written");
    let (made, key) = bennu(&["keys", "create", "--user", "alice", "--config", text(&config)]);
    assert!(made, "{key}");
    let body = std::fs::read(&store).expect("a store");

    std::fs::write(asking.folder.0.join("backup.redb"), "of another").expect("written");
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    asking.answer.write_all(&[head.as_bytes(), &body].concat()).expect("sent");
    let mut said = String::new();
    asking.child.stderr.take().expect("it is piped").read_to_string(&mut said).expect("text");
    let ended = asking.child.wait().expect("it ends");

    assert!(!ended.success() && said.contains("is there already"), "{said}");
    assert_eq!(asking.left(), ["backup.redb"]);
    let kept = std::fs::read_to_string(asking.folder.0.join("backup.redb")).expect("a file");
    assert_eq!(kept, "of another");
}

#[test]
fn an_answer_without_a_byte_is_no_backup() {
    let mut asking = Asking::begin();

    asking.answer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("sent");
    let mut said = String::new();
    asking.child.stderr.take().expect("it is piped").read_to_string(&mut said).expect("text");
    let ended = asking.child.wait().expect("it ends");

    assert!(!ended.success() && said.contains("it is empty"), "{said}");
    assert_eq!(asking.left(), [""; 0]);
}
