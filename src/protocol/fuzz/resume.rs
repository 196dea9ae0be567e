//! What clients say of resuming, on topics and in MCP sessions, held against decoded values.

use super::json::Term;
use crate::protocol::history::{BadResume, Epoch, OFFSET_MAX, Position, Resume};
use crate::protocol::jsonrpc::Object;
use crate::protocol::mcp::recovery::{Position as SessionPosition, Wish};

/// Nesting of lists and maps in an input that is read into terms.
const DEPTH_MAX: usize = 64;
/// Bytes of a refusal: its own words, and 60 characters of what came.
const REFUSAL_BYTES_MAX: usize = 500;

/// The params of a join, or a heartbeat's payload. Input: the text.
///
/// # Panics
/// If something else is read of them than the rules say, or another spelling of the same value is read otherwise.
pub fn resume_params(bytes: &[u8]) {
    let read = Resume::from_params(bytes);
    if let Err(refused) = &read {
        check_refusal(refused);
    }
    if let Ok(Some(Resume::After(position))) = &read {
        let again = format!(r#"{{"resume":{}}}"#, serde_json::to_string(position).expect("it is JSON"));
        assert_eq!(Resume::from_params(again.as_bytes()), read, "what is told is read");
    }
    let wish = Object::parse(bytes).map(|params| Wish::read(&params));
    let acknowledged = SessionPosition::acknowledged(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Terms have no -0, which is no offset.
    let Some(term) = Term::read(text, DEPTH_MAX).filter(|_| !text.contains("-0")) else { return };

    assert_eq!(wish.is_some(), matches!(term, Term::Map(_)), "params are an object");
    let resume = field(&term, "resume");
    match expected(resume) {
        Some(expected) => assert_eq!(read, Ok(expected), "{term:?}"),
        None => assert!(read.is_err(), "{term:?}"),
    }
    check_wish(wish.flatten().as_ref(), &term);
    let expected = field(&term, "lastMessageId").and_then(number);
    // A position with escapes is none, whatever they stand for, and terms don't tell.
    if acknowledged.is_some() || !text.contains('\\') {
        assert_eq!(acknowledged.map(|position| position.0), expected, "{term:?}");
    }

    let mut spelt = String::new();
    term.spell(&mut spelt);
    assert_eq!(Resume::from_params(spelt.as_bytes()).ok(), read.ok(), "{spelt}");
}

fn check_refusal(refused: &BadResume) {
    let text = refused.to_string();
    assert!(text.starts_with("resume: expected ") && text.len() <= REFUSAL_BYTES_MAX, "{text}");
}

fn field<'a>(term: &'a Term, key: &str) -> Option<&'a Term> {
    match term {
        Term::Map(fields) => fields.get(key),
        _ => None,
    }
}

/// What the rules make of a value; none where it is refused.
fn expected(resume: Option<&Term>) -> Option<Option<Resume>> {
    match resume {
        None => Some(None),
        Some(Term::Word(word)) if word != "false" => Some(Some(Resume::FromNow)),
        Some(Term::Map(fields)) if fields.is_empty() => Some(Some(Resume::FromNow)),
        Some(Term::Map(fields)) => {
            let Some(Term::Str(epoch)) = fields.get("epoch") else { return None };
            let Some(Term::Int(offset)) = fields.get("offset") else { return None };
            let is_hex = epoch.chars().count() == 16 && epoch.chars().all(|it| "0123456789abcdef".contains(it));
            let epoch = is_hex.then(|| u64::from_str_radix(epoch, 16)).and_then(Result::ok).map(Epoch)?;
            let offset = offset.parse().ok().filter(|offset| *offset <= OFFSET_MAX)?;
            Some(Some(Resume::After(Position { epoch, offset })))
        }
        Some(_) => None,
    }
}

fn check_wish(wish: Option<&Wish>, term: &Term) {
    let token = field(term, "recoveryToken");
    let is_wanted = token.is_some_and(|token| *token != Term::Word("false".to_owned()));
    assert_eq!(wish.is_some(), is_wanted, "{term:?}");
    let Some(wish) = wish else { return };
    let text = match token {
        Some(Term::Str(text)) => Some(text),
        _ => None,
    };
    assert_eq!(wish.token.as_ref(), text);
    if let Some(position) = wish.position {
        assert_eq!(field(term, "lastMessageId").and_then(number), Some(position.0));
    }
}

/// The position that a value stands for, however it is written.
fn number(term: &Term) -> Option<u64> {
    let text = match term {
        Term::Int(digits) => digits.as_str(),
        Term::Str(text) => text.strip_prefix('@').unwrap_or(text),
        _ => return None,
    };
    let is_plain = !text.is_empty() && text.chars().all(|it| it.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}
