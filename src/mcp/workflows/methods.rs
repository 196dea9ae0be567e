//! The methods `workflows/*` and `contexts/*`: what they take, and what they give.
//!
//! What goes wrong is told in the result, with `isError`, as the deployment's clients know it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::contexts::{self, Refused};
use super::definitions::{self, WORKFLOW_ID_BYTES_MAX};
use super::live::{Attached, LiveRun, RunOptions};
use super::records::{self, GoingOn, Status};
use super::triggers::ArmedBy;
use super::{NewRunOf, no_request, start, triggers};
use crate::clock;
use crate::mcp::call::{Call, Output};
use crate::mcp::{CallContext, CallError, Mcp};
use crate::protocol::jsonrpc;
use crate::protocol::workflow::definition::Kind;
use crate::protocol::workflow::measure::is_deeper;
use crate::protocol::workflow::shared_context::{AccessPolicy, Filter, NewContext, SharedContext};
use crate::protocol::workflow::template::Template;
use crate::protocol::workflow::version::TemplateRef;
use crate::protocol::workflow::{self, DEPTH_MAX, Definition, Fault};
use crate::random;

/// Milliseconds of a run whose definition and caller say nothing. Source: the deployment's `timeout`.
const TIMEOUT_MS: u64 = 30_000;
/// Runs and the like that one list shows at most.
const LISTED_MAX: usize = 500;

type Params = Map<String, Value>;

/// A result that says what went wrong.
pub(super) struct Failed(pub(super) Value);

impl Failed {
    /// The fields, with the text and the mark of a failure.
    pub(super) fn new(mut fields: Value, error: impl Into<String>) -> Self {
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("error".to_owned(), Value::String(error.into()));
            fields.insert("isError".to_owned(), Value::Bool(true));
        }
        Failed(fields)
    }

    fn of_faults(fields: Value, faults: &[Fault]) -> Self {
        // Of the whole's own fields without the place, as the deployment's clients know these texts.
        let first = faults.first().map(|fault| match fault.path.matches('/').count() {
            0 | 1 => fault.message.clone(),
            _ => format!("{} at {}", fault.message, fault.path),
        });
        let first = first.unwrap_or_default();
        let error = match faults.len() {
            0 | 1 => first,
            more => format!("{first} (and {} more)", more - 1),
        };
        let mut failed = Failed::new(fields, error);
        failed.0["errors"] = json!(faults);
        failed
    }
}

/// What went wrong where nothing is said beside.
impl From<CallError> for Failed {
    fn from(error: CallError) -> Self {
        Failed::new(json!({"status": "failed"}), error.to_string())
    }
}

impl From<crate::store::StoreError> for Failed {
    fn from(error: crate::store::StoreError) -> Self {
        CallError::from(error).into()
    }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Context(error) => {
                let mut failed = Failed::new(json!({"status": "error"}), error.to_string());
                failed.0["reason"] = error.code().into();
                failed
            }
            Refused::Other(error) => error.into(),
        }
    }
}

/// Whether it is one of these methods.
pub(in crate::mcp) fn is_method(name: &str) -> bool {
    METHODS.contains(&name)
}

/// Those that wait for a run.
const WAITING: [&str; 3] = ["workflows/execute", "workflows/multi_tool", "workflows/cancel"];

const METHODS: [&str; 25] = [
    "workflows/create",
    "workflows/execute",
    "workflows/templates",
    "workflows/get_template",
    "workflows/register_template",
    "workflows/create_from_template",
    "workflows/list",
    "workflows/get",
    "workflows/delete",
    "workflows/runs",
    "workflows/run",
    "workflows/cancel",
    "workflows/multi_tool",
    "workflows/register_trigger",
    "workflows/triggers",
    "workflows/remove_trigger",
    "workflows/emit",
    "contexts/create",
    "contexts/get",
    "contexts/update",
    "contexts/merge",
    "contexts/delete",
    "contexts/list",
    "contexts/versions",
    "contexts/extend",
];

