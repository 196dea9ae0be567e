//! One MCP server: what it is called, what it offers, and who hears of changes.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::auth::Identity;
use super::catalog::{Catalog, Listed};
use super::prompts::Prompt;
use super::relay::Hub;
use super::resources::{Resource, ResourceTemplate};
use super::session::Session;
use super::tools::{InvalidTool, Registered, Tool};
use super::upstream::{Upstream, UpstreamOptions};
use crate::protocol::jsonrpc;
use crate::protocol::mcp::client::TASKS_EXTENSION;
use crate::protocol::mcp::content::Icon;
use crate::protocol::mcp::headers::{self, HeaderMismatch};
use crate::protocol::mcp::tool::TaskSupport;
use crate::protocol::mcp::{PAGE_ITEMS_MAX, TOOLS_CALL};

/// A named MCP server: tools, resources and prompts. Clones are the same server.
///
/// Clients reach it on `mcp:server:<name>` and at `/mcp/<name>`; the first of an [`Mcp`](super::Mcp) also on `mcp:session`
/// and at `/mcp`. What it offers may change while it serves; those who want to know are told.
#[derive(Clone)]
pub struct McpServer {
    pub(crate) shared: Arc<ServerShared>,
}

pub(crate) struct ServerShared {
    pub(crate) name: String,
    pub(crate) facts: Facts,
    pub(crate) caching: Caching,
    pub(crate) page_items: NonZeroUsize,
    catalog: RwLock<Arc<Catalog>>,
    /// Where its requests go, if not to its catalog.
    pub(super) behind: Behind,
    /// The sessions, each by its number.
    audience: Mutex<HashMap<u64, Weak<Session>>>,
}

/// Who serves the requests of a server.
pub(crate) enum Behind {
    /// This program, by the catalog.
    Nobody,
    /// Another server.
    Upstream(Arc<Upstream>),
    /// Several servers.
    Hub(Arc<Hub>),
}

/// What a server says of itself, as text that is ready to be sent.
pub(crate) struct Facts {
    /// An `Implementation` object.
    pub(crate) info: Box<RawValue>,
    /// The name and version in `info`.
    pub(crate) title: (String, String),
    pub(crate) instructions: Option<String>,
    /// By id, each with its settings.
    pub(crate) extensions: Map<String, Value>,
}

/// For how long, and for whom, a client may keep what lists and resources gave. Source: 2026-07-28, caching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caching {
    /// Milliseconds; 0 for asking each time.
    pub ttl_ms: u64,
    /// Whether others may be given the same answer.
    pub is_public: bool,
}

impl Default for Caching {
    /// Asked each time, by each for itself: safe for whatever a server offers.
    fn default() -> Self {
        Caching { ttl_ms: 0, is_public: false }
    }
}

/// What a server can't offer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum McpServerError {
    /// A tool that no client could call.
    #[error(transparent)]
    Tool(#[from] InvalidTool),
    /// A template that is none.
    #[error("resource template {uri_template:?}: {why}")]
    Template {
        /// As it was given.
        uri_template: String,
        /// What was expected, and what came.
        why: String,
    },
    /// A name or URI that is taken.
    #[error("two {what} are named {name:?}, expected one")]
    Duplicate {
        /// Tools, resources, templates or prompts.
        what: &'static str,
        /// The name or URI.
        name: String,
    },
    /// The server's name can't stand in a topic and a path.
    #[error("expected a server name of 1 to 64 letters, digits, _ and -, came {0:?}")]
    Name(String),
}

/// A server that is being put together.
#[must_use = "it is no server before it is built"]
pub struct McpServerBuilder {
    name: String,
    title: Option<String>,
    display_name: Option<String>,
    version: String,
    website: Option<String>,
    icons: Vec<Icon>,
    instructions: Option<String>,
    extensions: Map<String, Value>,
    caching: Caching,
    page_items: NonZeroUsize,
    items: Vec<Item>,
}

enum Item {
    Tool(Tool),
    Resource(Resource),
    Template(ResourceTemplate),
    Prompt(Prompt),
}

/// What changed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    Tools,
    Resources,
    Prompts,
    /// The resource at this URI has another content, for this user or for everyone.
    Resource {
        uri: &'a str,
        user: Option<&'a Identity>,
    },
    /// How a task stands: its id, whose it is, and the params of the notification.
    Task {
        id: &'a str,
        owner: &'a Identity,
        task: &'a RawValue,
    },
}

/// Characters of a server's name.
const NAME_CHARS_MAX: usize = 64;

impl McpServerBuilder {
    /// Sets the name in `serverInfo`, by default that of the server.
    pub fn display_name(mut self, name: impl Into<String>) -> Self {
        self.display_name = Some(name.into());
        self
    }

