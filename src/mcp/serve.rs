//! What each method does: lists and settings at once, the rest as calls.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::call::{Call, Input, Output, Stage, Subject, Work};
use super::catalog::{Catalog, Shelf};
use super::completion::CompletionRequest;
use super::input::Answers;
use super::listing::{self, Place};
use super::outgoing::{Kind, Outgoing};
use super::request_state::request_digest;
use super::resources::ResourceTemplate;
use super::server::ServerShared;
use super::session::Session;
use super::stopwatch::Stopwatch;
use super::tools::Registered;
use super::{CallError, elixir, respond, workflows};
use crate::clock;
use crate::protocol::jsonrpc::{self, Fault, Object, Scope};
use crate::protocol::mcp::client::{Client, Era};
use crate::protocol::mcp::error;
use crate::protocol::mcp::level::Level;
use crate::protocol::mcp::peer;
use crate::protocol::mcp::recovery::{Offer, STORED_SUBSCRIPTION_BYTES_MAX};
use crate::protocol::mcp::session::{Empty, JoinReply, SessionToken};
use crate::protocol::mcp::subscription::Filter;
use crate::protocol::mcp::tool::{CallParams, TaskSupport};
use crate::protocol::mcp::version::Version;
use crate::protocol::mcp::{
    ARGUMENT_BYTES_MAX, COMPLETE, CREATE_MESSAGE, DISCOVER, INITIALIZE, LISTENS_PER_SESSION_MAX, PING, PROMPTS_GET,
    PROMPTS_LIST, REQUEST_BYTES_MAX, RESOURCE_TEMPLATES_LIST, RESOURCES_LIST, RESOURCES_READ, RESOURCES_SUBSCRIBE,
    RESOURCES_UNSUBSCRIBE, SET_LEVEL, SUBSCRIPTIONS_LISTEN, SUBSCRIPTIONS_PER_SESSION_MAX, TASKS_CANCEL, TASKS_GET,
    TASKS_UPDATE, TOOLS_CALL, TOOLS_LIST, URI_BYTES_MAX,
};

/// Values that a completion gives at most. Source: MCP, completion.
const COMPLETIONS_MAX: usize = 100;

/// The answer to a request: at once, or later by a call that has begun.
pub(super) enum Served {
    Now(Box<RawValue>),
    Later,
}

impl Session {
    /// Serves a request; its answer goes to `route`, at once or later.
    pub(super) fn serve(self: &Arc<Self>, call: peer::Call<'_>, route: &Arc<Outgoing>) {
        let (number, id, era) = (call.number, call.id, call.client.era);
        let answer = match self.authorize(&call).and_then(|()| self.dispatch(call, route)) {
            Ok(Served::Later) => return,
            Ok(Served::Now(result)) => Ok(result),
            Err(fault) if era == Era::Modern => Err(error::stateless(fault)),
            Err(fault) => Err(fault),
        };
        route.not_run(number);
        if !self.finish(number) {
            return route.mark(Kind::Unanswered);
        }
        match answer {
            Ok(result) => route.push(Kind::Response(None), jsonrpc::result_response(id, &result)),
            Err(fault) => {
                let compat = self.mcp.compat(era);
                let text = jsonrpc::error_response(Some(id), &fault, compat);
                if self.is_workflow() && matches!(fault, Fault::TooManyCalls { .. }) {
                    return route.push(Kind::Busy, text);
                }
                route.push(Kind::Response(Some(fault.code(compat))), text);
            }
        }
    }

    /// Serves a call again that had begun before a restart. Whatever comes of it is its answer: it is never taken for one that was
    /// not run.
    pub(super) fn serve_again(self: &Arc<Self>, call: peer::Call<'_>, route: &Arc<Outgoing>) {
        let (number, id, compat) = (call.number, call.id, self.mcp.compat(call.client.era));
        let served = self.authorize_again(&call).and_then(|()| self.dispatch(call, route));
        let (code, text) = match served {
            Ok(Served::Later) => return,
            Ok(Served::Now(result)) => (None, jsonrpc::result_response(id, &result)),
            Err(fault) => (Some(fault.code(compat)), jsonrpc::error_response(Some(id), &fault, compat)),
        };
        if self.finish(number) {
            route.answer(number, Kind::Response(code), text);
        }
    }

