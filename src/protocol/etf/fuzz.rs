//! The fuzzer's function for terms, and properties of the same kind.

use serde_json::value::RawValue;

use super::{Term, compare, decode, encode, from_tagged, to_json, to_tagged};

/// Most bytes of JSON that the fuzzer asks for.
const JSON_BYTES_MAX: usize = 100_000;

/// Reads bytes as a term. What is read must be written, read again, compared and put into JSON without a difference.
///
/// # Panics
/// When one of these does not hold.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let Ok(term) = decode(bytes) else { return };
    check(&term);
}

fn check(term: &Term) {
    let written = encode(term);
    // What was compressed may be larger than a term may be when it comes.
    if let Ok(again) = decode(&written) {
        assert!(again == *term, "another term came back");
        assert_eq!(encode(&again), written);
        assert_eq!(compare(term, &again), std::cmp::Ordering::Equal);
    } else {
        assert!(written.len() > super::TERM_BYTES_MAX, "what was written is not read");
    }
    if let Some(json) = to_json(term, JSON_BYTES_MAX) {
        // Raw, since integers may be greater and lists deeper than serde_json makes values of.
        serde_json::from_str::<&RawValue>(&json).expect("JSON is written as JSON");
    }
    let tagged = to_tagged(term);
    if let Ok(again) = from_tagged(&tagged) {
        assert!(again == *term, "another term came back from the tagged form");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Bits, Int, Items};
    use super::*;

    fn terms() -> impl Strategy<Value = Recipe> {
        let leaf = prop_oneof![
            ".{0,12}".prop_map(Recipe::Atom),
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(n, b)| Recipe::Int(n, b)),
            (-300_i64..300).prop_map(Recipe::Small),
            any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(Recipe::Float),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(Recipe::Binary),
            ".{0,12}".prop_map(|text| Recipe::Binary(text.into_bytes())),
            (proptest::collection::vec(any::<u8>(), 1..20), 1..8_u8).prop_map(|(b, bits)| Recipe::Bits(b, bits)),
        ];
        leaf.prop_recursive(6, 60, 8, |inner| {
            let items = proptest::collection::vec(inner, 0..8);
            (items, 0..4_u8).prop_map(|(items, shape)| Recipe::Items(items, shape))
        })
    }

    /// A term to be: terms themselves are not cloned.
    #[derive(Debug, Clone)]
    enum Recipe {
        Atom(String),
        Int(bool, Vec<u8>),
        Small(i64),
        Float(f64),
        Binary(Vec<u8>),
        Bits(Vec<u8>, u8),
        Items(Vec<Recipe>, u8),
    }

    impl Recipe {
        fn make(&self) -> Term {
            match self {
                Recipe::Atom(text) => Term::atom(text).unwrap(),
                Recipe::Int(negative, amount) => Term::Int(Int::from_amount(*negative, amount)),
                Recipe::Small(int) => Term::int(*int),
                Recipe::Float(float) => Term::Float(*float),
                Recipe::Binary(bytes) => Term::binary(bytes),
                Recipe::Bits(bytes, bits) => Term::Bits(Bits::new(bytes, *bits).unwrap()),
                Recipe::Items(items, shape) => {
                    let items: Vec<Term> = items.iter().map(Recipe::make).collect();
                    let ends_in_list = matches!(items.last(), Some(Term::List(_) | Term::Improper(_)));
                    match shape {
                        0 => Term::Tuple(Items(items)),
                        1 if items.len() > 1 && !ends_in_list => Term::Improper(Items(items)),
                        2 => {
                            let mut entries: Vec<(Term, Term)> = Vec::new();
                            for (at, key) in items.into_iter().enumerate() {
                                if entries.iter().all(|(other, _)| *other != key) {
                                    entries.push((key, Term::int(i64::try_from(at).unwrap())));
                                }
                            }
                            Term::map(entries).unwrap()
                        }
                        _ => Term::List(Items(items)),
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn terms_survive_every_form(recipe in terms()) {
            let term = recipe.make();

            check(&term);
            prop_assert!(decode(&encode(&term)).unwrap() == term);
            prop_assert!(from_tagged(&to_tagged(&term)).unwrap() == term);
        }

        #[test]
        fn the_order_of_terms_is_an_order(one in terms(), two in terms(), three in terms()) {
            let (one, two, three) = (one.make(), two.make(), three.make());

            prop_assert_eq!(compare(&one, &two), compare(&two, &one).reverse());
            if compare(&one, &two).is_le() && compare(&two, &three).is_le() {
                prop_assert!(compare(&one, &three).is_le());
            }
        }

        #[test]
        fn any_bytes_are_a_term_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz(&bytes);
            bytes.insert(0, 131);
            fuzz(&bytes);
        }

        #[test]
        fn bytes_changed_in_a_term_never_panic(recipe in terms(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = encode(&recipe.make());
            let at = at.index(bytes.len());
            bytes[at] = byte;
            fuzz(&bytes);
        }
    }
}
