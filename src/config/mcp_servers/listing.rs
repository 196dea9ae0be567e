//! The chapter of docs/settings.md and the sections of bennu.example.toml about other MCP servers.

use super::table::{SECTIONS, TABLE};
use super::{KEY, TRANSPORTS};
use crate::config::listing::{example_row, markdown_rows};
use crate::config::table::Setting;

/// Returns the chapter as Markdown.
pub(in crate::config) fn markdown() -> String {
    let mut text = format!("\n## [{KEY}.NAME]\n\n{INTRODUCTION}");
    for (section, doc) in SECTIONS {
        text += &format!("\n{}\n\n{}", doc.trim(), markdown_rows(rows(section)));
    }
    text
}

/// Returns a section for each way of reaching a server, for the reader to take the marks of a comment away.
pub(in crate::config) fn example() -> String {
    let mut text = String::new();
    for ((transport, sign), name) in TRANSPORTS.into_iter().zip(["files", "remote"]) {
        let doc = SECTIONS.iter().find(|(section, _)| *section == transport).expect("each has its section").1;
        text += &format!("\n# {}\n[{KEY}.{name}]\n", doc.trim());
        for setting in rows(transport) {
            let row = example_row(setting);
            let needed = setting.name() == sign;
            text += &if needed { row.replace(&format!("# {sign} = "), &format!("{sign} = ")) } else { row };
        }
        if transport == "stdio" {
            rows("options").for_each(|setting| text += &example_row(setting));
        }
    }
    text
}

const INTRODUCTION: &str = r#"Another MCP server that this one stands before: one section each, in the settings file alone. They have neither flags nor
environment variables.

```toml
[mcp.servers.files]
command = "node"
args = ["server.js", "/data"]

[mcp.servers.remote]
url = "https://example.com/mcp"
headers_env = { Authorization = "REMOTE_AUTH" }
```

`NAME` is 1 to 64 ASCII letters, digits, `_` and `-`; `hub` and `bennu` are taken. Each section has `command` or `url`, and what goes with
the other is a fault in it.
"#;

fn rows(section: &str) -> impl Iterator<Item = &'static Setting> {
    TABLE.iter().filter(move |setting| setting.section() == section)
}
