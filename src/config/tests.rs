use std::collections::BTreeMap;

use super::*;

pub(super) const FILE: &str = "bennu.toml";
pub(super) const SECRET: &str = "s3cr3t-s3cr3t-s3cr3t-s3cr3t-s3cr3t-s3cr3t-s3cr3t-s3cr3t-s3cr3t-s3cr3t";

/// A disk of files in memory; a folder is a path that ends with a slash.
#[derive(Default)]
struct Imagined(BTreeMap<PathBuf, Vec<u8>>);

impl Files for Imagined {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn is_folder(&self, path: &Path) -> bool {
        path.as_os_str().as_encoded_bytes().ends_with(b"/")
    }
}

/// One case: what each source holds.
#[derive(Default)]
pub(super) struct Case<'a> {
    pub(super) file: Option<&'a str>,
    pub(super) env: &'a [(&'a str, &'a str)],
    pub(super) flags: &'a [(&'a str, &'a str)],
    pub(super) secret_file: Option<&'a [u8]>,
    pub(super) authenticator: bool,
}

impl Case<'_> {
    pub(super) fn load(&self) -> Result<Settings, Faults> {
        let owned =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        let mut disk = Imagined::default();
        disk.0.extend(self.file.map(|text| (FILE.into(), text.as_bytes().to_vec())));
        disk.0.extend(self.secret_file.map(|bytes| ("secret".into(), bytes.to_vec())));
        let sources = Sources {
            file: self.file.map(|_| FILE.into()),
            env: owned(self.env),
            flags: owned(self.flags),
            authenticator: self.authenticator,
        };
        load_with(&sources, &disk)
    }

    pub(super) fn faults(&self) -> String {
        self.load().expect_err("the case has a fault").to_string()
    }
}

pub(super) fn file(text: &str) -> Case<'_> {
    Case { file: Some(text), ..Case::default() }
}

pub(super) fn defaults() -> Settings {
    Case::default().load().expect("defaults have no fault")
}

#[test]
fn the_defaults_are_a_closed_development_server() {
    let settings = defaults();

    assert_eq!(settings.server.mode, Mode::Development);
    assert_eq!(settings.server.listen, "127.0.0.1:4000".parse().unwrap());
    assert_eq!(settings.server.connections_per_ip_max, 0);
    assert_eq!(settings.auth.method, AuthMethod::None);
    assert_eq!(settings.socket.check_origin, CheckOrigin::Host);
    assert_eq!(settings.mcp.search_root, None);
}

#[test]
fn a_flag_is_stronger_than_the_environment_than_the_file_than_the_default() {
    let mut case = Case::default();
    let mut timeouts = vec![case.load().unwrap().socket.idle_timeout_ms];

    case.file = Some("[socket]\nidle_timeout_ms = 1001");
    timeouts.push(case.load().unwrap().socket.idle_timeout_ms);
    case.env = &[("BENNU_SOCKET_IDLE_TIMEOUT_MS", "1_002"), ("PATH", "/bin")];
    timeouts.push(case.load().unwrap().socket.idle_timeout_ms);
    case.flags = &[("socket.idle_timeout_ms", "1003")];
    timeouts.push(case.load().unwrap().socket.idle_timeout_ms);

    assert_eq!(timeouts, [60_000, 1_001, 1_002, 1_003]);
}

#[test]
fn every_fault_of_every_source_is_reported_at_once() {
    let case = Case {
        file: Some(
            "listen = 1\n[server]\nmode = \"production\"\nlisten = \"localhost:4000\"\nworkers = 1.5\n\
             [socket]\nidle_timeout = 5\nframe_bytes_max = 1\ncompress = \"yes\"\n\
             [mpc]\ncompat = \"elixir\"\n[mcp]\nsearch_root = \"absent\"\n",
        ),
        env: &[("BENNU_LONGPOLL_WINDOW_MS", "soon"), ("BENNU_SERVER_LISTN", "127.0.0.1:1")],
        flags: &[("mcp.runs_max", "0"), ("socket.window_ms", "7")],
        ..Case::default()
    };

    let faults = case.faults();

    let expected = "\
bennu.toml:1: unknown key `listen`, the nearest known is `server.listen`
bennu.toml:4: `server.listen`: expected an IP address and a port such as \"127.0.0.1:4000\" or \"[::1]:4000\", came \"localhost:4000\"
bennu.toml:5: `server.workers`: expected a whole number of threads from 0 to 1024, came 1.5
bennu.toml:7: unknown key `socket.idle_timeout`, the nearest known is `socket.idle_timeout_ms`
bennu.toml:8: `socket.frame_bytes_max`: expected a whole number of bytes from 1024 to 1_073_741_824, came 1
bennu.toml:9: `socket.compress`: expected true or false, came \"yes\"
bennu.toml:11: unknown key `mpc.compat`, the nearest known is `mcp.compat`
BENNU_LONGPOLL_WINDOW_MS: `longpoll.window_ms`: expected a whole number of milliseconds from 10 to 600_000, came \"soon\"
BENNU_SERVER_LISTN: unknown variable `BENNU_SERVER_LISTN`, the nearest known is `BENNU_SERVER_LISTEN`
--mcp-runs-max: `mcp.runs_max`: expected a whole number of runs from 1 to 1_000_000, came \"0\"
--socket-window-ms: unknown key `socket.window_ms`, the nearest known is `longpoll.window_ms`
bennu.toml:3: `server.secret_key_base`: production needs a secret of at least 64 bytes: expected server.secret_key_base_file or server.secret_key_base, came neither
bennu.toml:13: `mcp.search_root`: expected a folder, came \"absent\"";
    assert_eq!(faults, expected);
}