/// Serves one of these methods.
///
/// # Errors
/// The call was cancelled; everything else is in the result.
pub(in crate::mcp) async fn serve(call: Arc<Call>, method: String, params: Params) -> Result<Output, CallError> {
    let result = if WAITING.contains(&&*method) {
        by_name(&call, &method, &params).await
    } else {
        // In a task of its own: what is stored has to be heeded too, whether or not anybody waits. It ends by itself.
        let calling = Arc::clone(&call);
        let done = tokio::spawn(async move { by_name(&calling, &method, &params).await }).await;
        done.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(CallError::Cancelled.into()),
        })
    };
    let body = result.unwrap_or_else(|Failed(body)| body);
    let respond = crate::mcp::respond::complete(&call, jsonrpc::raw(&body));
    Ok(Output::Body(respond))
}

pub(super) async fn by_name(call: &Arc<Call>, method: &str, params: &Params) -> Result<Value, Failed> {
    let (mcp, user) = (&call.session.mcp, &call.session.user);
    let store = &mcp.workflows.store;
    match method {
        "workflows/create" => create(call, params).await,
        "workflows/execute" => execute(call, params).await,
        "workflows/multi_tool" => multi_tool(call, params).await,
        "workflows/templates" => {
            let text = |name: &str| params.get(name).and_then(Value::as_str);
            let limit = limit(params)?;
            let (all, total) = mcp.workflows.templates.list(text("category"), text("name"), limit);
            let mut listed = json!({"total_count": total});
            if all.len() < total.min(limit) {
                listed["truncated"] = true.into();
            }
            listed["templates"] = all.into();
            Ok(listed)
        }
        "workflows/get_template" => {
            let named = params.get("name").or_else(|| params.get("template")).unwrap_or(&Value::Null);
            let wanted = TemplateRef::parse(named).map_err(|fault| unfit(fault.message))?;
            let version = params.get("version").and_then(Value::as_str).or(wanted.version.as_deref());
            let found = mcp.workflows.templates.get(&wanted.name, version);
            found
                .map(|template| json!({"template": template}))
                .map_err(|missing| Failed::new(json!({"name": wanted.name, "status": "error"}), missing.code()))
        }
        "workflows/register_template" => {
            let template = params.get("template").cloned().unwrap_or_else(|| Value::Object(params.clone()));
            let fields = json!({"name": template.get("name"), "status": "error"});
            let template = Template::parse(&template).map_err(|faults| Failed::of_faults(fields.clone(), &faults))?;
            check_examples(mcp, &template).map_err(|faults| Failed::of_faults(fields.clone(), &faults))?;
            let registered = mcp.workflows.templates.register(store, user, template).await;
            registered.map_err(|error| Failed::new(fields, error.to_string()))
        }
        "workflows/create_from_template" => create_from_template(call, params).await,
        "workflows/list" => {
            let all = definitions::list(store, user).await?;
            let all: Vec<_> = all.iter().map(|stored| stored.shown(false)).take(limit(params)?).collect();
            Ok(json!({"total_count": all.len(), "workflows": all}))
        }
        "workflows/get" => {
            let id = required(params, "workflowId")?;
            let stored = definitions::find(store, user, id).await?;
            stored.map(|stored| stored.shown(true)).ok_or_else(|| no_workflow(id))
        }
        "workflows/delete" => {
            let id = required(params, "workflowId")?;
            let _arming = mcp.workflows.arming.lock().await;
            let was_there = definitions::delete(store, user, id).await?;
            mcp.workflows.armed.disarm(user, ArmedBy::Workflow(id.to_owned()));
            match was_there {
                true => Ok(json!({"workflow_id": id, "status": "deleted"})),
                false => Err(no_workflow(id)),
            }
        }
        "workflows/runs" => {
            let workflow = params.get("workflowId").and_then(Value::as_str);
            let status: Option<Status> = match params.get("status") {
                None | Some(Value::Null) => None,
                Some(word) => Some(serde_json::from_value(word.clone()).map_err(|_| {
                    unfit(format!("status: expected running, completed, failed or cancelled, came {word}"))
                })?),
            };
            let all = records::list(store, user).await?;
            let fits = |record: &&records::Record| {
                workflow.is_none_or(|id| id == record.workflow_id)
                    && status.is_none_or(|status| status == record.status)
            };
            let all: Vec<_> = all.iter().filter(fits).take(limit(params)?).map(|record| record.shown(false)).collect();
            Ok(json!({"total_count": all.len(), "runs": all}))
        }
        "workflows/run" => {
            let id = required(params, "runId")?;
            let record = records::find(store, id).await?.filter(|record| *record.user == *user.user);
            record.map(|record| record.shown(true)).ok_or_else(|| no_run(id))
        }
        "workflows/cancel" => {
            let id = required(params, "runId")?;
            let live = mcp.workflows.live(id).filter(|live| live.owner == *user).ok_or_else(|| no_run(id))?;
            live.stop("cancelled by the client");
            let finished = live.finished().await;
            Ok(json!({"run_id": id, "workflow_id": &*live.workflow, "status": finished.status()}))
        }
        "workflows/register_trigger" => {
            let trigger = params.get("trigger").cloned().unwrap_or_else(|| Value::Object(params.clone()));
            let registered = triggers::register(mcp, user, &trigger).await;
            registered.map_err(|error| Failed::new(json!({"status": "error"}), error.to_string()))
        }
        "workflows/triggers" => {
            let all = triggers::list(mcp, user).await?;
            Ok(json!({"total_count": all.len(), "triggers": all}))
        }
        "workflows/remove_trigger" => {
            let id = required(params, "triggerId")?;
            match triggers::remove(mcp, user, id).await? {
                true => Ok(json!({"trigger_id": id, "status": "removed"})),
                false => Err(Failed::new(json!({"trigger_id": id, "status": "error"}), "not_found")),
            }
        }
        "workflows/emit" => {
            let event = required(params, "event")?;
            let payload = params.get("payload").cloned().unwrap_or_else(|| json!({}));
            let fields = json!({"event": event, "status": "error"});
            triggers::emit(mcp, user, event, &payload).map_err(|why| Failed::new(fields, why))
        }
        _ => context_method(call, method, params).await,
    }
}

