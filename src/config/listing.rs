//! Writes docs/settings.md and bennu.example.toml from the table.

use super::kind::{Kind, Raw, grouped};
use super::mcp_servers;
use super::settings::{SECTIONS, TABLE};
use super::table::{Fallback, Setting};

/// Returns the list of all settings as Markdown.
pub(super) fn markdown() -> String {
    let mut text = String::from(INTRODUCTION);
    for (section, doc) in SECTIONS {
        text += &format!("\n## [{section}]\n\n{}\n\n{}", doc.trim(), markdown_rows(rows(section)));
    }
    text + &mcp_servers::markdown()
}

/// Returns the table of these settings as Markdown.
pub(super) fn markdown_rows(rows: impl Iterator<Item = &'static Setting>) -> String {
    let mut text = String::from("| setting | default | takes | meaning |\n|---|---|---|---|\n");
    for setting in rows {
        let name = setting.name();
        let (default, takes) = (default_text(setting), setting.kind.expected());
        text += &format!("| `{name}` | {default} | {takes} | {} |\n", setting.doc()).replace("\"//*.", "\"//\\*.");
    }
    text
}

/// Returns a settings file that holds every default; what has none is a comment, and so are other MCP servers.
pub(super) fn example() -> String {
    let mut text = String::from(
        "# Every setting of Bennu with its default. A copy named bennu.toml in the working directory is read at start;\n\
         # it needs only what differs. `bennu check` reports every fault. docs/settings.md says what each takes.\n",
    );
    for (section, doc) in SECTIONS {
        text += &format!("\n# {}\n[{section}]\n", doc.trim());
        rows(section).for_each(|setting| text += &example_row(setting));
    }
    text += "\n# Other MCP servers that this one stands before: a section each, of either kind.\n";
    for line in mcp_servers::example().lines() {
        text += &format!("# {line}\n").replace("# \n", "#\n");
    }
    text
}

/// Returns a setting's line with its default, or as a comment where it has none.
pub(super) fn example_row(setting: &Setting) -> String {
    let name = setting.name();
    let line = match setting.fallback {
        Fallback::Unset => format!("# {name} = {}", sample(setting.kind)),
        Fallback::Is(default) => format!("{name} = {}", toml_text(setting.kind, default)),
        Fallback::ByMode { development, production } => {
            let development = toml_text(setting.kind, development);
            let production = toml_text(setting.kind, production);
            format!("# {name} = {development}  # in development; in production {production}")
        }
    };
    format!("\n# {}\n{line}\n", setting.doc())
}

/// Returns what stands in the place of a value that has no default.
fn sample(kind: Kind) -> &'static str {
    match kind {
        Kind::List(_) => r#"["..."]"#,
        Kind::Pairs { name: Kind::HeaderName, .. } => r#"{ X-Name = "..." }"#,
        Kind::Pairs { .. } => r#"{ NAME = "..." }"#,
        Kind::Url => r#""https://example.com/mcp""#,
        _ => r#""...""#,
    }
}

const INTRODUCTION: &str = r#"# Settings

Every setting of Bennu. This list is written from the tables in `src/config/settings.rs` and `src/config/mcp_servers/table.rs`; a
test compares them.

A setting comes from the first of these that gives it:

1. a flag: `server.listen` is `--server-listen 127.0.0.1:4000`;
2. the environment: `server.listen` is `BENNU_SERVER_LISTEN=127.0.0.1:4000`;
3. the settings file: the one of `--config FILE`, or of `BENNU_CONFIG`, or `bennu.toml` in the working directory where it exists;
4. its default.

What is set for other MCP servers (`[mcp.servers.NAME]`, the last chapter) comes from the settings file alone.

In flags and in the environment a list is separated by commas. Paths are relative to the working directory.
`bennu.example.toml` is a settings file with every default.

`bennu check` takes the same sources as `bennu serve` and reports every fault at once: each with the file and line, the
variable or the flag it came from, what was expected and what came. A key, `BENNU_` variable or flag that is not listed here is a
fault, and so is a file that is named but missing. (An unknown flag is reported alone, before anything else is read.
`BENNU_SERVICE_*`, `BENNU_PORT_*` and a `BENNU_PORT` such as `tcp://10.0.0.1:4000`, which Kubernetes sets for a service named
`bennu`, are passed over.) The values of secrets are never shown.

## The two settings of `server.mode`

`development`, the default, is closed to everyone else: Bennu listens on a loopback address only, `server.host` is a local name, and
every entrance takes only requests whose `Host`, and `Origin` where there is one, is `localhost`, `127.0.0.1` or `[::1]`. Without
an `Origin`, one that a browser's `Sec-Fetch-Site` says another site's page made is refused. It needs no authentication.

`production` listens anywhere and starts only with a secret (`server.secret_key_base_file` or
`server.secret_key_base`) and with `auth.method` other than `none`.
"#;

fn rows(section: &str) -> impl Iterator<Item = &'static Setting> {
    TABLE.iter().filter(move |setting| setting.section() == section)
}

fn default_text(setting: &Setting) -> String {
    let code = |text: &str| format!("`{}`", toml_text(setting.kind, text));
    match setting.fallback {
        Fallback::Unset => "none".to_owned(),
        Fallback::Is(text) => code(text),
        Fallback::ByMode { development, production } => {
            format!("{} in development, {} in production", code(development), code(production))
        }
    }
}

fn toml_text(kind: Kind, text: &str) -> String {
    match kind.read(Raw::Text(text)).expect("a test reads every default") {
        toml::Value::Integer(count) => grouped(u64::try_from(count).expect("counts are not negative")),
        value => value.to_string(),
    }
}
