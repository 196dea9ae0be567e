//! Tools made of functions: the schema comes from the argument's type.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Arguments, ToolHandler, ToolOutput, Work};
use crate::mcp::{CallContext, CallError};
use crate::protocol::mcp::content::Icon;
use crate::protocol::mcp::tool::{TaskSupport, ToolSpec};

/// Something a client can call by name, made of a function.
///
/// ```
/// use bennu::mcp::{CallContext, CallError, Tool};
/// use schemars::JsonSchema;
/// use serde::Deserialize;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Sum {
///     /// The numbers to add.
///     numbers: Vec<f64>,
/// }
///
/// let sum = Tool::new("sum", |sum: Sum, context: CallContext| async move {
///     if sum.numbers.is_empty() {
///         return Err(CallError::failed("expected numbers, came none"));
///     }
///     context.progress(1.0, Some(1.0), None);
///     Ok(sum.numbers.iter().sum::<f64>().to_string())
/// })
/// .description("Adds numbers.");
/// ```
pub struct Tool {
    source: Source,
    on_restart: Option<OnRestart>,
}

/// What becomes of a call that a restart of the server broke off, when its client comes back: in sessions that outlive a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRestart {
    /// It fails, with words that say that it may have taken effect. It is not run again: at most once.
    Fail,
    /// It is run again, with the same [`CallContext::execution_id`]: at least once. With what has taken effect kept by that id it is
    /// exactly once.
    Rerun,
}

enum Source {
    Function { spec: Box<ToolSpec>, run: Run },
    Handler(Arc<dyn ToolHandler>),
}

type Run = Arc<dyn Fn(Map<String, Value>) -> Result<Work, CallError> + Send + Sync>;

/// The arguments of a tool or a prompt that takes none.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
pub struct NoArguments {}