async fn context_method(call: &Arc<Call>, method: &str, params: &Params) -> Result<Value, Failed> {
    let (store, user) = (&call.session.mcp.workflows.store, &call.session.user);
    let whole = |name: &str| match params.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            value.as_u64().map(Some).ok_or_else(|| unfit(format!("{name}: expected a whole number, came {value}")))
        }
    };
    let with_status = |context: &SharedContext, status: &str| {
        let mut shown = contexts::shown(context);
        shown["status"] = status.into();
        shown
    };
    match method {
        "contexts/create" => {
            let policy = match params.get("accessPolicy") {
                None | Some(Value::Null) => AccessPolicy::default(),
                Some(policy) => serde_json::from_value(policy.clone()).map_err(|error| {
                    unfit(format!(
                        "accessPolicy: expected lists read and write of \"user:ID\", \"role:NAME\" or \"*\": {error}"
                    ))
                })?,
            };
            let new = NewContext {
                context_id: contexts::new_id(),
                owner: user.user.to_string(),
                data: params.get("data").cloned().unwrap_or_else(|| json!({})),
                expires_in_s: whole("expiresIn")?,
                access_policy: policy,
                metadata: params.get("metadata").cloned().unwrap_or_else(|| json!({})),
            };
            Ok(with_status(&contexts::create(store, user, new).await?, "created"))
        }
        "contexts/get" => {
            let id = required(params, "contextId")?;
            Ok(contexts::shown(&contexts::get(store, user, id, whole("version")?).await?))
        }
        "contexts/update" | "contexts/merge" => {
            let id = required(params, "contextId")?;
            let data = params.get("data").cloned().unwrap_or(Value::Null);
            let if_version = whole("ifVersion")?;
            let merges = method == "contexts/merge";
            let changed = contexts::change(store, user, id, move |context, now_ms| {
                if merges { context.merge(&data, if_version, now_ms) } else { context.update(data, if_version, now_ms) }
            });
            Ok(with_status(&changed.await?, if merges { "merged" } else { "updated" }))
        }
        "contexts/extend" => {
            let id = required(params, "contextId")?;
            let seconds = whole("seconds")?.ok_or_else(|| unfit("Missing required field: seconds"))?;
            let changed = contexts::change(store, user, id, move |context, now_ms| context.extend(seconds, now_ms));
            Ok(with_status(&changed.await?, "extended"))
        }
        "contexts/delete" => {
            let id = required(params, "contextId")?;
            contexts::delete(store, user, id).await?;
            Ok(json!({"context_id": id, "status": "deleted"}))
        }
        "contexts/versions" => {
            let id = required(params, "contextId")?;
            let all = contexts::versions(store, user, id).await?;
            let all: Vec<_> = all
                .iter()
                .map(|context| {
                    let updated_at = clock::iso8601_micros(context.updated_at_ms * 1_000);
                    json!({"version": context.version, "updated_at": updated_at})
                })
                .collect();
            Ok(json!({"context_id": id, "total_count": all.len(), "versions": all}))
        }
        _ => {
            let filter = Filter {
                owner: None,
                created_after_ms: whole("createdAfterMs")?,
                created_before_ms: whole("createdBeforeMs")?,
                version: whole("version")?,
                has_metadata: params.get("hasMetadata").and_then(Value::as_bool),
                limit: Some(limit(params)?),
            };
            let all = contexts::list(store, user).await?;
            let all: Vec<_> = filter
                .select(&all)
                .map(|context| {
                    let mut shown = contexts::shown(context);
                    if let Some(shown) = shown.as_object_mut() {
                        shown.remove("data");
                    }
                    shown
                })
                .collect();
            Ok(json!({"total_count": all.len(), "contexts": all}))
        }
    }
}

