//! The templates that every server has.
//!
//! Source: the contract of the Elixir deployment, section 10.2. The tools that they name are for the server's operator to
//! add. The loop's `max_iterations` is ours, since a loop needs a bound; `max_concurrent` is used here, and was not there.

use serde_json::{Value, json};

use crate::protocol::workflow::template::Template;

/// What the id of a built-in template begins with; its name follows. Ids of others have 16 hexadecimal digits there.
pub const BUILTIN_ID_PREFIX: &str = "template_";
/// Rounds of the loop of `batch_processing` at most.
pub const BATCH_ITERATIONS_MAX: u64 = 1_000;

/// The built-in templates, in the order of the deployment's; all of version 1.0.0.
pub fn templates() -> [Template; 5] {
    [data_processing_pipeline(), user_onboarding(), content_moderation(), batch_processing(), api_integration()]
        .map(|template| Template::parse(&template).expect("the test below parses each"))
}

/// The id of the built-in template of that name.
pub fn id(name: &str) -> String {
    format!("{BUILTIN_ID_PREFIX}{name}")
}

fn data_processing_pipeline() -> Value {
    json!({
        "name": "data_processing_pipeline",
        "version": "1.0.0",
        "description": "Fetches data, transforms it and saves it",
        "category": "data_processing",
        "parameters": [
            {"name": "source", "type": "string", "required": true, "description": "Where the data comes from"},
            {"name": "destination", "type": "string", "required": true, "description": "Where the data goes"},
            {"name": "format", "type": "string", "default": "json", "description": "What the data is transformed to"},
        ],
        "definition": {
            "type": "sequential",
            "steps": [
                {"tool": "data_fetcher", "params": {"source": "{{source}}"}},
                {"tool": "data_transformer", "params": {"format": "{{format}}"}},
                {"tool": "data_saver", "params": {"destination": "{{destination}}"}},
            ],
        },
        "examples": [
            {"name": "From an API to a database",
             "params": {"source": "api", "destination": "database", "format": "json"}},
        ],
        "metadata": {"tags": ["data", "etl", "pipeline"]},
    })
}

fn user_onboarding() -> Value {
    json!({
        "name": "user_onboarding",
        "version": "1.0.0",
        "description": "Validates a user, and welcomes or rejects them",
        "category": "user_management",
        "parameters": [
            {"name": "user_type", "type": "string", "required": true, "description": "What kind of user comes"},
            {"name": "welcome_template", "type": "string", "default": "standard", "description": "How to welcome them"},
        ],
        "definition": {
            "type": "conditional",
            "condition": {"tool": "user_validator", "params": {"user_type": "{{user_type}}"}},
            "success": [
                {"tool": "welcome_service", "params": {"template": "{{welcome_template}}"}},
                {"tool": "notification_service", "params": {"event": "user_welcomed"}},
            ],
            "failure": [{"tool": "rejection_service", "params": {"reason": "validation_failed"}}],
        },
        "examples": [
            {"name": "A premium user", "params": {"user_type": "premium", "welcome_template": "premium"}},
        ],
        "metadata": {"tags": ["user", "onboarding", "conditional"]},
    })
}

fn content_moderation() -> Value {
    json!({
        "name": "content_moderation",
        "version": "1.0.0",
        "description": "Analyses content in several ways at once and joins the verdicts",
        "category": "content_management",
        "parameters": [
            {"name": "content_type", "type": "string", "required": true, "description": "What kind of content it is"},
            {"name": "strictness", "type": "string", "default": "medium", "description": "How strict to be"},
        ],
        "definition": {
            "type": "parallel",
            "steps": [
                {"tool": "text_analyzer", "params": {"strictness": "{{strictness}}"}},
                {"tool": "image_analyzer", "params": {"content_type": "{{content_type}}"}},
                {"tool": "spam_detector", "params": {"threshold": "0.8"}},
            ],
            "merge_step": {"tool": "moderation_aggregator", "params": {"strategy": "consensus"}},
        },
        "examples": [{"name": "Images, strictly", "params": {"content_type": "image", "strictness": "high"}}],
        "metadata": {"tags": ["content", "moderation", "parallel"]},
    })
}