#[test]
fn sections_and_values_that_are_swapped_are_told_apart() {
    let faults = file("server = 4000\n[[socket]]\n[chat]\n[mcp]\n[mcp.compat]\nx = 1").faults();

    let lines: Vec<&str> = faults.lines().collect();
    assert_eq!(lines.len(), 4, "{faults}");
    assert_eq!(lines[0], "bennu.toml:1: `server`: expected a section headed [server], came a single value");
    assert!(lines[1].starts_with("bennu.toml:2: `socket`: expected a section headed [socket]"), "{faults}");
    assert!(lines[2].starts_with("bennu.toml:3: unknown section `chat`, the nearest known is `"), "{faults}");
    assert_eq!(lines[3], "bennu.toml:5: `mcp.compat`: expected \"standard\" or \"elixir\", came a table");
}

#[test]
fn every_line_that_is_not_toml_is_reported_beside_the_other_faults() {
    let case = Case {
        env: &[("BENNU_SOCKET_COMPRESS", "on")],
        ..file(
            "[server]\nmode = production\nworkers = -1\nlog = \"unended\n[auth]\nmethod = \"none\"\nmethod = \"none\"\n",
        )
    };

    let faults = case.faults();

    let places: Vec<&str> = faults.lines().map(|line| line.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(
        places,
        ["bennu.toml:2", "bennu.toml:3", "bennu.toml:4", "bennu.toml:7", "BENNU_SOCKET_COMPRESS"],
        "{faults}"
    );
}

#[test]
fn a_file_that_is_named_but_missing_is_a_fault_beside_the_others() {
    let sources = Sources {
        file: Some("absent.toml".into()),
        flags: vec![("server.workers".to_owned(), "many".to_owned())],
        ..Sources::default()
    };

    let faults = load_with(&sources, &Imagined::default()).unwrap_err().to_string();

    let lines: Vec<&str> = faults.lines().collect();
    assert_eq!(lines.len(), 2, "{faults}");
    assert!(lines[0].starts_with("absent.toml: expected a file that can be read: "), "{faults}");
    assert!(lines[1].starts_with("--server-workers: "), "{faults}");
}

#[test]
fn a_faulty_value_that_a_stronger_source_covers_is_still_a_fault() {
    let case = Case { flags: &[("server.workers", "1")], ..file("[server]\nworkers = \"all\"") };

    assert!(case.faults().starts_with("bennu.toml:2: `server.workers`"));
}

#[test]
fn development_listens_on_loopback_and_answers_to_local_names_only() {
    for address in ["0.0.0.0:4000", "[::]:4000", "192.168.1.2:4000"] {
        let case = Case { env: &[("BENNU_SERVER_LISTEN", address)], ..Case::default() };

        let faults = case.faults();

        assert!(faults.starts_with("BENNU_SERVER_LISTEN: `server.listen`: the development setting"), "{faults}");
        assert!(faults.contains(address), "{faults}");
    }
    let faults = file("[server]\nhost = \"chat.example.com\"").faults();
    assert!(faults.starts_with("bennu.toml:2: `server.host`: the development setting"), "{faults}");
    for address in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(Case { flags: &[("server.listen", address)], ..Case::default() }.load().is_ok(), "{address}");
    }
}