/// What a caller says of a run. Source: the contract of the Elixir deployment, section 4.4, and further keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    streaming: bool,
    context: Option<Value>,
    context_id: Option<String>,
    timeout_ms: Option<u64>,
    sampling_enabled: Option<bool>,
    include_metadata: bool,
    input: Option<Value>,
    is_async: bool,
    outlives_caller: Option<bool>,
}

impl Options {
    pub(super) fn read(value: Option<&Value>) -> Result<Self, String> {
        let none = Map::new();
        let fields = match value {
            None | Some(Value::Null) => &none,
            Some(Value::Object(fields)) => fields,
            Some(other) => return Err(format!("options: expected an object, came {other}")),
        };
        let given = |name: &str| fields.get(name).filter(|value| !value.is_null());
        let flag = |name: &str| match given(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(format!("options.{name}: expected true or false, came {other}")),
        };
        let context = given("context").cloned();
        if let Some(context) = context.as_ref().filter(|context| !context.is_object()) {
            return Err(format!("options.context: expected an object, came {context}"));
        }
        for name in ["context", "input"] {
            if given(name).is_some_and(|value| is_deeper(value, DEPTH_MAX)) {
                let text = "lists and objects within each other, came more";
                return Err(format!("options.{name}: expected at most {DEPTH_MAX} {text}"));
            }
        }
        let outlives_caller = match given("on_disconnect").map(|word| word.as_str()) {
            None => None,
            Some(Some("continue")) => Some(true),
            Some(Some("cancel")) => Some(false),
            Some(_) => return Err("options.on_disconnect: expected \"continue\" or \"cancel\"".to_owned()),
        };
        let context_id = match given("context_id") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(other) => return Err(format!("options.context_id: expected a string, came {other}")),
        };
        Ok(Options {
            streaming: flag("streaming")?.unwrap_or(false),
            context,
            context_id,
            timeout_ms: given("timeout").map(definitions::timeout_ms).transpose()?,
            sampling_enabled: flag("sampling_enabled")?,
            include_metadata: flag("include_metadata")?.unwrap_or(false),
            input: given("input").cloned(),
            is_async: flag("async")?.unwrap_or(false),
            outlives_caller,
        })
    }

    /// What a run of a definition goes by.
    pub(super) fn run_options(&self, definition: &Definition) -> RunOptions {
        RunOptions {
            streaming: self.streaming,
            uses_model: self.sampling_enabled.unwrap_or(true),
            outlives_caller: self.outlives_caller.unwrap_or(definition.outlives_caller),
            resumes: definition.resumes,
            timeout_ms: self.timeout_ms.or(definition.timeout_ms).unwrap_or(TIMEOUT_MS),
        }
    }
}

