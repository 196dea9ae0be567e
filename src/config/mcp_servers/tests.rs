use super::*;
use crate::config::settings::Secret;
use crate::config::tests::{Case, file};

/// Loads a file that has no fault.
fn servers(text: &str) -> Vec<McpServerSettings> {
    file(text).load().unwrap_or_else(|faults| panic!("{faults}")).mcp_servers
}

/// Checks what each line of the faults begins with, after the file's name, and the line as a whole where `expected` is all of it.
fn check_faults(text: &str, expected: &[&str]) {
    let faults = file(text).faults();

    let lines: Vec<&str> = faults.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{faults}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(&format!("bennu.toml:{expected}")), "expected {expected:?}, came {line:?}");
    }
}

fn exposed(pairs: &[(String, Secret)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, secret)| (name.as_str(), secret.expose())).collect()
}

#[test]
fn a_program_is_read_with_all_that_is_set_for_it() {
    let servers = servers(
        "[mcp.servers.files]\ncommand = \"node\"\nargs = [\"server.js\", \"\"]\nenv = { ZED = \"1\", ABLE = \"\" }\n\
         pass_env = [\"PATH\"]\ncwd = \"srv/\"\nera = \"legacy\"\ninstances = \"session\"\nstart = \"boot\"\n\
         instances_max = 2\nhang_timeout_ms = 0\nmessage_bytes_max = 2_097_151\n",
    );

    let [McpServerSettings { name, transport: McpServerTransport::Stdio(stdio), options }] = &servers[..] else {
        panic!("{servers:?}");
    };
    assert_eq!(name, "files");
    assert_eq!((stdio.command.as_str(), &stdio.args[..]), ("node", &["server.js".to_owned(), String::new()][..]));
    assert_eq!(exposed(&stdio.env), [("ZED", "1"), ("ABLE", "")]);
    assert_eq!(stdio.pass_env, ["PATH"]);
    assert_eq!(stdio.cwd.as_deref(), Some("srv/".as_ref()));
    assert_eq!(
        (options.era, options.instances, options.start),
        (McpEra::Legacy, McpInstances::Session, McpStart::Boot)
    );
    assert_eq!((options.instances_max, options.hang_timeout_ms, options.message_bytes_max), (2, 0, 2_097_151));
}

#[test]
fn a_url_is_read_with_headers_from_file_and_environment() {
    let text = "[mcp.servers.remote]\nurl = \"https://host/mcp\"\nheaders = { X-Key = \"k\" }\n\
                headers_env = { Authorization = \"REMOTE_AUTH\" }\nuse_proxy = true\n";

    let settings = Case { env: &[("REMOTE_AUTH", "Bearer abc")], ..file(text) }.load().expect("the file has no fault");

    let McpServerTransport::Http(http) = &settings.mcp_servers[0].transport else {
        panic!("{settings:?}");
    };
    assert_eq!(http.url, "https://host/mcp");
    assert_eq!(exposed(&http.headers), [("X-Key", "k"), ("Authorization", "Bearer abc")]);
    assert_eq!((http.follow_redirects, http.use_proxy), (false, true));
}

#[test]
fn what_is_not_given_is_the_default() {
    let servers = servers("[mcp.servers.files]\ncommand = \"node\"\n");

    let McpServerTransport::Stdio(stdio) = &servers[0].transport else {
        panic!("{servers:?}");
    };
    assert_eq!(stdio.pass_env, ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER"]);
    assert!(stdio.args.is_empty() && stdio.env.is_empty() && stdio.cwd.is_none(), "{stdio:?}");
    let expected = McpServerOptions {
        era: McpEra::Auto,
        instances: McpInstances::Auto,
        instances_max: 32,
        start: McpStart::Demand,
        start_timeout_ms: 30_000,
        call_timeout_ms: 3_600_000,
        hang_timeout_ms: 120_000,
        idle_timeout_ms: 600_000,
        restart_delay_max_ms: 60_000,
        message_bytes_max: 1_048_576,
    };
    assert_eq!(servers[0].options, expected);
}

#[test]
fn servers_and_headers_keep_the_files_order() {
    let servers = servers(
        "[mcp.servers.zed]\ncommand = \"z\"\n[mcp.servers.able]\nurl = \"http://a\"\n[mcp.servers.able.headers]\n\
         X-2 = \"2\"\nX-1 = \"1\"\n[mcp.servers.me]\ncommand = \"m\"\n[mcp]\nruns_max = 7\n",
    );

    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["zed", "able", "me"]);
    let McpServerTransport::Http(http) = &servers[1].transport else {
        panic!("{servers:?}");
    };
    assert_eq!(exposed(&http.headers), [("X-2", "2"), ("X-1", "1")]);
}

