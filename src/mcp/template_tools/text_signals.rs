//! What can be counted in a text that people may not want: shouting, insults, links, repetition, the words of
//! advertising.
//!
//! Each signal has a strength from 0 to 1. None of them understands a text; together they say which texts a person
//! should see.

use std::collections::BTreeSet;

/// What was counted in a text.
#[derive(Debug)]
pub(super) struct Signals {
    pub(super) characters: usize,
    pub(super) words: usize,
    pub(super) links: usize,
    /// Words of [`INSULTS`].
    pub(super) insults: usize,
    /// Phrases of [`PHRASES`].
    pub(super) phrases: usize,
    /// The share of capitals among the letters.
    pub(super) capitals: f64,
    /// The share of words that came before.
    pub(super) repeated_words: f64,
    /// The longest run of one letter or mark.
    pub(super) longest_run: usize,
    /// Marks of exclamation.
    pub(super) exclamations: usize,
    /// Amounts of money, and percentages.
    pub(super) amounts: usize,
    letters: usize,
}

/// Insults of everyday English; single words, which are compared as wholes.
const INSULTS: [&str; 20] = [
    "arsehole", "asshole", "bastard", "bitch", "cretin", "dickhead", "dimwit", "dumbass", "fool", "idiot", "idiots",
    "imbecile", "jerk", "loser", "losers", "moron", "morons", "scum", "stupid", "wanker",
];

/// Phrases of advertising; looked for in the words of a text, one blank between.
const PHRASES: [&str; 20] = [
    "100 free",
    "act now",
    "buy now",
    "cash bonus",
    "click here",
    "click now",
    "double your",
    "earn money",
    "extra income",
    "free gift",
    "free money",
    "limited offer",
    "limited time",
    "lowest price",
    "make money",
    "no obligation",
    "order now",
    "risk free",
    "special promotion",
    "you have won",
];

/// Letters below which capitals say nothing.
const LETTERS_MIN: usize = 12;
/// Words below which repetition says nothing.
const WORDS_MIN: usize = 6;

impl Signals {
    /// Counts in a text.
    pub(super) fn of(text: &str) -> Self {
        let lower = text.to_lowercase();
        let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let letters = text.chars().filter(|c| c.is_alphabetic()).count();
        let capitals = text.chars().filter(|c| c.is_uppercase()).count();
        let distinct = words.iter().collect::<BTreeSet<_>>().len();
        // Blanks around, so that a phrase begins and ends with its words.
        let joined = format!(" {} ", words.join(" "));
        Signals {
            characters: text.chars().count(),
            words: words.len(),
            links: lower.matches("://").count() + lower.matches("www.").count() - lower.matches("://www.").count(),
            insults: words.iter().filter(|word| INSULTS.contains(word)).count(),
            phrases: PHRASES.iter().map(|phrase| joined.matches(&format!(" {phrase} ")).count()).sum(),
            capitals: share(capitals, letters),
            repeated_words: share(words.len() - distinct, words.len()),
            longest_run: longest_run(text),
            exclamations: text.matches('!').count(),
            amounts: text.matches(['$', '€', '£', '%']).count(),
            letters,
        }
    }

    /// How much is shouted: nothing where half of the letters are capitals, all where all are.
    pub(super) fn shouting(&self) -> f64 {
        if self.letters < LETTERS_MIN { 0.0 } else { ramp(self.capitals, 0.5, 1.0) }
    }

    /// How much comes again and again, be it a word or a letter.
    pub(super) fn repetition(&self) -> f64 {
        let words = if self.words < WORDS_MIN { 0.0 } else { ramp(self.repeated_words, 0.4, 0.9) };
        words.max(ramp(self.longest_run as f64, 3.0, 10.0))
    }
}

/// Where a count stands between nothing and `all` of it.
pub(super) fn strength(count: usize, all: usize) -> f64 {
    ramp(count as f64, 0.0, all as f64)
}

/// 0 up to `from`, 1 from `to` on, a line between.
pub(super) fn ramp(value: f64, from: f64, to: f64) -> f64 {
    ((value - from) / (to - from)).clamp(0.0, 1.0)
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Runs of blanks, digits and what draws lines say nothing.
fn longest_run(text: &str) -> usize {
    let (mut longest, mut run, mut last) = (0, 0, None);
    for c in text.chars() {
        run = if last == Some(c) { run + 1 } else { 1 };
        last = Some(c);
        if !c.is_whitespace() && !c.is_numeric() && !"-_=.*#~".contains(c) {
            longest = longest.max(run);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_texts_have_no_signals() {
        let text = "The staging server is down until Monday; see https://example.com/status.\n\
                    -----------\nNASA said so in 2000000.";

        let signals = Signals::of(text);

        assert_eq!((signals.links, signals.insults, signals.phrases, signals.exclamations), (1, 0, 0, 0));
        assert_eq!((signals.shouting(), signals.repetition()), (0.0, 0.0));
    }

    #[test]
    fn what_people_may_not_want_is_counted() {
        let signals =
            Signals::of("YOU IDIOT, you MORON!!!! Click  here: http://www.a.example www.b.example $100, 50% off");

        assert_eq!((signals.insults, signals.phrases, signals.links), (2, 1, 2));
        assert_eq!((signals.exclamations, signals.longest_run, signals.amounts), (4, 4, 2));
        assert!(Signals::of("WHY DOES NOBODY ANSWER").shouting() > 0.99);
        assert_eq!(Signals::of("OK THEN").shouting(), 0.0);
        assert!(Signals::of("buy buy buy buy buy buy buy buy").repetition() > 0.9);
        assert!(Signals::of("nooooooooooo").repetition() > 0.9);
    }

    #[test]
    fn words_are_compared_as_wholes() {
        let signals = Signals::of("Foolproof jerky, stupidity; interact nowhere");

        assert_eq!((signals.insults, signals.phrases), (0, 0));
        assert_eq!(Signals::of("").words, 0);
    }

    #[test]
    fn lists_are_in_lower_case_and_in_order() {
        for list in [INSULTS, PHRASES] {
            assert!(list.is_sorted() && list.iter().all(|entry| *entry == entry.to_lowercase()), "{list:?}");
        }
    }
}
