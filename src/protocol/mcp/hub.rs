//! What is offered by several servers as one: names, and how those that clash are told apart.
//!
//! The first server that has a name keeps it; that of a later one is listed behind its server's name. Behind its server's name
//! everything is found, whether it clashes or not: `files__read`, `files+file:///a`.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::protocol::jsonrpc::splice;

/// Between a server's name and that of a tool or prompt: what the names of tools may hold everywhere.
const NAME_SEPARATOR: &str = "__";
/// Between a server's name and a URI: what the scheme of a URI may hold.
const URI_SEPARATOR: &str = "+";

/// What sort of thing is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shelf {
    /// By name.
    Tools,
    /// By name.
    Prompts,
    /// By URI.
    Resources,
    /// By template of URIs.
    Templates,
}

impl Shelf {
    /// All of them.
    pub const ALL: [Shelf; 4] = [Shelf::Tools, Shelf::Prompts, Shelf::Resources, Shelf::Templates];

    /// The key of the list in a result.
    pub fn list_key(self) -> &'static str {
        match self {
            Shelf::Tools => "tools",
            Shelf::Prompts => "prompts",
            Shelf::Resources => "resources",
            Shelf::Templates => "resourceTemplates",
        }
    }

    /// The method that lists them.
    pub fn method(self) -> &'static str {
        match self {
            Shelf::Tools => super::TOOLS_LIST,
            Shelf::Prompts => super::PROMPTS_LIST,
            Shelf::Resources => super::RESOURCES_LIST,
            Shelf::Templates => super::RESOURCE_TEMPLATES_LIST,
        }
    }

    /// The capability that a server has which offers them.
    pub fn capability(self) -> &'static str {
        match self {
            Shelf::Tools => "tools",
            Shelf::Prompts => "prompts",
            Shelf::Resources | Shelf::Templates => "resources",
        }
    }

    /// The key of an item's name.
    pub fn name_key(self) -> &'static str {
        match self {
            Shelf::Tools | Shelf::Prompts => "name",
            Shelf::Resources => "uri",
            Shelf::Templates => "uriTemplate",
        }
    }

    /// A name behind that of its server.
    pub fn prefixed(self, server: &str, name: &str) -> String {
        match self {
            Shelf::Tools | Shelf::Prompts => format!("{server}{NAME_SEPARATOR}{name}"),
            Shelf::Resources | Shelf::Templates => format!("{}{URI_SEPARATOR}{name}", scheme_of(server)),
        }
    }

    /// The name that stands behind that of a server.
    pub fn unprefixed<'n>(self, server: &str, name: &'n str) -> Option<&'n str> {
        match self {
            Shelf::Tools | Shelf::Prompts => name.strip_prefix(server)?.strip_prefix(NAME_SEPARATOR),
            Shelf::Resources | Shelf::Templates => name.strip_prefix(&*scheme_of(server))?.strip_prefix(URI_SEPARATOR),
        }
    }

    /// The name of an item of a list.
    pub fn name_of(self, item: &str) -> Option<String> {
        serde_json::from_str(splice::get(item, &[self.name_key()])?).ok()
    }

    /// The item under the name that it has among those that are `taken`, which then has it too. `None` where there is no name
    /// left. Each name of a server is listed once.
    pub fn listed<'i>(self, server: &str, item: &'i str, taken: &mut BTreeSet<String>) -> Option<Cow<'i, str>> {
        let own = self.name_of(item)?;
        match self.exposed(server, &own, taken)? {
            name if name == own => Some(Cow::Borrowed(item)),
            name => splice::set(item, &[self.name_key()], &serde_json::Value::from(name).to_string()).map(Cow::Owned),
        }
    }

    /// The name under which a server's own is listed.
    fn exposed(self, server: &str, own: &str, taken: &mut BTreeSet<String>) -> Option<String> {
        let mut name = own.to_owned();
        for _ in 0..=PREFIXES_MAX {
            if taken.insert(name.clone()) {
                return Some(name);
            }
            name = self.prefixed(server, &name);
        }
        None
    }

    /// Which of the servers, each with its own names in their order, has what is listed under a name, and how it calls it.
    ///
    /// It finds what [`Shelf::listed`] lists, whatever names servers choose, and beside that what stands behind its server's name
    /// though nothing clashes.
    pub fn find(self, servers: &[(&str, &[String])], name: &str) -> Option<(usize, String)> {
        let mut taken = BTreeSet::new();
        for (index, (server, names)) in servers.iter().enumerate() {
            let mut seen = BTreeSet::new();
            for own in names.iter().filter(|own| seen.insert(own.as_str())) {
                if self.exposed(server, own, &mut taken).as_deref() == Some(name) {
                    return Some((index, own.clone()));
                }
            }
        }
        servers.iter().enumerate().find_map(|(index, (server, names))| {
            let own = self.unprefixed(server, name)?;
            names.iter().any(|listed| listed == own).then(|| (index, own.to_owned()))
        })
    }

    /// The same of what is in no list: `matches` says whether it may be a server's.
    pub fn find_unlisted(
        self,
        servers: &[&str],
        name: &str,
        matches: impl Fn(usize, &str) -> bool,
    ) -> Option<(usize, String)> {
        if let Some(index) = (0..servers.len()).find(|index| matches(*index, name)) {
            return Some((index, name.to_owned()));
        }
        servers.iter().enumerate().find_map(|(index, server)| {
            let own = self.unprefixed(server, name)?;
            matches(index, own).then(|| (index, own.to_owned()))
        })
    }
}

