//! Conditions on values: comparisons, and what joins them.

use std::sync::Arc;

use serde_json::{Number, Value};

use super::source::Source;

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// A value compared with another.
    Test {
        /// What is looked at.
        source: Source,
        /// How.
        op: Op,
        /// With what; null for those that compare with nothing.
        value: Value,
    },
    /// Every one holds.
    All(Vec<Expression>),
    /// One holds at least.
    Any(Vec<Expression>),
    /// It does not hold.
    Not(Box<Expression>),
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The same JSON value; numbers by their value, so that `1` is `1.0`.
    Eq,
    /// Another one.
    Ne,
    /// Greater, of two numbers or two strings; false of others.
    Gt,
    /// Greater or the same.
    Ge,
    /// Less.
    Lt,
    /// Less or the same.
    Le,
    /// One of a list.
    In,
    /// A list that has the value, a string that has the text, an object that has the key.
    Contains,
    /// Something is there, null included.
    Exists,
    /// Neither absent, null nor false: what the deployment's language takes for true.
    Truthy,
}

impl Op {
    /// By its word.
    pub fn read(word: &str) -> Option<Self> {
        Some(match word {
            "eq" => Op::Eq,
            "ne" => Op::Ne,
            "gt" => Op::Gt,
            "ge" => Op::Ge,
            "lt" => Op::Lt,
            "le" => Op::Le,
            "in" => Op::In,
            "contains" => Op::Contains,
            "exists" => Op::Exists,
            "truthy" => Op::Truthy,
            _ => return None,
        })
    }

    /// Whether it compares with a value.
    pub fn has_value(self) -> bool {
        !matches!(self, Op::Exists | Op::Truthy)
    }

    /// Whether `left`, or nothing, stands so to `right`.
    pub fn holds(self, left: Option<&Value>, right: &Value) -> bool {
        let order = |fits: fn(std::cmp::Ordering) -> bool| left.and_then(|left| compare(left, right)).is_some_and(fits);
        match self {
            Op::Eq => left.is_some_and(|left| same(left, right)),
            Op::Ne => !left.is_some_and(|left| same(left, right)),
            Op::Gt => order(std::cmp::Ordering::is_gt),
            Op::Ge => order(std::cmp::Ordering::is_ge),
            Op::Lt => order(std::cmp::Ordering::is_lt),
            Op::Le => order(std::cmp::Ordering::is_le),
            Op::In => left.zip(right.as_array()).is_some_and(|(left, list)| list.iter().any(|each| same(left, each))),
            Op::Contains => left.is_some_and(|left| match left {
                Value::Array(list) => list.iter().any(|each| same(each, right)),
                Value::String(text) => right.as_str().is_some_and(|part| text.contains(part)),
                Value::Object(fields) => right.as_str().is_some_and(|key| fields.contains_key(key)),
                _ => false,
            }),
            Op::Exists => left.is_some(),
            Op::Truthy => left.is_some_and(is_truthy),
        }
    }
}

impl Expression {
    /// Whether it holds, where `find` gives where a source begins; what it points to is not copied.
    pub fn holds(&self, find: &dyn Fn(&Source) -> Option<Arc<Value>>) -> bool {
        match self {
            Expression::Test { source, op, value } => {
                let found = find(source);
                op.holds(source.at(found.as_deref()), value)
            }
            Expression::All(all) => all.iter().all(|each| each.holds(find)),
            Expression::Any(any) => any.iter().any(|each| each.holds(find)),
            Expression::Not(not) => !not.holds(find),
        }
    }
}

/// Whether a result counts as yes: neither null nor false.
pub fn is_truthy(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}

fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare_numbers(left, right).is_some_and(|order| order.is_eq()),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let has = |(key, value): (&String, &Value)| right.get(key).is_some_and(|other| same(value, other));
            left.len() == right.len() && left.iter().all(has)
        }
        _ => left == right,
    }
}

fn compare(left: &Value, right: &Value) -> Option<std::cmp::Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare_numbers(left, right),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

/// Whole numbers exactly, others as doubles.
fn compare_numbers(left: &Number, right: &Number) -> Option<std::cmp::Ordering> {
    let whole = |number: &Number| number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    if let (Some(left), Some(right)) = (whole(left), whole(right)) {
        return Some(left.cmp(&right));
    }
    left.as_f64()?.partial_cmp(&right.as_f64()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_compare_as_people_expect() {
        let holds = |op: &str, left: Value, right: Value| Op::read(op).expect("an operator").holds(Some(&left), &right);

        assert!(holds("eq", json!(1), json!(1.0)) && holds("eq", json!({"a": [1]}), json!({"a": [1.0]})));
        assert!(holds("gt", json!(2), json!(1.5)) && holds("le", json!("a"), json!("b")));
        assert!(!holds("gt", json!("2"), json!(1)) && !holds("le", json!("2"), json!(1)), "of two kinds");
        assert!(holds("gt", json!(u64::MAX), json!(u64::MAX - 1)), "beyond what a double tells apart");
        assert!(holds("in", json!("b"), json!(["a", "b"])) && !holds("in", json!("b"), json!("abc")));
        assert!(holds("contains", json!("abc"), json!("b")) && holds("contains", json!({"k": 0}), json!("k")));
        assert!(holds("ne", json!(1), json!(2)) && Op::Ne.holds(None, &json!(1)));
        assert!(Op::Exists.holds(Some(&Value::Null), &Value::Null) && !Op::Exists.holds(None, &Value::Null));
        assert!(
            Op::Truthy.holds(Some(&json!(0)), &Value::Null) && !Op::Truthy.holds(Some(&json!(false)), &Value::Null)
        );
    }
}