#[test]
fn values_and_keys_that_are_wrong_are_all_reported_with_their_lines() {
    check_faults(
        "[mcp.servers.files]\ncommand = \"\"\nargs = [\"a\", 1]\npass_env = [\"A=B\"]\nera = \"old\"\n\
         instances_max = 0\ncomand = \"x\"\n[mcp.servers.remote]\nurl = \"ftp://host/\"\nfollow_redirects = 1\n\
         headers = [\"a\"]\nstart_timeout_ms = 99\ntimeout = 5\n[mcp.servers.remote.headers_env]\nX-Key = \"A B\"\n\
         [mcp.runs]\n",
        &[
            "2: `mcp.servers.files.command`: expected a text that is not empty, came \"\"",
            "3: `mcp.servers.files.args`: expected a list, each item a text, came one whose item 2 is a whole number",
            "4: `mcp.servers.files.pass_env`: expected a list, each item the name of an environment variable, came one \
             whose item 1 is one of 3 bytes",
            "5: `mcp.servers.files.era`: expected \"auto\", \"legacy\" or \"stateless\", came \"old\"",
            "6: `mcp.servers.files.instances_max`: expected a whole number of connections from 1 to 10_000, came 0",
            "7: unknown key `mcp.servers.files.comand`, the nearest known is `mcp.servers.files.command`",
            "9: `mcp.servers.remote.url`: expected a URL such as",
            "10: `mcp.servers.remote.follow_redirects`: expected true or false, came 1",
            "11: `mcp.servers.remote.headers`: expected a table, each key the name of an HTTP header and each value a text \
             of visible ASCII characters, with spaces only between them, came a list",
            "12: `mcp.servers.remote.start_timeout_ms`: expected a whole number of milliseconds from 100 to 600_000, came 99",
            "13: unknown key `mcp.servers.remote.timeout`, the nearest known is `mcp.servers.remote.",
            "15: `mcp.servers.remote.headers_env.X-Key`: expected the name of an environment variable, came one of 3 bytes",
            "16: unknown key `mcp.runs`, the nearest known is `mcp.runs_max`",
        ],
    );
}

#[test]
fn a_server_has_a_command_or_a_url() {
    check_faults(
        "[mcp.servers.none]\nargs = []\n[mcp.servers.two]\ncommand = \"a\"\nurl = \"http://a\"\n[mcp.servers.empty]\n",
        &[
            "1: `mcp.servers.none`: expected one of `command` and `url`, came neither",
            "3: `mcp.servers.two`: expected one of `command` and `url`, came both",
            "6: `mcp.servers.empty`: expected one of `command` and `url`, came neither",
        ],
    );
}

#[test]
fn what_goes_with_the_other_kind_of_server_is_refused() {
    check_faults(
        "[mcp.servers.a]\nurl = \"http://a\"\nargs = [\"x\"]\nenv = {}\n[mcp.servers.b]\ncommand = \"b\"\n\
         headers = { X-Key = \"k\" }\nuse_proxy = false\n",
        &[
            "3: `mcp.servers.a.args`: expected it only beside `command`, came beside `url`",
            "4: `mcp.servers.a.env`: expected it only beside `command`, came beside `url`",
            "7: `mcp.servers.b.headers`: expected it only beside `url`, came beside `command`",
            "8: `mcp.servers.b.use_proxy`: expected it only beside `url`, came beside `command`",
        ],
    );
}