    fn dispatch(self: &Arc<Self>, call: peer::Call<'_>, route: &Arc<Outgoing>) -> Result<Served, Fault> {
        if self.server.passes_on() {
            return self.pass_on(call, route);
        }
        self.dispatch_here(call, route)
    }

    /// Serves a request by this program's own code.
    pub(super) fn dispatch_here(
        self: &Arc<Self>,
        call: peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        self.dispatch_in(&self.server, call, route)
    }

    /// Serves a request by what `server` offers.
    pub(super) fn dispatch_in(
        self: &Arc<Self>,
        server: &Arc<ServerShared>,
        call: peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        let catalog = &server.catalog();
        let era = call.client.era;
        let is_modern = era == Era::Modern;
        match call.method.as_str() {
            TOOLS_CALL => self.call_tool(catalog, call, route),
            TOOLS_LIST => self.list_tools(&call),
            RESOURCES_LIST => self.list_resources(&call, route),
            RESOURCE_TEMPLATES_LIST => self.list(&call, "resourceTemplates", |catalog| &catalog.templates),
            RESOURCES_READ => self.read_resource(catalog, call, route),
            PROMPTS_LIST => self.list(&call, "prompts", |catalog| &catalog.prompts),
            PROMPTS_GET => self.get_prompt(catalog, call, route),
            COMPLETE => self.complete(catalog, call, route),
            DISCOVER if is_modern => {
                Ok(self.now(&call, &respond::caching(&self.server), &jsonrpc::raw(&self.discovered())))
            }
            SUBSCRIPTIONS_LISTEN if is_modern => self.open_listen(&call, route),
            TASKS_GET | TASKS_UPDATE | TASKS_CANCEL if is_modern => self.serve_task(&call),
            INITIALIZE if !is_modern => {
                let result = jsonrpc::raw(&self.initialized(&call.client));
                self.initialize(&call.client);
                Ok(Served::Now(result))
            }
            PING if !is_modern => Ok(Served::Now(jsonrpc::raw(&Empty {}))),
            SET_LEVEL if !is_modern => {
                let level = call.params.get::<Level>("level");
                let level = level.ok_or_else(|| {
                    invalid("level must be one of debug, info, notice, warning, error, critical, alert, emergency")
                })?;
                self.set_level(level);
                Ok(Served::Now(jsonrpc::raw(&Empty {})))
            }
            RESOURCES_SUBSCRIBE if !is_modern => {
                let uri = uri_of(&call.params)?;
                if find_resource(catalog, &uri).is_none() {
                    return Err(error::resource_not_found(&uri, call.client.version));
                }
                if !self.subscribe(uri) {
                    let bytes = if self.standing().is_stored() {
                        format!(", of {STORED_SUBSCRIPTION_BYTES_MAX} bytes together")
                    } else {
                        String::new()
                    };
                    let text =
                        format!("expected at most {SUBSCRIPTIONS_PER_SESSION_MAX} subscriptions{bytes}, came one more");
                    return Err(Fault::InvalidRequest(text));
                }
                Ok(Served::Now(jsonrpc::raw(&Empty {})))
            }
            RESOURCES_UNSUBSCRIBE if !is_modern => {
                self.unsubscribe(&uri_of(&call.params)?);
                Ok(Served::Now(jsonrpc::raw(&Empty {})))
            }
            CREATE_MESSAGE if era == Era::Elixir => {
                let served = self.begin(&call, route, Subject::Other, None)?;
                let work = elixir::sample(&served, &call.params);
                served.start(|_| work);
                Ok(Served::Later)
            }
            name if workflows::is_method(name) && !self.is_workflow() => {
                let method = call.method.clone();
                // They are an object, so that only nesting can be in the way.
                let read = call.raw_params.map(|params| serde_json::from_str(params.get())).transpose();
                let params = read.map_err(|_| invalid("params are nested too deep"))?;
                let served = self.begin(&call, route, Subject::Workflow, None)?;
                let serving = Arc::clone(&served);
                served.start(move |_| workflows::serve(serving, method, params.unwrap_or_default()).boxed());
                Ok(Served::Later)
            }
            unknown => Err(Fault::MethodNotFound(unknown.to_owned())),
        }
    }