async fn create(call: &Arc<Call>, params: &Params) -> Result<Value, Failed> {
    let id = workflow_id(params)?.unwrap_or_else(new_workflow_id);
    let definition = params.get("definition").unwrap_or(&Value::Null);
    create_as(call, &id, definition).await
}

async fn create_as(call: &Arc<Call>, id: &str, definition: &Value) -> Result<Value, Failed> {
    let fields = || json!({"workflow_id": id, "status": "error"});
    let (mcp, user) = (&call.session.mcp, &call.session.user);
    let compiled = workflow::compile(definition, &mcp.workflows.templates);
    let (read, expanded) = compiled.map_err(|faults| Failed::of_faults(fields(), &faults))?;
    if let Kind::Reactive { triggers, .. } = &read.step(0).kind
        && let Some(why) = triggers::deaf_to(mcp, user, triggers)
    {
        return Err(Failed::new(fields(), why));
    }
    let stored = definitions::new(id, user, &call.session.server.name, read.kind_name(), definition.clone(), expanded);
    // In a task of its own, which ends by itself: what is stored is heeded too, whether or not anybody waits.
    let (storing, owner, workflow) = (Arc::clone(mcp), user.clone(), id.to_owned());
    let stored = tokio::spawn(async move {
        let _arming = storing.workflows.arming.lock().await;
        let version = definitions::put(&storing.workflows.store, &owner, stored).await?;
        triggers::arm_workflow(&storing, &owner, &workflow, &read);
        Ok(version)
    });
    let version = stored.await.unwrap_or(Err(CallError::Cancelled));
    let version = version.map_err(|error| Failed::new(fields(), error.to_string()))?;
    Ok(json!({
        "workflow_id": id, "status": "created", "definition": definition, "version": version,
        "capabilities": {
            "streaming": true, "context_sharing": true, "parallel_execution": true, "conditional_flows": true,
            "reactive_triggers": true,
        },
    }))
}

async fn create_from_template(call: &Arc<Call>, params: &Params) -> Result<Value, Failed> {
    let id = workflow_id(params)?.unwrap_or_else(new_workflow_id);
    let named = params.get("template").or_else(|| params.get("name")).unwrap_or(&Value::Null);
    let fields = || json!({"workflow_id": id, "status": "error"});
    let wanted = TemplateRef::parse(named).map_err(|fault| Failed::new(fields(), fault.message))?;
    let mut definition = json!({"type": "template", "template": wanted.name});
    let version = params.get("version").cloned().or_else(|| wanted.version.map(Value::String));
    if let Some(version) = version {
        definition["version"] = version;
    }
    definition["params"] = params.get("params").cloned().unwrap_or_else(|| json!({}));
    let mut created = create_as(call, &id, &definition).await?;
    created["template"] = wanted.name.into();
    Ok(created)
}

/// Whether a template's examples make definitions that can be run.
fn check_examples(mcp: &Mcp, template: &Template) -> Result<(), Vec<Fault>> {
    for (n, example) in template.examples.iter().enumerate() {
        let made = template.instantiate(&example.params)?;
        let compiled = workflow::compile(&made, &mcp.workflows.templates);
        compiled.map_err(|faults| {
            let of_example = |fault: Fault| {
                Fault::new(format!("/definition{}", fault.path), format!("with example {n}: {}", fault.message))
            };
            faults.into_iter().map(of_example).collect::<Vec<_>>()
        })?;
    }
    Ok(())
}

/// What is to be run.
pub(super) struct Wanted {
    pub(super) id: String,
    pub(super) definition: Definition,
    pub(super) expanded: Value,
    pub(super) options: Options,
    /// As they came.
    pub(super) told_options: Value,
}

