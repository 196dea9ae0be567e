//! A page to watch the server with: plain files, the stock `phoenix` client among them, no build step.
//!
//! It is data: the server mounts it.

/// One file of the page.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// Where it is served.
    pub path: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// Its bytes.
    pub bytes: &'static [u8],
}

/// What the page may load: itself and its own server. No inline script or style.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page, for a server whose socket is at `socket_path`, and which wants a credential or not.
pub fn page(socket_path: &str, wants_credential: bool) -> String {
    let escaped = socket_path.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    let wants = if wants_credential { "wanted" } else { "none" };
    include_str!("page.html").replace(SOCKET_PATH, &escaped).replace(CREDENTIAL, wants)
}

/// What stands in `page.html` where it is said whether a credential is wanted.
const CREDENTIAL: &str = "{credential}";

/// What stands in `page.html` where the socket's path belongs.
const SOCKET_PATH: &str = "{socket_path}";

/// What [`page`] makes at `/`, and what it loads. `/assets/phoenix.js` is the npm package `phoenix` at the version in `vendor/VERSION`.
pub const ASSETS: [Asset; 8] = [
    Asset { path: "/", content_type: "text/html; charset=utf-8", bytes: include_bytes!("page.html") },
    Asset { path: "/assets/app.js", content_type: "text/javascript; charset=utf-8", bytes: include_bytes!("app.js") },
    Asset {
        path: "/assets/credential.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("credential.js"),
    },
    Asset {
        path: "/assets/elements.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("elements.js"),
    },
    Asset {
        path: "/assets/workflows.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("workflows.js"),
    },
    Asset { path: "/assets/app.css", content_type: "text/css; charset=utf-8", bytes: include_bytes!("app.css") },
    Asset {
        path: "/assets/phoenix.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("vendor/phoenix.mjs"),
    },
    Asset { path: "/assets/bennu.svg", content_type: "image/svg+xml", bytes: include_bytes!("bennu.svg") },
];

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn the_page_names_the_socket_and_nothing_more() {
        let html = page(r#"/a"b<c"#, false);

        assert!(html.contains(r#"<meta name="bennu-socket" content="/a&quot;b&lt;c">"#), "{html}");
        assert!(!html.contains('{'), "{html}");
    }
}