#[test]
fn a_name_is_short_plain_and_not_taken() {
    let long = "n".repeat(65);
    for name in ["hub", "bennu", "a.b", "a b", "", "ü", "a\\n", &long] {
        let faults = file(&format!("[mcp.servers.\"{name}\"]\ncommand = \"a\"")).faults();

        assert!(faults.starts_with("bennu.toml:1: `mcp.servers`: expected a name of 1 to 64 ASCII"), "{faults}");
        assert_eq!(faults.lines().count(), 1, "{faults}");
    }
    for name in ["a", "Hub", "a-b_1", &long[1..]] {
        assert_eq!(servers(&format!("[mcp.servers.{name}]\ncommand = \"a\""))[0].name, name);
    }
}

#[test]
fn sections_and_values_that_are_swapped_are_told_apart() {
    check_faults(
        "[mcp]\nservers = 5\n",
        &["2: `mcp.servers`: expected sections headed [mcp.servers.NAME], came a whole number"],
    );
    check_faults(
        "[mcp.servers]\nfiles = \"node\"\n[[mcp.servers.more]]\ncommand = \"a\"\n",
        &[
            "2: `mcp.servers.files`: expected a section headed [mcp.servers.files], came a single value",
            "3: `mcp.servers.more`: expected a section headed [mcp.servers.more], came a single value",
        ],
    );
    check_faults(
        "[mcp.server.files]\ncommand = \"node\"\n",
        &["1: unknown key `mcp.server`, the nearest known is `mcp.servers`"],
    );
    assert!(servers("[mcp.servers]\n").is_empty());
}

#[test]
fn a_folder_has_to_be_there() {
    check_faults(
        "[mcp.servers.a]\ncommand = \"a\"\ncwd = \"absent\"\n",
        &["3: `mcp.servers.a.cwd`: expected a folder, came \"absent\""],
    );
}

#[test]
fn a_message_has_to_fit_what_a_client_may_leave_waiting() {
    check_faults(
        "[mcp.servers.a]\ncommand = \"a\"\nmessage_bytes_max = 2_097_152\n",
        &[
            "3: `mcp.servers.a.message_bytes_max`: expected less than socket.outbox_bytes_max (2097152 bytes)",
            "3: `mcp.servers.a.message_bytes_max`: expected less than longpoll.buffer_bytes_max (2097152 bytes)",
        ],
    );
    check_faults(
        "[mcp]\nrun_bytes_max = 2_000\n[longpoll]\nbuffer_bytes_max = 1_000_000\n[mcp.servers.a]\ncommand = \"a\"\n",
        &["4: `mcp.servers.a.message_bytes_max`: expected less than longpoll.buffer_bytes_max (1000000 bytes)"],
    );
}

#[test]
fn a_header_is_given_once_whatever_its_case() {
    let text = "[mcp.servers.a]\nurl = \"http://a\"\nheaders = { X-Key = \"1\", x-key = \"2\" }\nheaders_env = { X-KEY = \"K\" }\n";

    let faults = Case { env: &[("K", "3")], ..file(text) }.faults();

    let keys: Vec<&str> = faults.lines().filter_map(|line| line.split('`').nth(1)).collect();
    assert_eq!(keys, ["mcp.servers.a.headers.x-key", "mcp.servers.a.headers_env.X-KEY"], "{faults}");
}