async fn execute(call: &Arc<Call>, params: &Params) -> Result<Value, Failed> {
    let wanted = wanted(call, params).await?;
    let include_metadata = wanted.options.include_metadata;
    let (streaming, context_sharing) = (wanted.options.streaming, wanted.options.context_id.is_some());
    let is_async = wanted.options.is_async;
    let (live, attached) = begin(call, wanted, !is_async).await?;
    let (id, run_id) = (live.workflow.to_string(), live.id.clone());
    if is_async {
        return Ok(json!({"workflow_id": id, "run_id": run_id, "status": "running"}));
    }
    let finished = live.finished().await;
    drop(attached);
    let time = clock::iso8601_micros(finished.unix_micros);
    match &finished.outcome {
        Ok(result) => {
            let mut inner = json!({"result": **result, "execution_time": time, "mcp_enhanced": true});
            if include_metadata {
                inner["metadata"] = json!({
                    "workflow_type": "mcp_enhanced", "streaming_enabled": streaming, "context_sharing": context_sharing,
                });
            }
            Ok(json!({
                "workflow_id": id, "run_id": run_id, "status": "completed", "result": inner,
                "execution_time": time, "execution_time_ms": finished.worked_ms,
            }))
        }
        Err(failure) => {
            let mut fields = json!({
                "workflow_id": id, "run_id": run_id, "status": "failed", "reason": failure.kind,
                "execution_time": time, "execution_time_ms": finished.worked_ms,
            });
            if let Some(step) = &failure.step {
                fields["step"] = step.as_str().into();
            }
            Err(Failed::new(fields, failure.to_error_text()))
        }
    }
}

/// Reads what is to be run: a definition, or the stored one of that id.
pub(super) async fn wanted(call: &Arc<Call>, params: &Params) -> Result<Wanted, Failed> {
    let (mcp, user) = (&call.session.mcp, &call.session.user);
    let given = workflow_id(params)?;
    let fields = || json!({"workflow_id": given, "status": "creation_failed"});
    let told_options = params.get("options").cloned().unwrap_or_else(|| json!({}));
    let options = Options::read(params.get("options")).map_err(|why| Failed::new(fields(), why))?;
    let (id, definition, expanded) = match (params.get("definition").filter(|given| !given.is_null()), &given) {
        (Some(definition), _) => {
            let compiled = workflow::compile(definition, &mcp.workflows.templates);
            let (read, expanded) = compiled.map_err(|faults| Failed::of_faults(fields(), &faults))?;
            (given.clone().unwrap_or_else(new_workflow_id), read, expanded)
        }
        (None, Some(id)) => {
            let stored = definitions::find(&mcp.workflows.store, user, id).await?;
            let stored = stored.ok_or_else(|| Failed::new(fields(), format!("Workflow not found: {id}")))?;
            let compiled = workflow::compile(&stored.expanded, &());
            let (read, expanded) = compiled.map_err(|faults| Failed::of_faults(fields(), &faults))?;
            (id.clone(), read, expanded)
        }
        (None, None) => return Err(Failed::new(fields(), "Missing required field: definition")),
    };
    Ok(Wanted { id, definition, expanded, options, told_options })
}

/// Begins a run in the name of a call, which waits for it if it `is_attached`.
pub(super) async fn begin(
    call: &Arc<Call>,
    wanted: Wanted,
    is_attached: bool,
) -> Result<(Arc<LiveRun>, Option<Attached>), Failed> {
    let session = &call.session;
    let Wanted { id, definition, expanded, options, told_options } = wanted;
    let fields = json!({"workflow_id": id, "status": "creation_failed"});
    let mut context = json!({});
    if let Some(context_id) = &options.context_id {
        let shared = contexts::get(&session.mcp.workflows.store, &session.user, context_id, None).await;
        context = shared.map_err(|refused| Failed::new(fields.clone(), Failed::from(refused).text()))?.data;
    }
    if let (Some(own), Some(context)) = (&options.context, context.as_object_mut()) {
        context.extend(own.as_object().cloned().unwrap_or_default());
    }
    let run_options = options.run_options(&definition);
    let going_on = GoingOn {
        definition: expanded,
        input: options.input,
        context,
        trigger: Value::Null,
        workflow: 0,
        options: RunOptions { streaming: run_options.streaming && session.is_streaming(), ..run_options },
        depth: 0,
    };
    let new = NewRunOf {
        server: Arc::clone(&session.server),
        owner: session.user.clone(),
        connection: session.connection(),
        request_id: if is_attached { call.id.clone() } else { no_request() },
        workflow: id.into(),
        definition: Arc::new(definition),
        going_on,
        told_options,
        call: is_attached.then(|| Arc::clone(call)),
    };
    start(&session.mcp, new).await.map_err(|error| Failed::new(fields, error.to_string()))
}