#[test]
fn an_outbox_has_to_hold_a_runs_events() {
    let faults = file("[mcp]\nrun_bytes_max = 2_097_152").faults();

    assert!(
        faults.contains("`socket.outbox_bytes_max`: expected more than mcp.run_bytes_max (2097152 bytes)"),
        "{faults}"
    );
    assert!(faults.contains("`longpoll.buffer_bytes_max`: expected more"), "{faults}");
}

#[test]
fn durable_sessions_need_a_store_and_a_secret() {
    let mut case = Case { file: Some("[mcp]\nsession_durability = \"durable\""), ..Case::default() };
    assert_eq!(
        case.faults(),
        "bennu.toml:2: `store.path`: expected a file, for mcp.session_durability = \"durable\", came none\n\
         bennu.toml:2: `server.secret_key_base`: expected a secret, for mcp.session_durability = \"durable\", came none"
    );
    case.env = &[("BENNU_STORE_PATH", "bennu.redb"), ("BENNU_SERVER_SECRET_KEY_BASE", SECRET)];
    assert_eq!(case.load().expect("it has both").mcp.session_durability, SessionDurability::Durable);
}

#[test]
fn production_needs_a_secret_and_authentication_and_then_listens_anywhere() {
    let mut case = Case {
        file: Some("[server]\nmode = \"production\"\nlisten = \"0.0.0.0:443\"\nhost = \"chat.example.com\""),
        ..Case::default()
    };
    assert_eq!(case.faults().lines().count(), 1);
    case.env = &[("BENNU_AUTH_METHOD", "none"), ("BENNU_AUTH_TEST_KEY", "true")];
    assert_eq!(
        case.faults(),
        "bennu.toml:2: `server.secret_key_base`: production needs a secret of at least 64 bytes: expected \
         server.secret_key_base_file or server.secret_key_base, came neither\n\
         BENNU_AUTH_TEST_KEY: `auth.test_key`: expected false in production, came true\n\
         BENNU_AUTH_METHOD: `auth.method`: production needs authentication: expected \"builtin\" or \"module\", came \"none\""
    );

    case.env = &[("BENNU_SERVER_SECRET_KEY_BASE", SECRET)];
    let settings = case.load().expect("production has what it needs");

    assert_eq!((settings.server.mode, settings.auth.method), (Mode::Production, AuthMethod::Builtin));
    assert!(settings.limits.enabled && settings.audit.enabled);
    assert_eq!(settings.server.connections_per_ip_max, 1_000);
    assert_eq!(settings.server.secret_key_base.as_ref().map(Secret::expose), Some(SECRET));
}

#[test]
fn roles_are_read_in_their_order_and_judged() {
    let settings =
        file("[roles]\nops = [\"tools:*\", \"!tools:call:rm\"]\nnobody = []\n[auth]\ndefault_role = \"nobody\"");
    let settings = settings.load().expect("the roles are well formed");
    let mut roles = settings.roles;
    roles.sort();
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(roles, [("nobody".to_owned(), texts(&[])), ("ops".to_owned(), texts(&["tools:*", "!tools:call:rm"]))]);

    let faults = file("[roles]\na = \"tools:*\"\nb = [1]\nc = [\"tools*:x\"]\n\"d e\" = []").faults();
    let lines: Vec<_> = faults.lines().collect();
    assert_eq!(lines.len(), 4, "{faults}");
    for (line, said) in lines.iter().zip(["`roles.a`", "`roles.b`", "`roles.c`", "`roles`"]) {
        assert!(line.contains(said), "{faults}");
    }
    let unknown = file("[auth]\ndefault_role = \"king\"").faults();
    assert!(unknown.starts_with("bennu.toml:2: `auth.default_role`: expected the name of a role"), "{unknown}");
}

#[test]
fn lists_of_the_way_in_take_what_they_say() {
    let taken = file(
        "[access]\nallow = [\"10.0.0.0/8\", \"10.0.*.*\", \"2001:db8::/32\", \"::1\"]\n[limits]\ncosts = [\"tools/call=7\"]",
    );
    assert!(taken.load().is_ok());
    for wrong in ["10.0.0.0/33", "10.*.0.1", "host", "", "10.0.0", "2001:db8::/129"] {
        let faults = file(&format!("[access]\ndeny = [{wrong:?}]")).faults();
        assert!(faults.contains("`access.deny`: expected a list, each item an address"), "{wrong}: {faults}");
    }
    for wrong in ["tools/call", "=1", "tools/call=-1"] {
        let faults = file(&format!("[limits]\ncosts = [{wrong:?}]")).faults();
        assert!(faults.contains("`limits.costs`"), "{wrong}: {faults}");
    }
    for wrong in ["mcp:x", "status:*", "*", "a*b", ""] {
        let faults = file(&format!("[topics]\npatterns = [{wrong:?}]")).faults();
        assert!(faults.contains("`topics.patterns`"), "{wrong}: {faults}");
    }
}

