//! Erlang's order of terms.

use std::cmp::Ordering;

use super::{Pid, Reference, Term};

/// Compares two terms as Erlang's `<` does: numbers by value, then atoms, references, processes, tuples, maps, lists,
/// bits.
///
/// 1 and 1.0 are of one place. Two maps compare by size, then by keys, then by values.
pub fn compare(one: &Term, other: &Term) -> Ordering {
    compare_steps(Step::Terms(one, other, false))
}

/// Compares as the keys of a map are compared: as [`compare`], but every integer before every float.
///
/// Equal here is Erlang's `=:=` of OTP 25, where 0.0 and -0.0 are the same.
pub(super) fn compare_exact(one: &Term, other: &Term) -> Ordering {
    compare_steps(Step::Terms(one, other, true))
}

/// What is left to compare.
enum Step<'a> {
    Terms(&'a Term, &'a Term, bool),
    Rests(Rest<'a>, Rest<'a>, bool),
}

/// The rest of a sequence: every `stride`th item, and what a list ends with.
#[derive(Clone, Copy)]
struct Rest<'a> {
    items: &'a [Term],
    stride: usize,
    tail: Option<&'a Term>,
}

impl<'a> Rest<'a> {
    fn next(self) -> Option<(&'a Term, Rest<'a>)> {
        let first = self.items.first()?;
        Some((first, Rest { items: self.items.get(self.stride..).unwrap_or(&[]), ..self }))
    }
}

fn compare_steps(first: Step<'_>) -> Ordering {
    let mut left = vec![first];
    while let Some(step) = left.pop() {
        let found = match step {
            Step::Terms(one, other, exact) => compare_heads(one, other, exact, &mut left),
            Step::Rests(one, other, exact) => compare_rests(one, other, exact, &mut left),
        };
        if found != Ordering::Equal {
            return found;
        }
    }
    Ordering::Equal
}

fn compare_rests<'a>(one: Rest<'a>, other: Rest<'a>, exact: bool, left: &mut Vec<Step<'a>>) -> Ordering {
    match (one.next(), other.next()) {
        (Some((one, rest)), Some((other, other_rest))) => {
            left.push(Step::Rests(rest, other_rest, exact));
            left.push(Step::Terms(one, other, exact));
            Ordering::Equal
        }
        (None, None) => match (one.tail, other.tail) {
            (Some(one), Some(other)) => {
                left.push(Step::Terms(one, other, exact));
                Ordering::Equal
            }
            (one, other) => tail_rank(one).cmp(&tail_rank(other)),
        },
        (Some(_), None) => LIST_RANK.cmp(&tail_rank(other.tail)),
        (None, Some(_)) => tail_rank(one.tail).cmp(&LIST_RANK),
    }
}

fn compare_heads<'a>(one: &'a Term, other: &'a Term, exact: bool, left: &mut Vec<Step<'a>>) -> Ordering {
    let by_rank = rank(one).cmp(&rank(other));
    if by_rank != Ordering::Equal {
        return by_rank;
    }
    let all = |items: &'a [Term], stride| Rest { items, stride, tail: None };
    match (one, other) {
        (Term::Int(one), Term::Int(other)) => one.cmp(other),
        (Term::Float(one), Term::Float(other)) => one.partial_cmp(other).unwrap_or(Ordering::Equal),
        (Term::Int(_), Term::Float(_)) if exact => Ordering::Less,
        (Term::Float(_), Term::Int(_)) if exact => Ordering::Greater,
        (Term::Int(one), Term::Float(other)) => one.compare_float(*other),
        (Term::Float(one), Term::Int(other)) => other.compare_float(*one).reverse(),
        (Term::Atom(one), Term::Atom(other)) => one.cmp(other),
        (Term::Reference(one), Term::Reference(other)) => compare_references(one, other),
        (Term::Pid(one), Term::Pid(other)) => pid_key(one).cmp(&pid_key(other)),
        (Term::Tuple(one), Term::Tuple(other)) => {
            left.push(Step::Rests(all(one, 1), all(other, 1), exact));
            one.len().cmp(&other.len())
        }
        (Term::Map(one), Term::Map(other)) => {
            let (keys, other_keys) = (all(&one.0, 2), all(&other.0, 2));
            let (values, other_values) =
                (all(one.0.get(1..).unwrap_or(&[]), 2), all(other.0.get(1..).unwrap_or(&[]), 2));
            left.push(Step::Rests(values, other_values, exact));
            left.push(Step::Rests(keys, other_keys, true));
            one.len().cmp(&other.len())
        }
        (Term::List(_) | Term::Improper(_), _) => {
            left.push(Step::Rests(list_rest(one), list_rest(other), exact));
            Ordering::Equal
        }
        _ => compare_bits(one, other),
    }
}

/// A list as a sequence; anything else is an empty one, which does not happen.
fn list_rest(term: &Term) -> Rest<'_> {
    match term {
        Term::Improper(items) => {
            let (tail, items) = items.split_last().map_or((None, &[][..]), |(tail, items)| (Some(tail), items));
            Rest { items, stride: 1, tail }
        }
        Term::List(items) => Rest { items, stride: 1, tail: None },
        _ => Rest { items: &[], stride: 1, tail: None },
    }
}