/// How often a server's name may stand before one of its names.
const PREFIXES_MAX: usize = 3;

/// A server's name as the scheme of a URI may begin. Source: RFC 3986, 3.1.
fn scheme_of(server: &str) -> Cow<'_, str> {
    if server.starts_with(|c: char| c.is_ascii_alphabetic()) && !server.contains('_') {
        return Cow::Borrowed(server);
    }
    Cow::Owned(format!("s-{}", server.replace('_', "-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_keeps_its_name_and_later_ones_stand_behind_their_server() {
        let mut taken = BTreeSet::new();
        let mut listed = |server, item| Shelf::Tools.listed(server, item, &mut taken).map(Cow::into_owned);

        assert_eq!(listed("a", r#"{"name":"read","v":1.0}"#).as_deref(), Some(r#"{"name":"read","v":1.0}"#));
        assert_eq!(listed("b", r#"{"v":1.0,"name":"read"}"#).as_deref(), Some(r#"{"v":1.0,"name":"b__read"}"#));
        assert_eq!(listed("b", r#"{"name":"read"}"#).as_deref(), Some(r#"{"name":"b__b__read"}"#));
        assert_eq!(listed("c", r#"{"title":"no name"}"#), None);
        let mut taken = BTreeSet::from(["file:///a".to_owned()]);
        let item = Shelf::Resources.listed("f_2", r#"{"uri":"file:///a"}"#, &mut taken).expect("listed");
        assert_eq!(item, r#"{"uri":"s-f-2+file:///a"}"#);
    }

    #[test]
    fn what_is_listed_is_found_and_so_is_everything_behind_its_server() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for all in [
            [names(&["read"]), names(&["read", "write"]), names(&["b__read"])],
            [names(&["read"]), names(&["read", "b__read"]), names(&["read", "b__read", "b__b__read"])],
            [names(&["b__read", "read"]), names(&["b__b__read", "read"]), names(&["read", "c__read", "c__read"])],
        ] {
            let servers: Vec<_> = ["a", "b", "c"].into_iter().zip(all.iter().map(Vec::as_slice)).collect();
            let mut taken = BTreeSet::new();
            for (index, (server, names)) in servers.iter().enumerate() {
                let mut seen = BTreeSet::new();
                for name in names.iter().filter(|name| seen.insert(name.as_str())) {
                    let item = format!("{{\"name\":\"{name}\"}}");
                    let listed = Shelf::Prompts.listed(server, &item, &mut taken).expect("listed").into_owned();
                    let exposed = Shelf::Prompts.name_of(&listed).expect("a name");
                    assert_eq!(Shelf::Prompts.find(&servers, &exposed), Some((index, name.clone())), "{exposed}");
                }
            }
        }
        let (one, two) = (names(&["read"]), names(&["write"]));
        let servers: [(&str, &[String]); 2] = [("a", &one), ("b", &two)];
        assert_eq!(Shelf::Tools.find(&servers, "b__write"), Some((1, "write".into())));
        assert_eq!(Shelf::Tools.find(&servers, "a__write"), None);
        let unlisted = Shelf::Resources.find_unlisted(&["x"], "x+a:b", |_, own| own == "a:b");
        assert_eq!(unlisted, Some((0, "a:b".into())));
    }
}