    /// A result that is there at once.
    pub(super) fn now(&self, call: &peer::Call<'_>, further: &str, body: &RawValue) -> Served {
        Served::Now(match call.client.era {
            Era::Modern => respond::modern(&self.server, "complete", further, body),
            Era::Legacy | Era::Elixir => body.to_owned(),
        })
    }

    fn initialized(&self, client: &Client) -> serde_json::Value {
        let mut result = json!({
            "protocolVersion": client.version,
            "capabilities": self.server.capabilities(false),
            "serverInfo": self.server.facts.info,
        });
        if let Some(instructions) = &self.server.facts.instructions {
            result["instructions"] = instructions.as_str().into();
        }
        result
    }

    fn discovered(&self) -> serde_json::Value {
        let mut result = json!({
            "supportedVersions": Version::MODERN,
            "capabilities": self.server.capabilities(true),
        });
        if let Some(instructions) = &self.server.facts.instructions {
            result["instructions"] = instructions.as_str().into();
        }
        result
    }

    /// The reply to a join that is the handshake.
    pub(super) fn join_reply(&self, token: Option<&SessionToken>, recovery: Option<&Offer>) -> Box<RawValue> {
        let (name, version) = &self.server.facts.title;
        jsonrpc::raw(&JoinReply::new(name, version, self.id(), token).with_recovery(recovery))
    }

    fn list_tools(&self, call: &peer::Call<'_>) -> Result<Served, Fault> {
        let listed = |tool: &Registered| match call.client.era {
            Era::Elixir => tool.listed_elixir.clone(),
            Era::Legacy => tool.listed_legacy.clone(),
            Era::Modern => tool.listed_modern.clone(),
        };
        let catalog = self.server.catalog();
        self.page(call, "tools", &catalog.tools, listed)
    }

    fn list<T>(
        &self,
        call: &peer::Call<'_>,
        key: &str,
        shelf: impl Fn(&super::catalog::Catalog) -> &Shelf<super::catalog::Listed<T>>,
    ) -> Result<Served, Fault> {
        let catalog = self.server.catalog();
        self.page(call, key, shelf(&catalog), |item| item.listed.clone())
    }

    /// The list of resources, at once where all of them are known, or else when they have been looked up.
    fn list_resources(self: &Arc<Self>, call: &peer::Call<'_>, route: &Arc<Outgoing>) -> Result<Served, Fault> {
        let catalog = self.server.catalog();
        if !catalog.templates.iter().any(|template| template.item.is_listing()) {
            return self.page(call, "resources", &catalog.resources, |item| item.listed.clone());
        }
        let after = match call.params.raw("cursor").map(RawValue::get) {
            // As in `page`.
            _ if call.client.era == Era::Elixir => None,
            None | Some("null") => None,
            Some(_) => {
                let cursor = call.params.string("cursor").and_then(|cursor| Place::read(&cursor));
                Some(cursor.ok_or_else(|| invalid("cursor: expected one that this list gave, came another"))?)
            }
        };
        let server = Arc::clone(&self.server);
        let era = call.client.era;
        let size = if era == Era::Elixir { usize::MAX } else { server.page_items.get() };
        let served = self.begin(call, route, Subject::Other, None)?;
        served.start(move |context| {
            async move {
                let page = listing::page(&catalog, context, after.as_ref(), size).await?;
                let mut body = BTreeMap::from([("resources", jsonrpc::raw(&page.items))]);
                if let Some(next) = page.next {
                    body.insert("nextCursor", jsonrpc::raw(&next));
                }
                let body = jsonrpc::raw(&body);
                Ok(Output::Body(match era {
                    Era::Modern => respond::modern(&server, "complete", &respond::caching(&server), &body),
                    Era::Legacy | Era::Elixir => body,
                }))
            }
            .boxed()
        });
        Ok(Served::Later)
    }