    /// Sets the name that a person sees.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Sets the version in `serverInfo`, by default this crate's.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Sets where to read about it.
    pub fn website(mut self, url: impl Into<String>) -> Self {
        self.website = Some(url.into());
        self
    }

    /// Adds a picture.
    pub fn icon(mut self, icon: Icon) -> Self {
        self.icons.push(icon);
        self
    }

    /// Sets what a model should know about the server as a whole.
    pub fn instructions(mut self, text: impl Into<String>) -> Self {
        self.instructions = Some(text.into());
        self
    }

    /// Declares an extension with its settings, an object.
    pub fn extension(mut self, id: impl Into<String>, settings: Value) -> Self {
        self.extensions.insert(id.into(), settings);
        self
    }

    /// Sets how long clients may keep lists and what they read.
    pub fn caching(mut self, ttl_ms: u64, is_public: bool) -> Self {
        self.caching = Caching { ttl_ms, is_public };
        self
    }

    /// Sets how many items a page of a list has, 100 by default.
    pub fn page_items(mut self, items: NonZeroUsize) -> Self {
        self.page_items = items;
        self
    }

    /// Adds a tool. Tools are listed in the order in which they come, and so are the others.
    pub fn tool(mut self, tool: impl Into<Tool>) -> Self {
        self.items.push(Item::Tool(tool.into()));
        self
    }

    /// Adds tools.
    pub fn tools(mut self, tools: impl IntoIterator<Item = Tool>) -> Self {
        self.items.extend(tools.into_iter().map(Item::Tool));
        self
    }

    /// Adds a resource.
    pub fn resource(mut self, resource: Resource) -> Self {
        self.items.push(Item::Resource(resource));
        self
    }

    /// Adds a template. Where several match a URI, the first is taken.
    pub fn template(mut self, template: ResourceTemplate) -> Self {
        self.items.push(Item::Template(template));
        self
    }

    /// Adds a prompt.
    pub fn prompt(mut self, prompt: Prompt) -> Self {
        self.items.push(Item::Prompt(prompt));
        self
    }

    /// The server.
    ///
    /// # Errors
    /// [`McpServerError`]: the first that is wrong.
    pub fn build(self) -> Result<McpServer, McpServerError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if self.name.is_empty() || self.name.len() > NAME_CHARS_MAX || !self.name.chars().all(is_plain) {
            return Err(McpServerError::Name(self.name));
        }
        let mut catalog = Catalog::default();
        for item in self.items {
            catalog.add(item)?;
        }
        let display_name = self.display_name.unwrap_or_else(|| self.name.clone());
        let mut info = Map::from_iter([
            ("name".to_owned(), Value::from(display_name.as_str())),
            ("version".to_owned(), Value::from(self.version.as_str())),
        ]);
        let mut add = |key: &str, value: Option<Value>| value.map(|value| info.insert(key.to_owned(), value));
        add("title", self.title.map(Value::from));
        add("websiteUrl", self.website.map(Value::from));
        add("icons", (!self.icons.is_empty()).then(|| json!(self.icons)));
        let facts = Facts {
            info: jsonrpc::raw(&info),
            title: (display_name, self.version),
            instructions: self.instructions,
            extensions: self.extensions,
        };
        let shared = ServerShared {
            name: self.name,
            facts,
            caching: self.caching,
            page_items: self.page_items,
            catalog: RwLock::new(Arc::new(catalog)),
            behind: Behind::Nobody,
            audience: Mutex::default(),
        };
        Ok(McpServer { shared: Arc::new(shared) })
    }
}

impl Catalog {
    fn add(&mut self, item: Item) -> Result<(), McpServerError> {
        let duplicate = |what, name: &str| Err(McpServerError::Duplicate { what, name: name.to_owned() });
        match item {
            Item::Tool(tool) => {
                let tool = Registered::new(tool)?;
                let name = Arc::clone(&tool.name);
                if self.tools.add(&name, tool) { Ok(()) } else { duplicate("tools", &name) }
            }
            Item::Resource(resource) => {
                let (uri, listed) = (resource.uri.clone(), resource.listed());
                self.resources.follow(&self.templates);
                let is_new = self.resources.add(&uri, Listed::new(resource, &listed));
                if is_new { Ok(()) } else { duplicate("resources", &uri) }
            }
            Item::Template(template) => {
                let (uri_template, listed) = (template.uri_template.clone(), template.listed());
                if let Some(why) = template.fault() {
                    return Err(McpServerError::Template { uri_template, why: why.to_owned() });
                }
                self.templates.follow(&self.resources);
                let is_new = self.templates.add(&uri_template, Listed::new(template, &listed));
                if is_new { Ok(()) } else { duplicate("resource templates", &uri_template) }
            }
            Item::Prompt(prompt) => {
                let (name, listed) = (prompt.name.clone(), prompt.listed());
                let is_new = self.prompts.add(&name, Listed::new(prompt, &listed));
                if is_new { Ok(()) } else { duplicate("prompts", &name) }
            }
        }
    }
}