const NIL_RANK: u8 = 6;
const LIST_RANK: u8 = 7;

/// The place of a term's kind. The empty list is a kind of its own.
fn rank(term: &Term) -> u8 {
    match term {
        Term::Int(_) | Term::Float(_) => 0,
        Term::Atom(_) => 1,
        Term::Reference(_) => 2,
        Term::Pid(_) => 3,
        Term::Tuple(_) => 4,
        Term::Map(_) => 5,
        Term::List(items) if items.is_empty() => NIL_RANK,
        Term::List(_) | Term::Improper(_) => LIST_RANK,
        Term::Binary(_) | Term::Bits(_) => 8,
    }
}

fn tail_rank(tail: Option<&Term>) -> u8 {
    tail.map_or(NIL_RANK, rank)
}

fn compare_references(one: &Reference, other: &Reference) -> Ordering {
    let node = (&one.node, one.creation).cmp(&(&other.node, other.creation));
    // The words are one number, its lowest word first.
    let used = |words: &[u32]| words.iter().rposition(|&word| word != 0).map_or(0, |at| at + 1);
    let (words, other_words) = (&one.words[..used(&one.words)], &other.words[..used(&other.words)]);
    node.then(words.len().cmp(&other_words.len()))
        .then_with(|| words.iter().rev().cmp(other_words.iter().rev()))
        .then(one.words.len().cmp(&other.words.len()))
}

fn pid_key(pid: &Pid) -> (u32, u32, &str, u32) {
    (pid.serial, pid.id, &pid.node, pid.creation)
}

fn compare_bits(one: &Term, other: &Term) -> Ordering {
    let (bytes, bits) = bytes_and_bits(one);
    let (other_bytes, other_bits) = bytes_and_bits(other);
    let shared = bits.min(other_bits);
    let whole = shared / 8;
    let rest = shared % 8;
    let partial = |bytes: &[u8]| if rest == 0 { 0 } else { bytes[whole] >> (8 - rest) };
    bytes[..whole]
        .cmp(&other_bytes[..whole])
        .then_with(|| partial(bytes).cmp(&partial(other_bytes)))
        .then(bits.cmp(&other_bits))
}

fn bytes_and_bits(term: &Term) -> (&[u8], usize) {
    match term {
        Term::Binary(bytes) => (bytes, bytes.len() * 8),
        Term::Bits(bits) => (&bits.bytes, bits.len()),
        _ => (&[], 0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bits, Int, Items};
    use super::*;

    fn list(items: Vec<Term>) -> Term {
        Term::List(Items(items))
    }

    #[test]
    fn kinds_and_values_are_in_erlangs_order() {
        let sorted = [
            Term::Int(Int::parse("-123456789012345678901234567890").unwrap()),
            Term::Float(-1.5),
            Term::int(1),
            Term::Float(1.5),
            Term::int(2),
            Term::Float(1e300),
            Term::atom("").unwrap(),
            Term::atom("a").unwrap(),
            Term::atom("é").unwrap(),
            Term::Tuple(Items(vec![])),
            Term::Tuple(Items(vec![Term::int(9)])),
            Term::Tuple(Items(vec![Term::int(1), Term::int(1)])),
            Term::map(vec![(Term::int(1), Term::int(1))]).unwrap(),
            Term::map(vec![(Term::int(1), Term::int(1)), (Term::int(2), Term::int(1))]).unwrap(),
            Term::map(vec![(Term::int(1), Term::int(2)), (Term::int(2), Term::int(1))]).unwrap(),
            Term::map(vec![(Term::int(1), Term::int(0)), (Term::int(3), Term::int(1))]).unwrap(),
            Term::map(vec![(Term::int(2), Term::int(0)), (Term::Float(1.0), Term::int(1))]).unwrap(),
            list(vec![]),
            Term::Improper(Items(vec![Term::int(1), Term::int(2)])),
            list(vec![Term::int(1)]),
            list(vec![Term::int(1), Term::int(0)]),
            Term::Improper(Items(vec![Term::int(1), Term::binary("")])),
            list(vec![Term::int(2)]),
            Term::binary(""),
            Term::binary("a"),
            Term::Bits(Bits::new(b"a\x80", 1).unwrap()),
            Term::binary(b"a\x80"),
            Term::binary("b"),
        ];

        for (at, one) in sorted.iter().enumerate() {
            for (other_at, other) in sorted.iter().enumerate() {
                assert_eq!(compare(one, other), at.cmp(&other_at), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn one_and_one_point_zero_share_a_place_but_are_two_keys() {
        assert_eq!(compare(&Term::int(1), &Term::Float(1.0)), Ordering::Equal);
        assert_ne!(Term::int(1), Term::Float(1.0));
        assert_eq!(Term::Float(0.0), Term::Float(-0.0));
        assert!(Term::map(vec![(Term::Float(1.0), Term::int(1)), (Term::int(1), Term::int(1))]).is_ok());
        assert!(Term::map(vec![(Term::int(1), Term::int(1)), (Term::int(1), Term::int(2))]).is_err());
    }
}