    fn page<T>(
        &self,
        call: &peer::Call<'_>,
        key: &str,
        shelf: &Shelf<T>,
        listed: impl Fn(&T) -> Box<RawValue>,
    ) -> Result<Served, Fault> {
        let invalid_cursor = || invalid("cursor: expected one that this list gave, came another");
        let cursor = match call.params.raw("cursor").map(RawValue::get) {
            // A client of the Elixir deployment knows no pages: it gets everything.
            _ if call.client.era == Era::Elixir => {
                let items: Vec<_> = shelf.iter().map(|item| listed(item)).collect();
                return Ok(self.now(call, "", &jsonrpc::raw(&BTreeMap::from([(key, items)]))));
            }
            None | Some("null") => None,
            Some(_) => Some(call.params.string("cursor").ok_or_else(invalid_cursor)?),
        };
        let (items, next) =
            shelf.page(&call.method, cursor.as_deref(), self.server.page_items).map_err(|_| invalid_cursor())?;
        let items: Vec<_> = items.map(|item| listed(item)).collect();
        let mut body = BTreeMap::from([(key, jsonrpc::raw(&items))]);
        if let Some(next) = next {
            body.insert("nextCursor", jsonrpc::raw(&next));
        }
        Ok(self.now(call, &respond::caching(&self.server), &jsonrpc::raw(&body)))
    }

    /// Begins a call. Where it is one of a tool, it is a run.
    pub(super) fn begin(
        self: &Arc<Self>,
        call: &peer::Call<'_>,
        route: &Arc<Outgoing>,
        subject: Subject,
        tool: Option<&Arc<str>>,
    ) -> Result<Arc<Call>, Fault> {
        let limit = self.mcp.settings.calls_per_session_max;
        // This one is counted already.
        if self.calls_under_way() > limit {
            return Err(Fault::TooManyCalls { scope: Scope::Session, limit });
        }
        // What is passed on brings answers to another server.
        let has_answers = call.client.era == Era::Modern && !matches!(subject, Subject::Relayed { .. });
        let input = if has_answers { self.answers(call)? } else { Input::Requests };
        let full = |super::workers::ConnectionFull { limit }| Fault::TooManyCalls { scope: Scope::Connection, limit };
        let seat = self.mcp.workers.admit(self.connection()).map_err(full)?;
        let run = match tool {
            // Those who watch see the workflow's own run.
            Some(_) if self.is_workflow() => None,
            Some(tool) => {
                let run = self.mcp.runs.begin(tool, call.id, &self.user, self.connection())?;
                self.show(&run);
                Some(run)
            }
            None => None,
        };
        if let Some(run) = &run
            && self.is_streaming()
            && let Some(event) = run.started()
        {
            route.push(Kind::Event, event);
        }
        Ok(Arc::new(Call {
            session: Arc::clone(self),
            number: call.number,
            id: call.id.to_owned(),
            subject,
            client: Arc::clone(&call.client),
            level: call.level,
            token: call.progress_token.map(ToOwned::to_owned),
            route: Arc::clone(route),
            input,
            task: OnceLock::new(),
            run,
            workflow: OnceLock::new(),
            seat,
            cancellation: Default::default(),
            why_taken_back: OnceLock::new(),
            stopwatch: Stopwatch::start(),
            is_left: AtomicBool::new(false),
            stage: Mutex::new(Stage::default()),
        }))
    }