impl McpServer {
    /// A server of that name: 1 to 64 letters, digits, `_` and `-`.
    pub fn builder(name: impl Into<String>) -> McpServerBuilder {
        McpServerBuilder {
            name: name.into(),
            title: None,
            display_name: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            website: None,
            icons: Vec::new(),
            instructions: None,
            extensions: Map::new(),
            caching: Caching::default(),
            page_items: const { NonZeroUsize::new(PAGE_ITEMS_MAX).expect("not 0") },
            items: Vec::new(),
        }
    }

    /// Another MCP server, under a name here. What it offers is what it says at each moment; it is started when it is needed.
    ///
    /// # Errors
    /// [`McpServerError::Name`].
    pub fn upstream(name: impl Into<String>, options: UpstreamOptions) -> Result<Self, McpServerError> {
        let McpServer { shared } = McpServer::builder(name).build()?;
        let mut shared = Arc::into_inner(shared).expect("it was made above");
        shared.behind = Behind::Upstream(Upstream::new(&shared.name, options));
        Ok(McpServer { shared: Arc::new(shared) })
    }

    /// Several servers as one.
    pub(super) fn hub(name: &str, members: &[McpServer]) -> Self {
        let McpServer { shared } = McpServer::builder(name).build().expect("the name is plain");
        let mut shared = Arc::into_inner(shared).expect("it was made above");
        shared.behind = Behind::Hub(Hub::new(members.iter().map(|member| Arc::clone(&member.shared)).collect()));
        McpServer { shared: Arc::new(shared) }
    }

    /// The name in topics and paths.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Adds a tool while it serves.
    ///
    /// # Errors
    /// [`McpServerError`]; nothing changed.
    pub fn add_tool(&self, tool: impl Into<Tool>) -> Result<(), McpServerError> {
        self.add(Item::Tool(tool.into()), Change::Tools)
    }

    /// Takes a tool away; calls under way go on. Whether it was there.
    pub fn remove_tool(&self, name: &str) -> bool {
        self.remove(Change::Tools, |catalog| catalog.tools.remove(name))
    }

    /// Adds a resource while it serves.
    ///
    /// # Errors
    /// [`McpServerError`]; nothing changed.
    pub fn add_resource(&self, resource: Resource) -> Result<(), McpServerError> {
        self.add(Item::Resource(resource), Change::Resources)
    }

    /// Takes a resource away. Whether it was there.
    pub fn remove_resource(&self, uri: &str) -> bool {
        self.remove(Change::Resources, |catalog| catalog.resources.remove(uri))
    }

    /// Adds a template while it serves.
    ///
    /// # Errors
    /// [`McpServerError`]; nothing changed.
    pub fn add_template(&self, template: ResourceTemplate) -> Result<(), McpServerError> {
        self.add(Item::Template(template), Change::Resources)
    }

    /// Takes a template away. Whether it was there.
    pub fn remove_template(&self, uri_template: &str) -> bool {
        self.remove(Change::Resources, |catalog| catalog.templates.remove(uri_template))
    }

    /// Adds a prompt while it serves.
    ///
    /// # Errors
    /// [`McpServerError`]; nothing changed.
    pub fn add_prompt(&self, prompt: Prompt) -> Result<(), McpServerError> {
        self.add(Item::Prompt(prompt), Change::Prompts)
    }

    /// Takes a prompt away. Whether it was there.
    pub fn remove_prompt(&self, name: &str) -> bool {
        self.remove(Change::Prompts, |catalog| catalog.prompts.remove(name))
    }

    /// Tells those who listen that the tools are others, or say other things of themselves.
    pub fn tools_changed(&self) {
        self.shared.tell(Change::Tools);
    }

    /// Tells those who listen that the prompts are others.
    pub fn prompts_changed(&self) {
        self.shared.tell(Change::Prompts);
    }

    /// Tells those who listen that there are other resources.
    pub fn resources_changed(&self) {
        self.shared.tell(Change::Resources);
    }

    /// Tells those who subscribed to a resource that it has another content.
    pub fn resource_updated(&self, uri: &str) {
        self.shared.tell(Change::Resource { uri, user: None });
    }