#[test]
fn tls_takes_a_certificate_and_its_key_or_neither() {
    let both = file("[tls]\ncertificate_file = \"tls/chain.pem\"\nkey_file = \"tls/key.pem\"").load().unwrap();
    assert_eq!(both.tls.certificate_file, Some("tls/chain.pem".into()));
    assert_eq!(both.tls.key_file, Some("tls/key.pem".into()));
    assert_eq!(defaults().tls.certificate_file, None);

    let of_one = [
        ("[tls]\ncertificate_file = \"c\"", "`tls.key_file`: expected it beside `tls.certificate_file`, or neither"),
        ("[tls]\nkey_file = \"k\"", "`tls.certificate_file`: expected it beside `tls.key_file`, or neither"),
    ];
    for (text, expected) in of_one {
        let faults = file(text).faults();
        assert!(faults.starts_with(&format!("bennu.toml:2: {expected}")), "{faults}");
        assert_eq!(faults.lines().count(), 1, "{faults}");
    }
}

#[test]
fn a_program_without_an_authenticator_says_so() {
    let faults = file("[auth]\nmethod = \"module\"").faults();

    assert!(faults.starts_with("bennu.toml:2: `auth.method`: expected an authenticator"), "{faults}");
    assert!(Case { authenticator: true, ..file("[auth]\nmethod = \"module\"") }.load().is_ok());
}

#[test]
fn the_secret_may_come_from_a_file_whose_line_end_is_dropped() {
    let line = format!("{SECRET}\r\n");
    let case = Case { secret_file: Some(line.as_bytes()), ..file("[server]\nsecret_key_base_file = \"secret\"") };

    let settings = case.load().expect("the secret is long enough");

    assert_eq!(settings.server.secret_key_base.as_ref().map(Secret::expose), Some(SECRET));
}

#[test]
fn a_secret_file_that_is_absent_short_or_binary_is_a_fault() {
    let cases: [(Option<&[u8]>, &str); 3] = [
        (None, "expected a file that can be read"),
        (Some(b"hush\n"), "came one of 4 bytes"),
        (Some(&[0xff; 80]), "came bytes that are not UTF-8"),
    ];
    for (secret_file, said) in cases {
        let faults = Case { secret_file, ..file("[server]\nsecret_key_base_file = \"secret\"") }.faults();

        assert!(faults.starts_with("bennu.toml:2: `server.secret_key_base_file`: "), "{faults}");
        assert!(faults.contains(said) && !faults.contains("hush"), "{faults}");
    }
}

#[test]
fn of_the_secret_and_its_file_the_stronger_source_counts_and_one_source_gives_one() {
    let other = "f".repeat(SECRET_BYTES_MIN);
    let mut case = Case {
        secret_file: Some(other.as_bytes()),
        env: &[("BENNU_SERVER_SECRET_KEY_BASE", SECRET)],
        ..file("[server]\nsecret_key_base_file = \"secret\"")
    };
    assert_eq!(case.load().unwrap().server.secret_key_base.unwrap().expose(), SECRET);

    case.flags = &[("server.secret_key_base_file", "secret")];
    assert_eq!(case.load().unwrap().server.secret_key_base.unwrap().expose(), other);

    case.flags = &[("server.secret_key_base_file", "secret"), ("server.secret_key_base", SECRET)];
    assert!(case.faults().contains("came both from one source"));
}

#[test]
fn no_fault_and_no_debug_text_shows_a_secret() {
    let unquoted = format!("[server]\nsecret_key_base = {SECRET}\n");
    let misspelt = format!("[server]\nsecret_key_bsae = \"{SECRET}\"\n");
    let listed = format!("[server]\nsecret_key_base = [\"{SECRET}\"]\n");
    let unended = format!("[server]\nsecret_key_base = \"{SECRET}\n");
    let mut texts: Vec<String> = [unquoted, misspelt, listed, unended].iter().map(|text| file(text).faults()).collect();
    texts.push(Case { env: &[("BENNU_SERVER_SECRET_KEY_BASE", &SECRET[..20])], ..Case::default() }.faults());
    texts.push(Case { env: &[("BENNU_SERVER_SECRET_KEY_BSE", SECRET)], ..Case::default() }.faults());
    texts.push(Case { flags: &[("server.secret_key_base", &SECRET[..20])], ..Case::default() }.faults());
    let settings = Case { flags: &[("server.secret_key_base", SECRET)], ..Case::default() }.load().unwrap();
    texts.push(format!("{settings:?} {settings:#?}"));

    for text in texts {
        assert!(!text.contains("s3cr3t"), "{text}");
    }
}