    /// The answers that came with a stateless request.
    fn answers(&self, call: &peer::Call<'_>) -> Result<Input, Fault> {
        let (earlier, state) = match call.params.raw("requestState").map(RawValue::get) {
            None | Some("null") => (BTreeMap::new(), None),
            Some(_) => {
                let text = call.params.string("requestState");
                let text = text.ok_or_else(|| invalid("requestState must be a string"))?;
                let opened = self.mcp.sealer.open(&text, &self.server.name, clock::unix_micros() / 1_000);
                let digest = request_digest(&call.method, &call.params);
                let opened = opened.and_then(|sealed| sealed.check(&self.user.user, &digest).map(|()| sealed));
                let sealed = opened.map_err(|bad| Fault::InvalidParams(bad.to_string()))?;
                (sealed.answers, sealed.state)
            }
        };
        let answers = Answers::new(earlier, state, call.params.raw("inputResponses"))?;
        // What a state is bound to, should there be one.
        let (method, params) = (call.method.as_str().into(), call.raw_params.map(ToOwned::to_owned));
        Ok(Input::Answers { answers, method, params })
    }

    /// Begins a call of a tool. For the clients of the Elixir deployment a tool that is not there is a failure in band.
    fn call_tool(
        self: &Arc<Self>,
        catalog: &Catalog,
        call: peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        // Results of many steps may come to one that makes something of them.
        let bytes_max = if self.is_workflow() { REQUEST_BYTES_MAX } else { ARGUMENT_BYTES_MAX };
        let params = CallParams::read(&call.params, bytes_max)?;
        let era = call.client.era;
        let Some(tool) = catalog.tools.find(&params.name) else {
            return match era {
                Era::Elixir => {
                    let failure = crate::protocol::mcp::tool::CallFailure::for_elixir("tool_not_found");
                    Ok(Served::Now(jsonrpc::raw(&failure)))
                }
                Era::Legacy | Era::Modern => Err(Fault::InvalidParams(format!("Unknown tool: {}", params.name))),
            };
        };
        if tool.tasks == TaskSupport::Required && !call.client.capabilities.tasks {
            return Err(super::tasks::missing_extension());
        }
        let work = match tool.prepare(params.arguments, era == Era::Elixir) {
            Ok(work) => work,
            // Nothing ran, so there is no run.
            Err(unfit) => {
                let served = self.begin(&call, route, Subject::Tool(Arc::clone(tool)), None)?;
                served.start(|_| std::future::ready(Err(unfit)).boxed());
                return Ok(Served::Later);
            }
        };
        let served = self.begin(&call, route, Subject::Tool(Arc::clone(tool)), Some(&tool.name))?;
        if tool.begins_as_task {
            served.become_task();
        }
        served.start(|context| {
            // Nothing of it runs before it is polled.
            let run = async move { work.run(context).await.map(Output::Tool) };
            run.boxed()
        });
        Ok(Served::Later)
    }

    fn read_resource(
        self: &Arc<Self>,
        catalog: &Catalog,
        call: peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        let uri = match uri_of(&call.params) {
            Err(_) if call.client.era == Era::Elixir => {
                return Ok(Served::Now(elixir::resource_failure("Invalid resource URI: ")));
            }
            uri => uri?,
        };
        let found = find_resource(catalog, &uri);
        let served = self.begin(&call, route, Subject::Resource(uri.clone()), None)?;
        let reading = Arc::clone(&served);
        served.start(move |context| -> Work {
            let (mime, reading_of) = match &found {
                None => return std::future::ready(Err(CallError::NotFound)).boxed(),
                Some(Found::Resource(resource)) => (resource.item.mime(), resource.item.read(context)),
                Some(Found::Template(template, variables)) => {
                    (template.item.mime(), template.item.read(variables.clone(), context))
                }
            };
            let mime = mime.map(ToOwned::to_owned);
            reading_of
                .map(move |read| {
                    let contents = read?.into_contents(&uri, mime.as_deref());
                    let body = jsonrpc::raw(&BTreeMap::from([("contents", contents)]));
                    Ok(Output::Body(respond::complete(&reading, body)))
                })
                .boxed()
        });
        Ok(Served::Later)
    }