async fn multi_tool(call: &Arc<Call>, params: &Params) -> Result<Value, Failed> {
    let fields = || json!({"operation_type": "multi_tool", "status": "failed"});
    let calls = params.get("calls").or_else(|| params.get("tool_calls")).cloned().unwrap_or_else(|| json!([]));
    if !calls.is_array() {
        return Err(Failed::new(fields(), "Invalid tool call format"));
    }
    let definition = json!({"type": "multi_tool", "calls": calls});
    let mut asked = BTreeMap::from([("definition", definition)]);
    if let Some(options) = params.get("options") {
        asked.insert("options", options.clone());
    }
    let asked: Params = asked.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    // Without the place, as the deployment's clients know these texts.
    let wanted = wanted(call, &asked).await.map_err(|failed| {
        let text = failed.0.pointer("/errors/0/message").and_then(Value::as_str).map(ToOwned::to_owned);
        Failed::new(fields(), text.unwrap_or_else(|| failed.text()))
    })?;
    let (live, attached) = begin(call, wanted, true).await.map_err(|failed| Failed::new(fields(), failed.text()))?;
    let run_id = live.id.clone();
    let finished = live.finished().await;
    drop(attached);
    match &finished.outcome {
        Ok(result) => {
            let mut result = Value::clone(result);
            result["run_id"] = run_id.into();
            Ok(result)
        }
        Err(failure) => Err(Failed::new(fields(), failure.to_error_text())),
    }
}

impl Failed {
    /// The text of what went wrong.
    pub(super) fn text(&self) -> String {
        self.0.get("error").and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

fn unfit(text: impl Into<String>) -> Failed {
    Failed::new(json!({"status": "error"}), text)
}

fn no_workflow(id: &str) -> Failed {
    Failed::new(json!({"workflow_id": id, "status": "error"}), format!("Workflow not found: {id}"))
}

fn no_run(id: &str) -> Failed {
    Failed::new(json!({"run_id": id, "status": "error"}), format!("Run not found: {id}"))
}

fn required<'a>(params: &'a Params, name: &str) -> Result<&'a str, Failed> {
    match params.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        None => Err(unfit(format!("Missing required field: {name}"))),
        Some(other) => Err(unfit(format!("{name}: expected a string, came {other}"))),
    }
}

fn limit(params: &Params) -> Result<usize, Failed> {
    match params.get("limit") {
        None | Some(Value::Null) => Ok(LISTED_MAX),
        Some(value) => {
            let limit = value.as_u64().and_then(|limit| usize::try_from(limit).ok());
            let limit = limit.ok_or_else(|| unfit(format!("limit: expected a whole number, came {value}")))?;
            Ok(limit.min(LISTED_MAX))
        }
    }
}

/// The id that a client gives a workflow.
fn workflow_id(params: &Params) -> Result<Option<String>, Failed> {
    match params.get("workflowId") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) if (1..=WORKFLOW_ID_BYTES_MAX).contains(&id.len()) => Ok(Some(id.clone())),
        Some(other) => {
            let text = format!("workflowId: expected a string of 1 to {WORKFLOW_ID_BYTES_MAX} bytes, came {other}");
            Err(Failed::new(json!({"workflow_id": other, "status": "error"}), text))
        }
    }
}

fn new_workflow_id() -> String {
    format!("workflow_{:016x}", u64::from_be_bytes(random::bytes()))
}

/// The call behind a tool's context.
pub(super) fn call_of(context: &CallContext) -> Arc<Call> {
    context.call()
}