#[test]
fn unknown_variables_are_faults_but_for_what_an_orchestrator_sets() {
    let case = Case {
        env: &[
            ("BENNU_CONFIG", FILE),
            ("BENNU_PORT", "tcp://10.0.0.1:4000"),
            ("BENNU_PORT_4000_TCP_ADDR", "10.0.0.1"),
            ("BENNU_SERVICE_HOST", "10.0.0.1"),
            ("BENNU_SERVICE_PORT_HTTP", "4000"),
            ("OTHER", "1"),
        ],
        ..Case::default()
    };
    assert!(case.load().is_ok());

    for name in ["BENNU_LISTEN", "BENNU_", "BENNU_PORT", "BENNU_PORT_LISTEN", "BENNU_server_listen"] {
        let faults = Case { env: &[(name, "4000")], ..Case::default() }.faults();
        assert!(faults.starts_with(&format!("{name}: unknown variable `{name}`")), "{faults}");
    }
}

#[test]
fn origins_come_as_a_word_a_list_or_a_text_with_commas() {
    let origins = |text: &[&str]| CheckOrigin::Origins(text.iter().map(|text| text.to_string()).collect());
    let cases = [
        ("\"off\"", CheckOrigin::Off),
        ("\"conn\"", CheckOrigin::Conn),
        ("[\"https://a.example\", \"//*.b.example\"]", origins(&["https://a.example", "//*.b.example"])),
    ];
    for (value, expected) in cases {
        assert_eq!(file(&format!("[socket]\ncheck_origin = {value}")).load().unwrap().socket.check_origin, expected);
    }
    let case = Case { env: &[("BENNU_SOCKET_CHECK_ORIGIN", "https://a.example,//b.example")], ..Case::default() };
    assert_eq!(case.load().unwrap().socket.check_origin, origins(&["https://a.example", "//b.example"]));

    let faults = file("[socket]\ncheck_origin = [\"https://a.example\", \"b.example\", 3]").faults();
    assert!(faults.ends_with("came [\"https://a.example\", \"b.example\", 3]"), "{faults}");
}

#[test]
fn hosts_to_ask_come_as_a_list_or_a_text_with_commas_and_may_be_none() {
    let hosts = |case: &Case| case.load().unwrap().mcp.api_hosts;
    let some = |hosts: &[&str]| Some(hosts.iter().map(|host| host.to_string()).collect());

    assert_eq!(hosts(&Case::default()), None);
    assert_eq!(hosts(&file("[mcp]\napi_hosts = []")), some(&[]));
    let case = Case { flags: &[("mcp.api_hosts", "api.example.com,[::1]:4000")], ..Case::default() };
    assert_eq!(hosts(&case), some(&["api.example.com", "[::1]:4000"]));
    let faults = file("[mcp]\napi_hosts = [\"a.example\", \"https://b.example\"]").faults();
    assert!(faults.ends_with("came one whose item 2 is \"https://b.example\""), "{faults}");
}

#[test]
fn the_settings_file_is_the_flags_then_the_variables() {
    let env = [(FILE_VARIABLE.to_owned(), "b.toml".to_owned())];

    assert_eq!(default_path(Some(Path::new("a.toml")), &env), Some("a.toml".into()));
    assert_eq!(default_path(None, &env), Some("b.toml".into()));
}

#[test]
fn names_are_unique_and_tell_sections_and_flags_apart() {
    let mut variables: Vec<String> = TABLE.iter().map(table::Setting::variable).collect();
    variables.sort();
    variables.dedup();

    assert_eq!(variables.len(), TABLE.len());
    assert!(TABLE.iter().all(|setting| !setting.section().contains('_')));
}

/// Compares a document with what the table says, or rewrites it where `BLESS` is set.
fn check_document(path: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, expected).expect("the document can be written");
    }

    let text = std::fs::read_to_string(&path).expect("the document can be read");

    let path = path.display();
    assert!(text == expected, "{path} differs from the table: BLESS=1 cargo test --lib config writes it");
}

#[test]
fn the_list_of_settings_is_that_of_the_table() {
    check_document("docs/settings.md", &listing::markdown());
}

#[test]
fn the_example_is_that_of_the_table_and_holds_the_defaults() {
    check_document("bennu.example.toml", &listing::example());

    assert_eq!(file(&listing::example()).load().expect("the example has no fault"), defaults());
}