    fn get_prompt(
        self: &Arc<Self>,
        catalog: &Catalog,
        call: peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            description: Option<&'a str>,
            /// For the clients of the Elixir deployment.
            #[serde(skip_serializing_if = "Option::is_none")]
            arguments: Option<&'a [super::prompts::PromptArgument]>,
            messages: &'a [crate::protocol::mcp::content::PromptMessage],
        }

        let era = call.client.era;
        let name = call.params.string("name");
        let prompt = name.as_deref().and_then(|name| catalog.prompts.find(name)).cloned();
        let Some(prompt) = prompt else {
            return match (era, name) {
                (Era::Elixir, _) => Ok(Served::Now(elixir::prompt_failure("Prompt not found"))),
                (_, Some(name)) => Err(respond::prompt_not_found(&name)),
                (_, None) => Err(invalid("name must be a string")),
            };
        };
        let arguments = match call.params.raw("arguments").map(RawValue::get) {
            None | Some("null") => BTreeMap::new(),
            // The Elixir deployment never looked at them.
            Some(_) if era == Era::Elixir => {
                let given = call.params.object("arguments").unwrap_or_default();
                given
                    .fields()
                    .filter(|(_, value)| value.get() != "null")
                    .map(|(name, value)| {
                        let text = serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned());
                        (name.to_owned(), text)
                    })
                    .collect()
            }
            Some(_) => {
                let arguments = call.params.get::<BTreeMap<String, String>>("arguments");
                arguments.ok_or_else(|| invalid("arguments must be an object of strings"))?
            }
        };
        let missing =
            prompt.item.arguments.iter().find(|argument| argument.required && !arguments.contains_key(&argument.name));
        if let (Some(missing), true) = (missing, era != Era::Elixir) {
            return Err(Fault::InvalidParams(format!("missing required argument: {}", missing.name)));
        }
        let arguments = match missing {
            // The Elixir deployment gives prompts with their placeholders, so its clients may send no arguments.
            Some(_) => {
                let all = prompt.item.arguments.iter().map(|argument| {
                    let given = arguments.get(&argument.name).cloned();
                    (argument.name.clone(), given.unwrap_or_else(|| format!("{{{{{}}}}}", argument.name)))
                });
                all.collect()
            }
            None => arguments,
        };
        let served = self.begin(&call, route, Subject::Prompt, None)?;
        let filling = Arc::clone(&served);
        served.start(move |context| {
            let fill = prompt.item.fill(arguments, context);
            fill.map(move |filled| {
                let filled = filled?;
                let body = Body {
                    description: filled.description.as_deref().or(prompt.item.description.as_deref()),
                    arguments: (era == Era::Elixir).then_some(&prompt.item.arguments),
                    messages: &filled.messages,
                };
                Ok(Output::Body(respond::complete(&filling, jsonrpc::raw(&body))))
            })
            .boxed()
        });
        Ok(Served::Later)
    }

    fn complete(
        self: &Arc<Self>,
        catalog: &Catalog,
        call: peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Completion {
            values: Vec<String>,
            total: usize,
            has_more: bool,
        }

        let reference = call.params.object("ref").ok_or_else(|| invalid("ref must be an object"))?;
        let argument = call.params.object("argument");
        let text = |key: &str| argument.as_ref().and_then(|argument| argument.string(key));
        let (Some(name), Some(value)) = (text("name"), text("value")) else {
            return Err(invalid("argument must be an object with a name and a value, both strings"));
        };
        let given = call.params.object("context").and_then(|context| context.get("arguments"));
        let request = CompletionRequest { value, arguments: given.unwrap_or_default() };
        let completer = match reference.string("type").as_deref() {
            Some("ref/prompt") => {
                let prompt = reference.string("name").unwrap_or_default();
                let found = catalog.prompts.find(&prompt);
                found.ok_or_else(|| respond::prompt_not_found(&prompt))?.item.completer(&name).cloned()
            }
            Some("ref/resource") => {
                let uri = reference.string("uri").unwrap_or_default();
                let found: Option<&ResourceTemplate> = catalog.templates.find(&uri).map(|template| &template.item);
                match found {
                    Some(template) => template.completer(&name).cloned(),
                    None if catalog.resources.find(&uri).is_some() => None,
                    None => return Err(Fault::InvalidParams(format!("ref: no resource template is {uri:?}"))),
                }
            }
            _ => return Err(invalid("ref.type must be ref/prompt or ref/resource")),
        };
        let served = self.begin(&call, route, Subject::Other, None)?;
        let completing = Arc::clone(&served);
        served.start(move |_| {
            let values = match completer {
                Some(completer) => completer.complete(request),
                None => std::future::ready(Ok(Vec::new())).boxed(),
            };
            values
                .map(move |values| {
                    let mut values = values?;
                    let total = values.len();
                    values.truncate(COMPLETIONS_MAX);
                    let completion = Completion { has_more: values.len() < total, values, total };
                    let body = jsonrpc::raw(&BTreeMap::from([("completion", completion)]));
                    Ok(Output::Body(respond::complete(&completing, body)))
                })
                .boxed()
        });
        Ok(Served::Later)
    }

    fn open_listen(self: &Arc<Self>, call: &peer::Call<'_>, route: &Arc<Outgoing>) -> Result<Served, Fault> {
        let mut filter = Filter::read(&call.params)?;
        if !call.client.capabilities.tasks {
            filter.tasks.clear();
        }
        if !self.listen(call.number, call.id, filter, route) {
            return Err(Fault::TooManyCalls { scope: Scope::Session, limit: LISTENS_PER_SESSION_MAX });
        }
        Ok(Served::Later)
    }

    fn serve_task(&self, call: &peer::Call<'_>) -> Result<Served, Fault> {
        if !call.client.capabilities.tasks {
            return Err(super::tasks::missing_extension());
        }
        let id = call.params.string("taskId").ok_or_else(|| invalid("taskId must be a string"))?;
        let task = self.mcp.tasks.find(&id, self);
        let task = task.ok_or_else(|| Fault::InvalidParams(format!("there is no task {id:?}, or no longer")))?;
        let body = match call.method.as_str() {
            TASKS_GET => task.detailed(),
            TASKS_UPDATE => {
                let responses = call.params.object("inputResponses");
                let responses = responses.ok_or_else(|| invalid("inputResponses must be an object"))?;
                task.update(&responses);
                jsonrpc::raw(&Empty {})
            }
            _ => {
                task.cancel();
                jsonrpc::raw(&Empty {})
            }
        };
        Ok(self.now(call, "", &body))
    }
}

enum Found {
    Resource(Arc<super::catalog::Listed<super::resources::Resource>>),
    Template(Arc<super::catalog::Listed<ResourceTemplate>>, BTreeMap<String, String>),
}

fn find_resource(catalog: &Catalog, uri: &str) -> Option<Found> {
    if let Some(resource) = catalog.resources.find(uri) {
        return Some(Found::Resource(Arc::clone(resource)));
    }
    let mut matching = catalog.templates.iter().filter_map(|template| Some((template, template.item.match_uri(uri)?)));
    let (template, variables) = matching.next()?;
    Some(Found::Template(Arc::clone(template), variables))
}

pub(super) fn uri_of(params: &Object<'_>) -> Result<String, Fault> {
    let uri = params.string("uri").ok_or_else(|| invalid("uri must be a string"))?;
    if uri.len() > URI_BYTES_MAX {
        return Err(Fault::InvalidParams(format!("uri: expected at most {URI_BYTES_MAX} bytes, came {}", uri.len())));
    }
    Ok(uri)
}

pub(super) fn invalid(text: &str) -> Fault {
    Fault::InvalidParams(text.to_owned())
}