    /// Tells those sessions of this user that subscribed to a resource that it has another content, where each user has one of
    /// their own.
    pub fn resource_updated_for(&self, user: &Identity, uri: &str) {
        self.shared.tell(Change::Resource { uri, user: Some(user) });
    }

    fn add(&self, item: Item, change: Change<'_>) -> Result<(), McpServerError> {
        {
            let mut catalog = self.shared.catalog.write();
            let mut changed = Catalog::clone(&catalog);
            changed.add(item)?;
            *catalog = Arc::new(changed);
        }
        self.shared.tell(change);
        Ok(())
    }

    fn remove(&self, change: Change<'_>, remove: impl FnOnce(&mut Catalog) -> bool) -> bool {
        {
            let mut catalog = self.shared.catalog.write();
            let mut changed = Catalog::clone(&catalog);
            if !remove(&mut changed) {
                return false;
            }
            *catalog = Arc::new(changed);
        }
        self.shared.tell(change);
        true
    }
}

impl std::fmt::Debug for McpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "McpServer({:?})", self.shared.name)
    }
}

impl ServerShared {
    /// Whether requests are passed on to other servers.
    pub(crate) fn passes_on(&self) -> bool {
        !matches!(self.behind, Behind::Nobody)
    }

    /// Whether it is several servers as one.
    pub(super) fn is_hub(&self) -> bool {
        matches!(self.behind, Behind::Hub(_))
    }

    /// The server behind it, if there is one.
    pub(super) fn upstream(&self) -> Option<&Arc<Upstream>> {
        match &self.behind {
            Behind::Upstream(upstream) => Some(upstream),
            Behind::Nobody | Behind::Hub(_) => None,
        }
    }

    /// What it offers at this moment.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read())
    }

    /// The capabilities it states, for the eras of the specification.
    pub(crate) fn capabilities(&self, is_modern: bool) -> Value {
        let mut capabilities = json!({
            "tools": {"listChanged": true}, "prompts": {"listChanged": true},
            "resources": {"subscribe": true, "listChanged": true},
            "completions": {}, "logging": {},
        });
        let mut extensions = self.facts.extensions.clone();
        if self.catalog().tools.iter().any(|tool| tool.tasks != TaskSupport::Never) {
            extensions.insert(TASKS_EXTENSION.to_owned(), json!({}));
        }
        if is_modern && !extensions.is_empty() {
            capabilities["extensions"] = extensions.into();
        }
        capabilities
    }

    /// Checks the headers of an HTTP request against its body.
    ///
    /// # Errors
    /// The first that says something else.
    pub(crate) fn check_headers<'h>(
        &self,
        lookup: impl Fn(&str) -> Option<&'h str>,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<(), HeaderMismatch> {
        let catalog = self.catalog();
        let named = |params: &RawValue| jsonrpc::Object::parse(params.get().as_bytes())?.string("name");
        let name = params.filter(|_| method == TOOLS_CALL).and_then(named);
        if let Behind::Hub(hub) = &self.behind {
            let wanted = name.and_then(|name| hub.headers_of(&name));
            return headers::check(lookup, method, params, wanted.as_ref());
        }
        if let Some(upstream) = self.upstream() {
            let wanted = name.and_then(|name| upstream.learned.headers_of(&name));
            return headers::check(lookup, method, params, wanted.as_deref());
        }
        let tool = name.and_then(|name| catalog.tools.find(&name));
        headers::check(lookup, method, params, tool.map(|tool| &tool.param_headers))
    }

    /// Ends what would go on for ever for its clients, because the server stops.
    pub(crate) fn end_streams(&self) {
        let sessions: Vec<_> = self.audience.lock().values().filter_map(Weak::upgrade).collect();
        for session in sessions {
            session.end_streams();
        }
    }

    pub(crate) fn join(&self, number: u64, session: &Arc<Session>) {
        if let Behind::Hub(hub) = &self.behind {
            for (_, member) in hub.allowed(session) {
                member.join(number, session);
            }
        }
        self.audience.lock().insert(number, Arc::downgrade(session));
    }

    pub(crate) fn leave(&self, number: u64) {
        if let Behind::Hub(hub) = &self.behind {
            for member in hub.members() {
                member.leave(number);
            }
        }
        self.audience.lock().remove(&number);
    }

    pub(crate) fn tell(&self, change: Change<'_>) {
        if matches!(change, Change::Tools) && self.catalog().templates.iter().any(|each| each.item.follows_tools) {
            self.tell(Change::Resources);
        }
        // Outside of the lock: a session that is told may take others.
        let sessions: Vec<_> = self.audience.lock().values().filter_map(Weak::upgrade).collect();
        for session in sessions {
            session.hear(change);
        }
    }
}
