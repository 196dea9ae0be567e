//! Several servers as one: their lists in one, and each request to the one that it is for.
//!
//! What each server offers is asked of it for every list; what was heard last is remembered, for names to keep their meaning
//! while a server is away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use serde_json::value::RawValue;

use super::exchange::{self, Passed};
use super::{Subscribed, is_of_legacy};
use crate::mcp::authorize::permit;
use crate::mcp::call::{Call, Output, Relayed, Subject};
use crate::mcp::outgoing::Outgoing;
use crate::mcp::serve::{Served, invalid};
use crate::mcp::server::ServerShared;
use crate::mcp::session::Session;
use crate::mcp::upstream::{Upstream, whole_list};
use crate::mcp::{CallContext, CallError, listing, respond};
use crate::protocol::jsonrpc::{self, Fault, Object, Scope, splice};
use crate::protocol::mcp::client::Era;
use crate::protocol::mcp::cursor;
use crate::protocol::mcp::headers::ParamHeaders;
use crate::protocol::mcp::hub::Shelf;
use crate::protocol::mcp::level::Level;
use crate::protocol::mcp::relay::{self, Introduction};
use crate::protocol::mcp::session::Empty;
use crate::protocol::mcp::subscription::Filter;
use crate::protocol::mcp::uri_template::UriTemplate;
use crate::protocol::mcp::{
    COMPLETE, INITIALIZE, LISTENS_PER_SESSION_MAX, PROMPTS_GET, PROMPTS_LIST, RESOURCE_TEMPLATES_LIST, RESOURCES_LIST,
    RESOURCES_READ, RESOURCES_SUBSCRIBE, RESOURCES_UNSUBSCRIBE, SET_LEVEL, SUBSCRIPTIONS_LISTEN, TASKS_CANCEL,
    TASKS_GET, TASKS_UPDATE, TOOLS_CALL, TOOLS_LIST, error, peer,
};

/// How long a list waits for one server; it is left out then, and told of when it is there.
const LIST_PATIENCE: Duration = Duration::from_secs(3);

/// The servers behind a hub, in their order.
pub(in crate::mcp) struct Hub {
    members: Vec<Arc<ServerShared>>,
    /// What each offered when it was asked last.
    heard: Mutex<BTreeMap<(usize, Shelf), Names>>,
}

type Names = Arc<Vec<String>>;

/// Where a request goes.
struct Found {
    member: Arc<ServerShared>,
    /// What is meant, in that server's words.
    name: String,
}

impl Hub {
    pub(in crate::mcp) fn new(members: Vec<Arc<ServerShared>>) -> Arc<Self> {
        Arc::new(Hub { members, heard: Mutex::default() })
    }

    pub(in crate::mcp) fn members(&self) -> &[Arc<ServerShared>] {
        &self.members
    }

