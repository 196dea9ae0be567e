use serde_json::json;

use super::*;

fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).expect("JSON")
}

fn schema(field: impl Into<Field>) -> Value {
    serde_json::to_value(field.into()).expect("serializes")
}

fn read(form: &Form, result: Value) -> Result<Answer, String> {
    form.read(&jsonrpc::raw(&result)).map_err(|error| error.to_string())
}

/// Checks one value against one field: `None` if it fits, otherwise what was expected and came.
fn refusal(field: impl Into<Field>, came: Value) -> Option<String> {
    let text = read(&Form::new("?").optional("f", field), json!({"action": "accept", "content": {"f": came}}));
    text.err().map(|text| text.replace(r#"elicitation result: field "f": "#, ""))
}

#[test]
fn a_form_is_an_object_schema_and_says_its_mode_if_asked_to() {
    let form = Form::new("Who?").required("name", TextField::new()).optional("age", NumberField::integer());
    let schema = json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name"]
    });

    assert_eq!(
        value(&form.to_params(true)),
        json!({"mode": "form", "message": "Who?", "requestedSchema": schema.clone()})
    );
    assert_eq!(value(&form.to_params(false)), json!({"message": "Who?", "requestedSchema": schema}));
    assert!(form.to_params(false).get().contains(r#"{"name":{"type":"string"},"age":"#), "in the order of the form");
    assert_eq!(
        value(&Form::new("?").to_params(false)),
        json!({"message": "?", "requestedSchema": {"type": "object", "properties": {}}})
    );
}

#[test]
fn fields_have_the_shapes_of_the_schema() {
    assert_eq!(
        schema(
            TextField::new()
                .title("T")
                .description("d")
                .format(Format::DateTime)
                .min_length(1)
                .max_length(9)
                .default("x")
        ),
        json!({
            "type": "string", "title": "T", "description": "d", "format": "date-time", "minLength": 1, "maxLength": 9,
            "default": "x"
        })
    );
    assert_eq!(
        schema(NumberField::number().minimum(0.5).maximum(9.0).default(1.0)),
        json!({"type": "number", "minimum": 0.5, "maximum": 9, "default": 1})
    );
    assert_eq!(schema(BooleanField::new().default(true)), json!({"type": "boolean", "default": true}));
    assert_eq!(
        schema(ChoiceField::of(["a", "b"]).default("a")),
        json!({"type": "string", "enum": ["a", "b"], "default": "a"})
    );
    assert_eq!(
        schema(ChoiceField::titled([("a", "A")])),
        json!({"type": "string", "oneOf": [{"const": "a", "title": "A"}]})
    );
    assert_eq!(
        schema(ChoiceField::legacy_titled([("a", "A"), ("b", "B")])),
        json!({"type": "string", "enum": ["a", "b"], "enumNames": ["A", "B"]})
    );
    assert_eq!(
        schema(ChoicesField::of(["a"]).min_items(1).max_items(2).default(["a"])),
        json!({
            "type": "array", "items": {"type": "string", "enum": ["a"]}, "minItems": 1, "maxItems": 2, "default": ["a"]
        })
    );
    assert_eq!(
        schema(ChoicesField::titled([("a", "A")])),
        json!({"type": "array", "items": {"anyOf": [{"const": "a", "title": "A"}]}})
    );
}

#[test]
fn a_url_request_has_an_id_where_it_was_given_one() {
    let request = UrlRequest::new("Sign in", "https://a/b");

    assert_eq!(value(&request.to_params()), json!({"mode": "url", "message": "Sign in", "url": "https://a/b"}));
    assert_eq!(value(&request.elicitation_id("e1").to_params())["elicitationId"], json!("e1"));
}

#[test]
fn an_answer_is_one_of_three_actions() {
    let form = Form::new("?").optional("a", TextField::new());
    let content = json!({"a": "x"}).as_object().cloned().expect("an object");

    assert_eq!(
        read(&form, json!({"action": "accept", "content": {"a": "x", "other": 1}})),
        Ok(Answer::Accept(content))
    );
    assert_eq!(read(&form, json!({"action": "accept"})), Ok(Answer::Accept(Map::new())));
    assert_eq!(read(&form, json!({"action": "decline", "content": null})), Ok(Answer::Decline));
    assert_eq!(read(&form, json!({"action": "cancel"})), Ok(Answer::Cancel));
}

#[test]
fn what_is_no_answer_is_refused_with_what_was_expected() {
    let form = Form::new("?").required("a", TextField::new());
    let cases = [
        (json!([]), "elicitation result: expected an object"),
        (json!({}), "elicitation result: expected action accept, decline or cancel, came nothing"),
        (json!({"action": 1}), "elicitation result: expected action accept, decline or cancel, came no string"),
        (json!({"action": "ok"}), r#"elicitation result: expected action accept, decline or cancel, came "ok""#),
        (json!({"action": "accept", "content": []}), "elicitation result: expected content to be an object"),
        (json!({"action": "accept"}), r#"elicitation result: field "a" is required, came nothing"#),
    ];

    for (result, expected) in cases {
        assert_eq!(read(&form, result.clone()), Err(expected.to_owned()), "{result}");
    }
}

#[test]
fn values_are_held_to_their_fields() {
    let some = |text: &str| Some(text.to_owned());
    let short = || TextField::new().min_length(2).max_length(3);

    assert_eq!(refusal(short(), json!("äöü")), None);
    assert_eq!(refusal(short(), json!("ä")), some("expected at least 2 characters, came 1"));
    assert_eq!(refusal(short(), json!("abcd")), some("expected at most 3 characters, came 4"));
    assert_eq!(refusal(short(), json!(null)), some("expected a string, came null"));

    let age = || NumberField::integer().minimum(18.0).maximum(99.0);
    assert_eq!(refusal(age(), json!(18)), None);
    assert_eq!(refusal(age(), json!(18.0)), None);
    assert_eq!(refusal(age(), json!(18.5)), some("expected an integer, came 18.5"));
    assert_eq!(refusal(age(), json!(17)), some("expected at least 18, came 17"));
    assert_eq!(refusal(age(), json!(100)), some("expected at most 99, came 100"));
    assert_eq!(refusal(age(), json!("18")), some("expected an integer, came a string of 2 characters"));
    assert_eq!(refusal(NumberField::number(), json!({})), some("expected a number, came an object"));

    assert_eq!(refusal(BooleanField::new(), json!(false)), None);
    assert_eq!(refusal(BooleanField::new(), json!(0)), some("expected a boolean, came 0"));

    for choice in [
        ChoiceField::of(["a", "b"]),
        ChoiceField::titled([("a", "A"), ("b", "B")]),
        ChoiceField::legacy_titled([("a", "A"), ("b", "B")]),
    ] {
        assert_eq!(refusal(choice.clone(), json!("b")), None);
        assert_eq!(refusal(choice, json!("B")), some("expected one of a, b, came a string of 1 characters"));
    }
    for choices in [ChoicesField::of(["a", "b"]), ChoicesField::titled([("a", "A"), ("b", "B")])] {
        let choices = choices.min_items(1).max_items(2);
        assert_eq!(refusal(choices.clone(), json!(["b", "a"])), None);
        assert_eq!(refusal(choices.clone(), json!([])), some("expected at least 1 items, came an array of 0 items"));
        assert_eq!(
            refusal(choices.clone(), json!(["a", "a", "a"])),
            some("expected at most 2 items, came an array of 3 items")
        );
        assert_eq!(refusal(choices.clone(), json!(["a", 1])), some("expected one of a, b, came 1"));
        assert_eq!(refusal(choices, json!("a")), some("expected an array, came a string of 1 characters"));
    }
}

#[test]
fn a_field_added_again_replaces_the_first() {
    let form = Form::new("?").required("a", TextField::new()).optional("a", BooleanField::new());

    assert_eq!(
        value(&form.to_params(false))["requestedSchema"],
        json!({"type": "object", "properties": {"a": {"type": "boolean"}}})
    );
}