impl Tool {
    /// A tool whose call runs `run`. Arguments are checked against the schema of `A` and read as one; what the function gives
    /// becomes content. It starts inside its session's task, so it must not block: see [`Tool::blocking`].
    pub fn new<A, O, F, Fut>(name: impl Into<String>, run: F) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        O: Into<ToolOutput>,
        F: Fn(A, CallContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, CallError>> + Send + 'static,
    {
        let spec = ToolSpec { input_schema: schema_of::<A>(), ..ToolSpec::new(name) };
        let run = Arc::new(run);
        Self::function(spec, move |arguments| {
            let arguments = read::<A>(arguments)?;
            let run = Arc::clone(&run);
            Ok(Work::new(move |context| async move { run(arguments, context).await.map(Into::into) }))
        })
    }

    /// A tool as [`Tool::new`] whose result is structured: the output schema is that of `O`, against which what it gives is
    /// checked. Revisions before 2026-07-28 take objects only; there another value comes as text alone.
    pub fn structured<A, O, F, Fut>(name: impl Into<String>, run: F) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        O: Serialize + JsonSchema + Send + 'static,
        F: Fn(A, CallContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, CallError>> + Send + 'static,
    {
        let run = Arc::new(run);
        let mut tool = Self::new(name, move |arguments: A, context| {
            let run = Arc::clone(&run);
            async move { ToolOutput::structured(&run(arguments, context).await?) }
        });
        tool.change(|spec| spec.output_schema = Some(schema_of::<O>()));
        tool
    }

    /// A tool as [`Tool::new`] whose call keeps a thread busy; calls above the workers' number wait for their turn. The
    /// function has to look at [`CallContext::check`] often.
    pub fn blocking<A, O, F>(name: impl Into<String>, run: F) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        O: Into<ToolOutput>,
        F: Fn(A, &CallContext) -> Result<O, CallError> + Send + Sync + 'static,
    {
        let run = Arc::new(run);
        Self::new(name, move |arguments: A, context: CallContext| {
            let run = Arc::clone(&run);
            async move { context.on_thread(move |context| run(arguments, context).map(Into::<ToolOutput>::into)).await }
        })
    }

    /// A tool with a schema of your own, whose arguments come as they are.
    pub fn untyped<O, F, Fut>(name: impl Into<String>, input_schema: Value, run: F) -> Self
    where
        O: Into<ToolOutput>,
        F: Fn(Map<String, Value>, CallContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, CallError>> + Send + 'static,
    {
        let run = Arc::new(run);
        Self::function(ToolSpec { input_schema, ..ToolSpec::new(name) }, move |arguments| {
            let run = Arc::clone(&run);
            Ok(Work::new(move |context| async move { run(arguments, context).await.map(Into::into) }))
        })
    }

    fn function(
        spec: ToolSpec,
        run: impl Fn(Map<String, Value>) -> Result<Work, CallError> + Send + Sync + 'static,
    ) -> Self {
        Tool { source: Source::Function { spec: Box::new(spec), run: Arc::new(run) }, on_restart: None }
    }

    /// Sets what the tool says of itself, in full. The name stays.
    pub fn spec(mut self, change: impl FnOnce(&mut ToolSpec)) -> Self {
        self.change(change);
        self
    }

    /// Sets the text for a person or a model.
    pub fn description(self, text: impl Into<String>) -> Self {
        self.spec(|spec| spec.description = text.into())
    }

    /// Sets the name that a person sees.
    pub fn title(self, text: impl Into<String>) -> Self {
        self.spec(|spec| spec.title = Some(text.into()))
    }

    /// Sets hints, an object of `ToolAnnotations`: `readOnlyHint`, `destructiveHint`, `idempotentHint`, `openWorldHint`.
    pub fn annotations(self, annotations: Value) -> Self {
        self.spec(|spec| spec.annotations = Some(annotations))
    }

    /// Adds a picture.
    pub fn icon(self, icon: Icon) -> Self {
        self.spec(|spec| spec.icons.push(icon))
    }

    /// Sets the milliseconds after which a call is ended as failed; 30 000 by default.
    pub fn max_execution_ms(self, ms: u64) -> Self {
        self.spec(|spec| {
            spec.capabilities.max_execution_time = ms;
            spec.metadata.timeout = ms;
        })
    }

    /// Lets calls become tasks, for clients that have the extension.
    pub fn tasks(self, support: TaskSupport) -> Self {
        self.spec(|spec| spec.tasks = support)
    }

    /// Sets what becomes of a call that a restart of the server broke off. By default it is run again if its annotations have
    /// `readOnlyHint` or `idempotentHint`, and fails otherwise.
    pub fn on_restart(mut self, on_restart: OnRestart) -> Self {
        self.on_restart = Some(on_restart);
        self
    }

    pub(crate) fn restarting(&self) -> Option<OnRestart> {
        self.on_restart
    }

    fn change(&mut self, change: impl FnOnce(&mut ToolSpec)) {
        if let Source::Handler(handler) = &self.source {
            let handler = Arc::clone(handler);
            let spec = Box::new(handler.spec());
            let run = move |fields: Map<String, Value>| {
                let text = Value::Object(fields.clone()).to_string();
                handler.prepare(Arguments::new(&text, fields))
            };
            self.source = Source::Function { spec, run: Arc::new(run) };
        }
        if let Source::Function { spec, .. } = &mut self.source {
            change(spec);
        }
    }

    pub(crate) fn into_handler(self) -> Arc<dyn ToolHandler> {
        match self.source {
            Source::Handler(handler) => handler,
            Source::Function { spec, run } => Arc::new(Function { spec: *spec, run }),
        }
    }
}

impl<H: ToolHandler> From<H> for Tool {
    fn from(handler: H) -> Self {
        Tool { source: Source::Handler(Arc::new(handler)), on_restart: None }
    }
}

struct Function {
    spec: ToolSpec,
    run: Run,
}

impl ToolHandler for Function {
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    fn prepare(&self, arguments: Arguments<'_>) -> Result<Work, CallError> {
        (self.run)(arguments.into_fields())
    }
}

/// The schema of a type, as schemars derives it.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    let mut schema = schemars::SchemaGenerator::default().into_root_schema_for::<T>().to_value();
    if let Some(fields) = schema.as_object_mut() {
        // The name of a Rust type says nothing to a client.
        fields.remove("title");
    }
    drop_formats_of_numbers(&mut schema);
    schema
}

/// Takes out the formats that are names of Rust's numbers, such as `uint`: JSON Schema does not have them, and clients warn of
/// each.
fn drop_formats_of_numbers(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let is_number = fields.get("type").is_some_and(|kind| match kind {
                Value::Array(kinds) => kinds.iter().any(|kind| kind == "integer" || kind == "number"),
                kind => kind == "integer" || kind == "number",
            });
            if is_number {
                fields.remove("format");
            }
            for (key, value) in fields {
                match (key.as_str(), value) {
                    // Values, not schemas.
                    ("const" | "default" | "enum" | "examples", _) => {}
                    // Schemas by names of their own.
                    ("properties" | "patternProperties" | "$defs", Value::Object(named)) => {
                        named.values_mut().for_each(drop_formats_of_numbers);
                    }
                    (_, schema) => drop_formats_of_numbers(schema),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(drop_formats_of_numbers),
        _ => {}
    }
}

/// Reads fields as a type. They fit its schema, so that a failure is a rule that the schema does not have.
pub(crate) fn read<A: DeserializeOwned>(fields: Map<String, Value>) -> Result<A, CallError> {
    let read = serde_json::from_value(Value::Object(fields));
    read.map_err(|error| CallError::InvalidArguments(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_have_the_bounds_of_their_type_and_no_format_of_rust() {
        #[derive(JsonSchema)]
        #[allow(dead_code, reason = "only its schema is looked at")]
        struct Order {
            count: u8,
            prices: Vec<f32>,
            offset: Option<i64>,
            default: u8,
            #[schemars(url)]
            at: String,
        }

        let schema = schema_of::<Order>();

        assert_eq!(
            schema["properties"],
            json!({
                "count": {"type": "integer", "minimum": 0, "maximum": 255},
                "prices": {"type": "array", "items": {"type": "number"}},
                "offset": {"type": ["integer", "null"]},
                "default": {"type": "integer", "minimum": 0, "maximum": 255},
                "at": {"type": "string", "format": "uri"},
            })
        );
    }
}