    /// The servers that a session's user may use, with their places.
    pub(in crate::mcp) fn allowed<'h>(
        &'h self,
        session: &Session,
    ) -> impl Iterator<Item = (usize, &'h Arc<ServerShared>)> + Clone + use<'h> {
        let allowed: Arc<[bool]> =
            self.members.iter().map(|member| session.mcp.may_use_in_hub(&session.user, member)).collect();
        self.members.iter().enumerate().filter(move |(place, _)| allowed[*place])
    }

    /// Which arguments of a tool come as headers too, as far as is known.
    pub(in crate::mcp) fn headers_of(&self, name: &str) -> Option<ParamHeaders> {
        let names: Vec<_> =
            (0..self.members.len()).map(|place| self.names(place, Shelf::Tools).unwrap_or_default()).collect();
        let servers: Vec<_> =
            self.members.iter().zip(&names).map(|(member, names)| (member.name.as_str(), names.as_slice())).collect();
        let (place, own) = Shelf::Tools.find(&servers, name)?;
        let member = &self.members[place];
        match member.upstream() {
            Some(upstream) => upstream.learned.headers_of(&own).map(|headers| ParamHeaders::clone(&headers)),
            None => member.catalog().tools.find(&own).map(|tool| tool.param_headers.clone()),
        }
    }

    /// The names of a member, as far as they are known.
    fn names(&self, place: usize, shelf: Shelf) -> Option<Names> {
        let member = &self.members[place];
        if member.passes_on() {
            return self.heard.lock().get(&(place, shelf)).cloned();
        }
        let catalog = member.catalog();
        let names: Vec<String> = match shelf {
            Shelf::Tools => catalog.tools.iter().map(|tool| tool.name.to_string()).collect(),
            Shelf::Prompts => catalog.prompts.iter().map(|prompt| prompt.item.name.clone()).collect(),
            Shelf::Resources => catalog.resources.iter().map(|resource| resource.item.uri.clone()).collect(),
            Shelf::Templates => catalog.templates.iter().map(|template| template.item.uri_template.clone()).collect(),
        };
        Some(Arc::new(names))
    }

    /// Who has what is listed under a name, as far as is known: `None` where nobody is known to, or where a server that was not
    /// heard yet might come first.
    fn find(&self, session: &Session, shelf: Shelf, name: &str, is_all_heard: bool) -> Option<Found> {
        let members: Vec<_> = self.allowed(session).collect();
        let names: Vec<_> = members.iter().map(|(place, _)| self.names(*place, shelf)).collect();
        let known = |index: usize| names[index].as_ref().map_or(&[][..], |names| names.as_slice());
        let servers: Vec<_> =
            members.iter().enumerate().map(|(index, (_, member))| (member.name.as_str(), known(index))).collect();
        let found = shelf.find(&servers, name).or_else(|| {
            // A URI that is in no list may be of a template.
            let matches = |index: usize, uri: &str| {
                let templates = self.names(members[index].0, Shelf::Templates);
                templates.is_some_and(|templates| {
                    templates.iter().any(|template| {
                        UriTemplate::parse(template).is_ok_and(|template| template.matches(uri).is_some())
                    })
                })
            };
            let servers: Vec<_> = servers.iter().map(|(server, _)| *server).collect();
            (shelf == Shelf::Resources).then(|| shelf.find_unlisted(&servers, name, matches)).flatten()
        });
        let (index, name) = found?;
        let member = members[index].1;
        // What this program has itself is at hand, and waits for nobody.
        if !is_all_heard && member.passes_on() && names[..index].iter().any(Option::is_none) {
            return None;
        }
        Some(Found { member: Arc::clone(member), name })
    }

    /// Asks the servers what they offer: each item, with the place of its server, in their order. A server that does not answer
    /// in time is left out.
    async fn gather(&self, call: &Arc<Call>, introduction: &Introduction, shelf: Shelf) -> Vec<(usize, String)> {
        let asked = self.allowed(&call.session).map(|(place, member)| async move {
            let items = match member.upstream() {
                None => listed_here(member, call, shelf).await,
                Some(upstream) => {
                    let listing = whole_list(upstream, &call.session, &call.client, introduction, shelf);
                    tokio::time::timeout(LIST_PATIENCE, listing).await.ok().flatten()
                }
            };
            (place, member, items)
        });
        let mut all = Vec::new();
        for (place, member, items) in futures::future::join_all(asked).await {
            match items {
                Some(items) => {
                    if member.passes_on() {
                        let names = items.iter().filter_map(|item| shelf.name_of(item)).collect();
                        self.heard.lock().insert((place, shelf), Arc::new(names));
                    }
                    all.extend(items.into_iter().map(|item| (place, item)));
                }
                None => {
                    tracing::debug!(server = member.name, list = shelf.list_key(), "a server is left out of a list");
                    // What was heard of it before stays; of one that never answered, nothing is known to be its.
                    self.heard.lock().entry((place, shelf)).or_default();
                }
            }
        }
        all
    }

    /// One page of the merged list: its fields.
    async fn page(
        &self,
        call: &Arc<Call>,
        introduction: &Introduction,
        shelf: Shelf,
        after: Option<(usize, usize)>,
    ) -> Box<RawValue> {
        let session = &call.session;
        let gathered = self.gather(call, introduction, shelf).await;
        let (mut taken, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut of_member: BTreeMap<usize, usize> = BTreeMap::new();
        let (mut page, mut next) = (Vec::new(), None);
        // Names of servers that are away now keep those of later ones from taking their place.
        let away: Vec<usize> = self
            .allowed(session)
            .map(|(place, _)| place)
            .filter(|place| gathered.iter().all(|(other, _)| other != place))
            .collect();
        let mut at = 0;
        for (place, item) in &gathered {
            for away in away.iter().filter(|away| (at..*place).contains(*away)) {
                if let Some(names) = self.names(*away, shelf) {
                    taken.extend(names.iter().cloned());
                }
            }
            at = *place;
            let index = of_member.entry(*place).or_default();
            *index += 1;
            // A server's own second item of a name can't be reached, here or there.
            if shelf.name_of(item).is_none_or(|name| !seen.insert((*place, name))) {
                continue;
            }
            let Some(listed) = shelf.listed(&self.members[*place].name, item, &mut taken) else { continue };
            if after.is_some_and(|after| (*place, *index) <= after) {
                continue;
            }
            if page.len() == session.server.page_items.get() {
                next.get_or_insert(last_of(&page));
                break;
            }
            page.push((*place, *index, listed.into_owned()));
        }
        let items: Vec<_> = page.iter().map(|(_, _, item)| item.as_str()).collect();
        let mut text = format!("{{\"{}\":[{}]}}", shelf.list_key(), items.join(","));
        if let Some((place, index)) = next {
            let cursor = jsonrpc::raw(&cursor::encode(shelf.method(), &format!("{place}.{index}")));
            text = splice::set(&text, &["nextCursor"], cursor.get()).expect("an object was made above");
        }
        RawValue::from_string(text).expect("items are JSON")
    }
}

fn last_of(page: &[(usize, usize, String)]) -> (usize, usize) {
    page.last().map_or((0, 0), |(place, index, _)| (*place, *index))
}

/// What a server of this program lists, for that client; `None` where it can't.
async fn listed_here(member: &ServerShared, call: &Arc<Call>, shelf: Shelf) -> Option<Vec<String>> {
    let catalog = member.catalog();
    let client = &call.client;
    let text = |listed: &RawValue| listed.get().to_owned();
    Some(match shelf {
        Shelf::Tools => catalog
            .tools
            .iter()
            .map(|tool| match client.era {
                Era::Elixir => text(&tool.listed_elixir),
                Era::Legacy => text(&tool.listed_legacy),
                Era::Modern => text(&tool.listed_modern),
            })
            .collect(),
        Shelf::Prompts => catalog.prompts.iter().map(|item| text(&item.listed)).collect(),
        Shelf::Resources => {
            let page = listing::page(&catalog, CallContext::new(Arc::clone(call)), None, usize::MAX).await.ok()?;
            page.items.iter().map(|item| text(item)).collect()
        }
        Shelf::Templates => catalog.templates.iter().map(|item| text(&item.listed)).collect(),
    })
}

/// What a request names, and where.
fn named(call: &peer::Call<'_>) -> Option<(Shelf, &'static [&'static str], String)> {
    let of_ref = || {
        let reference = call.params.object("ref")?;
        match reference.string("type").as_deref() {
            Some("ref/prompt") => {
                Some((Shelf::Prompts, ["params", "ref", "name"].as_slice(), reference.string("name")?))
            }
            Some("ref/resource") => {
                Some((Shelf::Templates, ["params", "ref", "uri"].as_slice(), reference.string("uri")?))
            }
            _ => None,
        }
    };
    match call.method.as_str() {
        TOOLS_CALL => Some((Shelf::Tools, &["params", "name"], call.params.string("name")?)),
        PROMPTS_GET => Some((Shelf::Prompts, &["params", "name"], call.params.string("name")?)),
        RESOURCES_READ | RESOURCES_SUBSCRIBE | RESOURCES_UNSUBSCRIBE => {
            Some((Shelf::Resources, &["params", "uri"], call.params.string("uri")?))
        }
        COMPLETE => of_ref(),
        _ => None,
    }
}

impl Session {
    /// Serves a request of a hub.
    pub(super) fn pass_by(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        call: peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        let is_modern = call.client.era == Era::Modern;
        let shelf = match call.method.as_str() {
            TOOLS_LIST => Some(Shelf::Tools),
            PROMPTS_LIST => Some(Shelf::Prompts),
            RESOURCES_LIST => Some(Shelf::Resources),
            RESOURCE_TEMPLATES_LIST => Some(Shelf::Templates),
            _ => None,
        };
        if let Some(shelf) = shelf {
            return self.list_hub(hub, shelf, &call, route);
        }
        if is_modern && is_of_legacy(&call.method) {
            return Err(Fault::MethodNotFound(call.method));
        }
        match call.method.as_str() {
            INITIALIZE => {
                if let Some(params) = call.raw_params {
                    self.introduce(params.to_owned());
                }
                self.dispatch_here(call, route)
            }
            SUBSCRIPTIONS_LISTEN if is_modern => self.listen_hub(hub, &call, route),
            SET_LEVEL => self.level_hub(hub, call, route),
            TOOLS_CALL | PROMPTS_GET | RESOURCES_READ | RESOURCES_SUBSCRIBE | RESOURCES_UNSUBSCRIBE | COMPLETE => {
                self.find_hub(hub, call, route)
            }
            // Tasks of the servers of this program alone; those of others are reached at these.
            TASKS_GET | TASKS_UPDATE | TASKS_CANCEL if is_modern => self.dispatch_here(call, route),
            _ => self.dispatch_here(call, route),
        }
    }

    fn list_hub(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        shelf: Shelf,
        call: &peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        let invalid_cursor = || invalid("cursor: expected one that this list gave, came another");
        let after = match call.params.raw("cursor").map(RawValue::get) {
            None | Some("null") => None,
            Some(_) => {
                let cursor = call.params.string("cursor").ok_or_else(invalid_cursor)?;
                let after = cursor::decode(shelf.method(), &cursor).map_err(|_| invalid_cursor())?;
                let (place, index) = after.split_once('.').ok_or_else(invalid_cursor)?;
                Some((place.parse().map_err(|_| invalid_cursor())?, index.parse().map_err(|_| invalid_cursor())?))
            }
        };
        let introduction = self.introduction_of(call.raw_params, &call.client);
        let served = self.begin(call, route, Subject::Relayed { limit_ms: crate::mcp::call::SERVING_MS_MAX }, None)?;
        let (this, hub) = (Arc::clone(&served), Arc::clone(hub));
        let work = async move {
            let session = &this.session;
            let body = hub.page(&this, &introduction, shelf, after).await;
            let result = match this.client.era {
                Era::Modern => respond::modern(&session.server, "complete", &respond::caching(&session.server), &body),
                Era::Legacy | Era::Elixir => body,
            };
            Ok(Output::Relayed(Relayed { text: jsonrpc::result_response(&this.id, &result), error: None }))
        };
        served.start(|_| work.boxed());
        Ok(Served::Later)
    }

    /// Serves a request for what one of the servers has.
    fn find_hub(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        call: peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        let Some((shelf, path, name)) = named(&call) else {
            // What is wrong with it, this program's own servers say.
            return self.dispatch_here(call, route);
        };
        if let Some(found) = hub.find(self, shelf, &name, false) {
            return self.serve_found(&found, (shelf, path), (call, name), route);
        }
        let introduction = self.introduction_of(call.raw_params, &call.client);
        let passed = Passed::of(&call);
        let method = call.method.clone();
        let is_subscription = matches!(call.method.as_str(), RESOURCES_SUBSCRIBE | RESOURCES_UNSUBSCRIBE);
        let tool: Option<Arc<str>> = (shelf == Shelf::Tools).then(|| name.as_str().into());
        let limit = self.upstreams_of(hub).iter().map(|upstream| upstream.options.call_timeout).max();
        let limit_ms = u64::try_from(limit.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        let served = self.begin(&call, route, Subject::Relayed { limit_ms }, tool.as_ref())?;
        let (this, hub) = (Arc::clone(&served), Arc::clone(hub));
        let work = async move {
            let shelves: &[Shelf] =
                if shelf == Shelf::Resources { &[Shelf::Resources, Shelf::Templates] } else { &[shelf] };
            for shelf in shelves {
                drop(hub.gather(&this, &introduction, *shelf).await);
            }
            let found = hub.find(&this.session, shelf, &name, true);
            let upstream = found.as_ref().and_then(|found| found.member.upstream());
            match (found.as_ref(), upstream) {
                (Some(found), Some(upstream)) => {
                    this.session.permit_found(&method, shelf, found).map_err(refused)?;
                    if is_subscription {
                        let named = Subscribed { own: &found.name, here: &name };
                        let noted = this.session.note_subscription(upstream, &this.client, &method, named);
                        if !noted.map_err(refused)? {
                            let text = jsonrpc::result_response(&this.id, &jsonrpc::raw(&Empty {}));
                            return Ok(Output::Relayed(Relayed { text, error: None }));
                        }
                    }
                    let passed = passed.renamed(path, &found.name).called(&name);
                    exchange::run(Arc::clone(&this), Arc::clone(upstream), passed).await
                }
                _ => Err(not_found(&this, shelf, &name)),
            }
        };
        served.start(|_| work.boxed());
        Ok(Served::Later)
    }

    /// Whether the user may use what was found, by the name that it has at its own server.
    fn permit_found(&self, method: &str, shelf: Shelf, found: &Found) -> Result<(), Fault> {
        // What is completed for is what is named.
        let method = match (method, shelf) {
            (COMPLETE, Shelf::Prompts) => PROMPTS_GET,
            (COMPLETE, _) => RESOURCES_READ,
            (method, _) => method,
        };
        permit(&self.user, method, &found.name).map_err(|denied| Fault::Unauthorized(denied.to_string()))
    }

    fn serve_found(
        self: &Arc<Self>,
        found: &Found,
        (shelf, path): (Shelf, &[&str]),
        (call, name_here): (peer::Call<'_>, String),
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        self.permit_found(&call.method, shelf, found)?;
        let text = relay::unambiguous(&String::from_utf8_lossy(call.text));
        let name = jsonrpc::raw(&found.name);
        let text = splice::set(&text, path, name.get()).ok_or(Fault::Internal)?;
        let fields = Object::parse(text.as_bytes()).ok_or(Fault::Internal)?;
        let raw_params = fields.raw("params");
        let params = raw_params.and_then(|params| Object::parse(params.get().as_bytes())).unwrap_or_default();
        let call = peer::Call { params, raw_params, text: text.as_bytes(), ..call };
        match found.member.upstream() {
            Some(upstream) if matches!(call.method.as_str(), RESOURCES_SUBSCRIBE | RESOURCES_UNSUBSCRIBE) => {
                self.pass_subscription(upstream, &call, route, Subscribed { own: &found.name, here: &name_here })
            }
            Some(upstream) => self.pass_to(&Arc::clone(upstream), call, route),
            None => self.dispatch_in(&found.member, call, route),
        }
    }

    fn level_hub(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        call: peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        if let Some(level) = call.params.get::<Level>("level") {
            let introduction = self.introduction_of(call.raw_params, &call.client);
            for upstream in self.upstreams_of(hub) {
                if let Ok(lease) = upstream.lease(self, &call.client, &introduction) {
                    lease.slot().want_level(level);
                }
            }
        }
        self.dispatch_here(call, route)
    }

    fn listen_hub(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        call: &peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        let filter = Filter { tasks: Vec::new(), ..Filter::read(&call.params)? };
        let uris = filter.uris.clone();
        if !self.listen(call.number, call.id, filter, route) {
            return Err(Fault::TooManyCalls { scope: Scope::Session, limit: LISTENS_PER_SESSION_MAX });
        }
        let introduction = Introduction::of_meta(call.raw_params);
        for upstream in self.upstreams_of(hub) {
            let Ok(slot) = upstream.heard(self, &call.client, &introduction) else { continue };
            slot.want();
            for uri in &uris {
                let Some(found) = hub.find(self, Shelf::Resources, uri, true) else { continue };
                if self.permit_found(RESOURCES_SUBSCRIBE, Shelf::Resources, &found).is_err() {
                    continue;
                }
                let is_theirs = found.member.upstream().is_some_and(|theirs| Arc::ptr_eq(theirs, &upstream));
                if is_theirs && slot.add_interest(&found.name, self.number()) {
                    slot.subscription(RESOURCES_SUBSCRIBE, &found.name);
                }
            }
        }
        Ok(Served::Later)
    }

    fn upstreams_of(&self, hub: &Hub) -> Vec<Arc<Upstream>> {
        hub.allowed(self).filter_map(|(_, member)| member.upstream().cloned()).collect()
    }
}

fn refused(fault: Fault) -> CallError {
    CallError::Rpc(Box::new(fault.to_object(jsonrpc::Compat::Standard)))
}

fn not_found(call: &Call, shelf: Shelf, name: &str) -> CallError {
    let fault = match shelf {
        Shelf::Tools => Fault::InvalidParams(format!("Unknown tool: {name}")),
        Shelf::Prompts => respond::prompt_not_found(name),
        Shelf::Resources => error::resource_not_found(name, call.client.version),
        Shelf::Templates => Fault::InvalidParams(format!("ref: no resource template is {name:?}")),
    };
    CallError::Rpc(Box::new(fault.to_object(jsonrpc::Compat::Standard)))
}