fn batch_processing() -> Value {
    json!({
        "name": "batch_processing",
        "version": "1.0.0",
        "description": "Processes and validates items in batches and joins the results",
        "category": "data_processing",
        "parameters": [
            {"name": "batch_size", "type": "integer", "default": 10, "description": "Items in a batch"},
            {"name": "max_concurrent", "type": "integer", "default": 3, "description": "Batches at a time"},
        ],
        "definition": {
            "type": "loop",
            "max_iterations": BATCH_ITERATIONS_MAX,
            "max_concurrent": "{{max_concurrent}}",
            "steps": [
                {"tool": "item_processor", "params": {"batch_size": "{{batch_size}}"}},
                {"tool": "item_validator", "params": {"strict": false}},
            ],
            "aggregator": {"tool": "batch_aggregator", "params": {"strategy": "merge"}},
        },
        "examples": [{"name": "Large batches", "params": {"batch_size": 50, "max_concurrent": 5}}],
        "metadata": {"tags": ["batch", "processing", "loop"]},
    })
}

fn api_integration() -> Value {
    json!({
        "name": "api_integration",
        "version": "1.0.0",
        "description": "Calls an API, validates what it answers and transforms it",
        "category": "integration",
        "parameters": [
            {"name": "api_endpoint", "type": "string", "required": true, "description": "URL to call"},
            {"name": "retry_count", "type": "integer", "default": 3, "description": "Further attempts after a failure"},
        ],
        "definition": {
            "type": "sequential",
            "steps": [
                {"tool": "api_caller", "params": {"endpoint": "{{api_endpoint}}", "retries": "{{retry_count}}"}},
                {"tool": "response_validator", "params": {"strict": true}},
                {"tool": "response_transformer", "params": {"format": "normalized"}},
            ],
        },
        "examples": [
            {"name": "A list of users", "params": {"api_endpoint": "https://api.example.com/users", "retry_count": 5}},
        ],
        "metadata": {"tags": ["api", "integration", "error_handling"]},
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn template(name: &str) -> Template {
        templates().into_iter().find(|template| template.name == name).expect("a built-in template")
    }

    fn instantiate(name: &str, params: &Value) -> Value {
        template(name).instantiate(params.as_object().expect("an object")).expect("an instance")
    }

    #[test]
    fn each_has_an_example_and_leaves_no_placeholder() {
        for template in templates() {
            let [example] = &template.examples[..] else { panic!("one example of {}", template.name) };

            let instance = template.instantiate(&example.params).expect("an instance").to_string();

            assert!(!instance.contains("{{") && !instance.contains("}}"), "{instance}");
            assert_eq!(template.version, "1.0.0");
        }
        assert_eq!(id("user_onboarding"), "template_user_onboarding");
    }

    #[test]
    fn parameters_and_tags_are_the_deployments() {
        let told = templates().map(|template| {
            let parameters = template.parameters.iter().map(|parameter| {
                let default = parameter.default.as_ref().map(|default| format!("={default}")).unwrap_or_default();
                format!("{}{}{default}", parameter.name, if parameter.required { "*" } else { "" })
            });
            let parameters = parameters.collect::<Vec<_>>().join(" ");
            format!("{} {}: {parameters} {}", template.name, template.category, template.metadata["tags"])
        });

        assert_eq!(
            told,
            [
                r#"data_processing_pipeline data_processing: source* destination* format="json" ["data","etl","pipeline"]"#,
                r#"user_onboarding user_management: user_type* welcome_template="standard" ["user","onboarding","conditional"]"#,
                r#"content_moderation content_management: content_type* strictness="medium" ["content","moderation","parallel"]"#,
                r#"batch_processing data_processing: batch_size=10 max_concurrent=3 ["batch","processing","loop"]"#,
                r#"api_integration integration: api_endpoint* retry_count=3 ["api","integration","error_handling"]"#,
            ]
        );
    }

    #[test]
    fn numbers_arrive_as_numbers() {
        let batch = instantiate("batch_processing", &json!({"max_concurrent": 5}));
        let api = instantiate("api_integration", &json!({"api_endpoint": "u"}));

        assert_eq!((&batch["max_concurrent"], &batch["max_iterations"]), (&json!(5), &json!(1000)));
        assert_eq!(batch["steps"][0]["params"], json!({"batch_size": 10}));
        assert_eq!(api["steps"][0]["params"], json!({"endpoint": "u", "retries": 3}));
    }

    #[test]
    fn what_is_required_is_missed() {
        let faults = template("data_processing_pipeline").instantiate(&Map::new()).expect_err("a fault");

        assert_eq!(faults[0].message, "Missing required parameters: source, destination");
        assert_eq!(faults.len(), 1);
    }
}
