//! The requests of the other side that are being served: which ids are in use, and whose answer is still wanted.

use compact_str::CompactString;
use serde_json::value::RawValue;

use super::id_key;

/// Numbers the requests of one conversation, from 1. Unlike the peer's ids, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallNumber(pub u64);

/// The id is that of a request which has not been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the id is in use by a request under way")]
pub struct IdInUse;

/// The requests under way, oldest first. Few at a time, so that a list is quicker than a map.
#[derive(Clone, Debug, Default)]
pub struct Serving {
    last: u64,
    under_way: Vec<(CallNumber, CompactString)>,
}

impl Serving {
    /// None under way; the next one's number is above `last`.
    pub fn after(last: u64) -> Self {
        Serving { last, under_way: Vec::new() }
    }

    /// Notes a request.
    ///
    /// # Errors
    /// [`IdInUse`]: which of the two a response would answer could not be told.
    pub fn begin(&mut self, id: &RawValue) -> Result<CallNumber, IdInUse> {
        let key = id_key(id);
        if self.under_way.iter().any(|(_, other)| *other == key) {
            return Err(IdInUse);
        }
        self.last += 1;
        let number = CallNumber(self.last);
        self.under_way.push((number, key));
        Ok(number)
    }

    /// The request of that id, if it is under way.
    pub fn find(&self, id: &RawValue) -> Option<CallNumber> {
        let key = id_key(id);
        self.under_way.iter().find(|(_, other)| *other == key).map(|(number, _)| *number)
    }

    /// Gives a request under way another id, under which it is answered.
    pub fn rename(&mut self, number: CallNumber, id: &RawValue) {
        if let Some((_, key)) = self.under_way.iter_mut().find(|(other, _)| *other == number) {
            *key = id_key(id);
        }
    }

    /// Forgets a request that was answered or given up; whether it was under way, and so whether its answer is wanted.
    pub fn finish(&mut self, number: CallNumber) -> bool {
        let Some(index) = self.under_way.iter().position(|(other, _)| *other == number) else {
            return false;
        };
        self.under_way.swap_remove(index);
        if self.under_way.is_empty() {
            // An idle conversation holds no buffer.
            self.under_way = Vec::new();
        }
        true
    }

    /// Whether a request is under way.
    pub fn contains(&self, number: CallNumber) -> bool {
        self.under_way.iter().any(|(other, _)| *other == number)
    }

    /// Requests under way.
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("JSON")
    }

    #[test]
    fn a_request_that_is_renamed_is_found_by_its_later_id_alone() {
        let mut serving = Serving::default();
        let number = serving.begin(&id("1")).expect("free");

        serving.rename(number, &id("\"b\""));
        serving.rename(CallNumber(9), &id("3"));

        assert_eq!((serving.find(&id("1")), serving.find(&id("\"b\"")), serving.len()), (None, Some(number), 1));
    }

    #[test]
    fn an_id_is_in_use_until_its_request_is_answered() {
        let mut serving = Serving::default();
        let first = serving.begin(&id("1")).expect("free");

        assert_eq!(serving.begin(&id("1")), Err(IdInUse));
        assert!(serving.begin(&id("\"1\"")).is_ok(), "another type is another id");
        assert_eq!(serving.find(&id("1")), Some(first));

        assert!(serving.finish(first) && !serving.finish(first));
        assert_ne!(serving.begin(&id("1")).expect("free again"), first);
        assert_eq!(serving.len(), 2);
    }
}