#[test]
fn a_variable_that_is_not_set_is_named_and_one_that_is_no_header_is_not_shown() {
    let text = "[mcp.servers.a]\nurl = \"http://a\"\n[mcp.servers.a.headers_env]\nX-1 = \"ABSENT\"\nX-2 = \"BROKEN\"\n";

    let faults = Case { env: &[("BROKEN", "hush\n")], ..file(text) }.faults();

    let expected = "\
bennu.toml:4: `mcp.servers.a.headers_env.X-1`: expected the environment variable `ABSENT` to be set, came none
bennu.toml:5: `mcp.servers.a.headers_env.X-2`: expected in the environment variable `BROKEN` a text of visible ASCII characters, with spaces only between them, came one of 5 bytes";
    assert_eq!(faults, expected);
}

#[test]
fn no_fault_and_no_debug_text_shows_a_secret() {
    let faulty = [
        "headers = { X-Key = \"s3cr3t\\n\" }",
        "headers = { X-Key = [\"s3cr3t\"] }",
        "headers = { \"X-Key: s3cr3t\" = \"\" }",
        "headers = \"X-Key: s3cr3t\"",
        "headers = [\"X-Key: s3cr3t\"]",
        "headers = { X-Key = \"s3cr3t }",
        "headers_env = { X-Key = \"Bearer s3cr3t\" }",
        "headers_env = { \"X-Key: s3cr3t\" = \"ABSENT\" }",
        "env = { KEY = [\"s3cr3t\"] }",
        "env = { \"KEY=s3cr3t\" = \"\" }",
        "env = { KEY = s3cr3t }",
        "args = [\"--token=s3cr3t\", 1]",
        "args = \"--token=s3cr3t\"",
        "pass_env = [\"KEY=s3cr3t\"]",
        "pass_env = \"KEY=s3cr3t\"",
        "heders = { X-Key = \"s3cr3t\" }",
        "url = \"https://user:s3cr3t@host/\"",
        "url = \"https//host/?token=s3cr3t\"",
        "command = [\"node\", \"--token=s3cr3t\"]",
        "url = [\"https://user:s3cr3t@host/\"]",
    ];
    let mut texts: Vec<String> =
        faulty.iter().map(|line| file(&format!("[mcp.servers.a]\n{line}\n")).faults()).collect();
    let given = "[mcp.servers.a]\nurl = \"http://a\"\nheaders = { X-1 = \"s3cr3t\" }\nheaders_env = { X-2 = \"VARIABLE\" }\n\
                 [mcp.servers.b]\ncommand = \"b\"\nenv = { KEY = \"s3cr3t\" }\n";
    let settings = Case { env: &[("VARIABLE", "s3cr3t")], ..file(given) }.load().expect("the file has no fault");
    texts.push(format!("{settings:?} {settings:#?}"));

    for text in texts {
        assert!(!text.contains("s3cr3t"), "{text}");
    }
}

#[test]
fn what_is_not_toml_is_the_only_fault_of_its_line() {
    check_faults("[mcp.servers.a]\ncommand = node\nera = \"old\"\n", &["2: expected TOML", "3: `mcp.servers.a.era`"]);
}

#[test]
fn no_flag_and_no_variable_sets_them() {
    let flags = [("mcp.servers.a.command", "node")];
    let env = [("BENNU_MCP_SERVERS_A_COMMAND", "node")];

    assert!(Case { flags: &flags, ..Case::default() }.faults().contains("unknown key `mcp.servers.a.command`"));
    assert!(Case { env: &env, ..Case::default() }.faults().contains("unknown variable `BENNU_MCP_SERVERS_A_COMMAND`"));
}

#[test]
fn the_examples_sections_have_no_fault_and_hold_the_defaults() {
    let example = servers(&example());

    let least =
        servers("[mcp.servers.files]\ncommand = \"...\"\n[mcp.servers.remote]\nurl = \"https://example.com/mcp\"\n");
    assert_eq!(example, least);
}

#[test]
fn the_names_of_one_section_are_unique() {
    let mut names: Vec<&str> = table::TABLE.iter().map(crate::config::table::Setting::name).collect();
    names.sort_unstable();
    names.dedup();

    assert_eq!(names.len(), table::TABLE.len());
}
