//! Secrets in text: where a secret's name stands with a value, and how the text reads without it.
//!
//! A scanner of words, without a grammar: what it reads may be a log line, a header, a query, JSON, JSON inside JSON, or a
//! debug print of Elixir. Where it can't tell how far a value goes, it takes more rather than less.

use std::borrow::Cow;
use std::ops::Range;

/// What stands for a masked value.
const MASK: &str = "***";
/// Words that a credential follows.
const SCHEMES: [&str; 4] = ["bearer", "basic", "digest", "negotiate"];

/// Whether a key, or a word of a text, names a secret: it contains, in whatever case, `password`, `token`, `secret`,
/// `credential`, `authorization`, or `apikey`, also written `api_key` or `api-key`.
///
/// Source: the contract of the Elixir deployment, section 6.6, whose audit log compares with case; `Authorization` and
/// `API_KEY` would pass there.
pub fn names_secret(name: &str) -> bool {
    let name = name.as_bytes();
    (0..name.len()).any(|at| {
        let begins = |with: &str| begins(&name[at..], with);
        match name[at].to_ascii_lowercase() {
            b'a' => begins("apikey") || begins("api_key") || begins("api-key") || begins("authorization"),
            b'c' => begins("credential"),
            b'p' => begins("password"),
            b's' => begins("secret"),
            b't' => begins("token"),
            _ => false,
        }
    })
}

/// `text` with its secrets masked; itself if there are none. Takes time linear in the text. Secrets are what stands behind
/// a name that [`names_secret`].
pub fn text(text: &str) -> Cow<'_, str> {
    text_by(text, names_secret)
}

/// `text` with its secrets masked, where `names_secret` knows the names of secrets.
///
/// A value follows a word that names a secret, after `=` or `:`, or the word `Bearer`, after a space. A bare one ends at
/// white space, a quote, `&` or `<`, and becomes `password=***`; but if it goes on, as that of `Authorization: Basic eA==`
/// or `password=token: x`, the rest of the line goes with it. One in quotes becomes `"***"`, and one in brackets `{***}`, or
/// `"***"` where the name is in quotes too, so that JSON stays JSON. Numbers, booleans and nulls stay where the name is in
/// quotes, and numbers where it is `tokens`: these count.
///
/// What is masked once is not changed by masking it again.
///
/// Source: the deployment, section 6.6, *stream errors*, which knows `password`, `token` and `secret` alone.
pub fn text_by(text: &str, names_secret: fn(&str) -> bool) -> Cow<'_, str> {
    let scan = Scan { text, bytes: text.as_bytes(), names_secret };
    let mut masked = Masked { text, copied: 0, out: String::new() };
    let mut at = 0;
    while let Some(word) = scan.next_word(at) {
        at = scan.mask_after(&word, &mut masked).unwrap_or(word.end);
    }
    masked.finish()
}

/// The masked text as far as it differs.
struct Masked<'a> {
    text: &'a str,
    copied: usize,
    out: String,
}

impl<'a> Masked<'a> {
    fn replace(&mut self, range: Range<usize>, with: &str) {
        if self.text[range.clone()] != *with {
            self.out.push_str(&self.text[self.copied..range.start]);
            self.out.push_str(with);
            self.copied = range.end;
        }
    }

    fn finish(mut self) -> Cow<'a, str> {
        if self.copied == 0 {
            return Cow::Borrowed(self.text);
        }
        self.out.push_str(&self.text[self.copied..]);
        Cow::Owned(self.out)
    }
}

/// What stands between a name and its value.
struct Separator {
    /// Where the quotes and brackets end that close around the name.
    closed: usize,
    /// The name's closing quote, with the backslashes before it.
    quote: Option<Range<usize>>,
    /// Where the value begins, or would.
    value: usize,
}

enum Value {
    /// Between these; the first is the opening quote with its backslashes, the second the closing one, or the text's end.
    Quoted(Range<usize>, Range<usize>),
    /// From an opening bracket through its closing one, or the text's end.
    Bracketed(usize),
    /// Up to here.
    Bare(usize),
}

struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
    names_secret: fn(&str) -> bool,
}

impl Scan<'_> {
    /// Masks the value that belongs to a word, and returns where it ended.
    fn mask_after(&self, word: &Range<usize>, masked: &mut Masked) -> Option<usize> {
        let name = &self.text[word.clone()];
        if ends(name, "bearer") {
            return self.mask_bearer(word.end, masked);
        }
        if !(self.names_secret)(name) {
            return None;
        }
        let Separator { closed, quote, value: at } = self.separator(word.end)?;
        if self.bytes.get(at).is_none_or(|byte| *byte == b'&') || self.counts(at, name, quote.is_some()) {
            return Some(at);
        }
        // Of these the value goes on behind white space.
        let is_line = contains(name, "authorization") || contains(name, "cookie");
        let value = self.value(at, is_line);
        Some(match (value, quote) {
            (Value::Quoted(open, close), _) => {
                let closing = if close.is_empty() { open.clone() } else { close.clone() };
                let with = format!("{}{MASK}{}", &self.text[open.clone()], &self.text[closing]);
                masked.replace(open.start..close.end, &with);
                close.end
            }
            (Value::Bracketed(end), Some(quote)) => {
                let quote = &self.text[quote];
                masked.replace(at..end, &format!("{quote}{MASK}{quote}"));
                end
            }
            (Value::Bracketed(end), None) => {
                let (open, close) = match self.bytes[at] {
                    b'{' => ('{', '}'),
                    b'[' => ('[', ']'),
                    _ => ('(', ')'),
                };
                masked.replace(at..end, &format!("{open}{MASK}{close}"));
                end
            }
            (Value::Bare(end), Some(_)) => {
                masked.replace(at..end, MASK);
                end
            }
            (Value::Bare(end), None) => {
                masked.replace(closed..end, &format!("={MASK}"));
                end
            }
        })
    }

    fn mask_bearer(&self, after: usize, masked: &mut Masked) -> Option<usize> {
        let at = self.skip_whitespace(after);
        let is_value = |byte: &u8| !is_quote(*byte) && *byte != b'\\';
        if at == after || !self.bytes.get(at).is_some_and(is_value) {
            return None;
        }
        let end = self.bare_end(at, false);
        masked.replace(at..end, MASK);
        Some(end)
    }

    /// The next run of letters, digits, `_`, `-`, `.` and what is not ASCII.
    fn next_word(&self, from: usize) -> Option<Range<usize>> {
        let start = self.find(from, is_word);
        (start < self.bytes.len()).then(|| start..self.find(start, |byte| !is_word(byte)))
    }

    /// What follows a name, if it is followed by `=` or `:`.
    fn separator(&self, after: usize) -> Option<Separator> {
        let closed = self.find(after, |byte| !is_closer(byte));
        let at = self.skip_whitespace(closed);
        if !matches!(self.bytes.get(at), Some(b'=' | b':')) {
            return None;
        }
        // Also `=>`, `:=` and `==`.
        let value = self.skip_whitespace(self.find(at, |byte| !matches!(byte, b'=' | b':' | b'>')));
        let closers = &self.bytes[after..closed];
        let quote = closers.iter().rposition(|byte| is_quote(*byte)).map(|quote| {
            let escapes = closers[..quote].iter().rev().take_while(|byte| **byte == b'\\').count();
            after + quote - escapes..after + quote + 1
        });
        Some(Separator { closed, quote, value })
    }

    /// Whether the value is one that may stay: a number, a boolean or null.
    fn counts(&self, at: usize, name: &str, is_quoted: bool) -> bool {
        let end = self.find(at, |byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'E' | b'.' | b'+' | b'-'));
        if self.bytes.get(end).is_some_and(|byte| !byte.is_ascii_whitespace() && !b",;)}]\"'&".contains(byte)) {
            return false;
        }
        let value = &self.text[at..end];
        let is_number = value.bytes().any(|byte| byte.is_ascii_digit()) && value.parse::<f64>().is_ok();
        (is_number && (is_quoted || contains(name, "tokens")))
            || (is_quoted && matches!(value, "true" | "false" | "null"))
    }

    fn value(&self, at: usize, is_line: bool) -> Value {
        let quote = self.find(at, |byte| byte != b'\\');
        let (value, end) = match self.bytes.get(quote).copied() {
            Some(byte) if is_quote(byte) => {
                let close = self.closing_quote(quote, quote - at);
                (Value::Quoted(at..quote + 1, close.clone()), close.end)
            }
            Some(b'{' | b'[' | b'(') if quote == at => {
                let end = self.closing_bracket(at);
                (Value::Bracketed(end), end)
            }
            _ => return Value::Bare(self.bare_end(at, is_line)),
        };
        if self.ends_with_name(at..end) != Some(true) {
            return value;
        }
        // It was itself the name of a value; also as in `password="token="a b"`, where a word follows the quote.
        let glued = self.bytes.get(end).is_some_and(|byte| is_word(*byte)).then_some(end);
        match self.separator(end).map(|separator| separator.value).or(glued) {
            Some(next) => Value::Bare(self.bare_end(next, true)),
            None => value,
        }
    }

    /// The quote that closes the one at `open`, with its backslashes; nothing, at the end of the text, if none does.
    ///
    /// In a string of JSON in a string of JSON a quote has one backslash, and one inside it three: with each level twice as
    /// many and one more. Backslashes that are content come in multiples of what two quotes of the level have.
    fn closing_quote(&self, open: usize, escapes: usize) -> Range<usize> {
        let mut run = 0;
        for (at, byte) in self.bytes.iter().enumerate().skip(open + 1) {
            if *byte == self.bytes[open] && run % (2 * (escapes + 1)) == escapes {
                return at - escapes..at + 1;
            }
            run = if *byte == b'\\' { run + 1 } else { 0 };
        }
        self.bytes.len()..self.bytes.len()
    }

    /// Behind the bracket that closes the one at `open`; brackets in quotes don't count.
    fn closing_bracket(&self, open: usize) -> usize {
        let (mut at, mut depth, mut escapes) = (open, 0_usize, 0);
        while let Some(byte) = self.bytes.get(at).copied() {
            at += 1;
            match byte {
                b'{' | b'[' | b'(' => depth += 1,
                b'}' | b']' | b')' => depth -= 1,
                byte if is_quote(byte) => at = self.closing_quote(at - 1, escapes).end,
                _ => {}
            }
            if depth == 0 {
                return at;
            }
            escapes = if byte == b'\\' { escapes + 1 } else { 0 };
        }
        self.bytes.len()
    }

    /// Where a value without quotes ends; with `is_line` not before its line does.
    fn bare_end(&self, at: usize, is_line: bool) -> usize {
        let is_stop = |byte: u8| byte.is_ascii_whitespace() || is_quote(byte) || matches!(byte, b'&' | b'<');
        let mut end = if is_line { self.line_end(at) } else { self.find(at + 1, is_stop) };
        if self.bytes.get(end).is_some_and(|byte| is_quote(*byte)) {
            // The quote is that of a string in a string; its backslashes stay with it.
            let escapes = self.bytes[at + 1..end].iter().rev().take_while(|byte| **byte == b'\\').count();
            end -= escapes;
        }
        // Each piece is looked at once, so that a value of many lines takes linear time.
        let mut piece = at..end;
        let mut is_name = false;
        loop {
            is_name = self.ends_with_name(piece.clone()).unwrap_or(is_name);
            match self.continued(piece.clone(), is_name) {
                Some(next) if next < self.bytes.len() => piece = next..self.line_end(next),
                _ => return piece.end,
            }
        }
    }

    /// Where a bare value goes on if it is the scheme of a credential, or ends with the name of another value.
    fn continued(&self, piece: Range<usize>, is_name: bool) -> Option<usize> {
        let next = self.skip_whitespace(piece.end);
        let value = self.text[piece.clone()].trim_ascii_end();
        if next > piece.end && SCHEMES.iter().any(|scheme| ends(value, scheme)) {
            return Some(next);
        }
        if !is_name {
            return None;
        }
        if value.ends_with(['=', ':']) || value.ends_with("=>") {
            return Some(next);
        }
        self.separator(piece.end).map(|separator| separator.value)
    }

    /// Whether the last word names a secret, so that what follows may be the secret; none where only separators are.
    fn ends_with_name(&self, range: Range<usize>) -> Option<bool> {
        let value = &self.bytes[range.clone()];
        let end = value.iter().rposition(|byte| is_word(*byte)).map_or(0, |last| last + 1);
        let start = value[..end].iter().rposition(|byte| !is_word(*byte)).map_or(0, |before| before + 1);
        let separates = |byte: &u8| is_closer(*byte) || byte.is_ascii_whitespace() || b"=:>".contains(byte);
        if !value[end..].iter().all(separates) {
            return Some(false);
        }
        (end > 0).then(|| (self.names_secret)(&self.text[range.start + start..range.start + end]))
    }

    fn line_end(&self, at: usize) -> usize {
        self.find(at, |byte| byte == b'\n')
    }

    fn skip_whitespace(&self, at: usize) -> usize {
        self.find(at, |byte| !byte.is_ascii_whitespace())
    }

    /// The first byte from `at` on that is so, or the end.
    fn find(&self, at: usize, is: impl Fn(u8) -> bool) -> usize {
        let rest = self.bytes.get(at..).unwrap_or_default();
        rest.iter().position(|byte| is(*byte)).map_or(self.bytes.len(), |found| at + found)
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') || !byte.is_ascii()
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

/// What may stand around a name.
fn is_closer(byte: u8) -> bool {
    is_quote(byte) || matches!(byte, b'\\' | b']' | b')')
}

fn begins(text: &[u8], with: &str) -> bool {
    text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()))
}

fn ends(text: &str, with: &str) -> bool {
    text.len().checked_sub(with.len()).is_some_and(|at| begins(&text.as_bytes()[at..], with))
}

fn contains(text: &str, what: &str) -> bool {
    (0..text.len()).any(|at| begins(&text.as_bytes()[at..], what))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(given: &str, expected: &str) {
        assert_eq!(text(given), expected);
    }

    #[track_caller]
    fn check_stays(given: &str) {
        assert!(matches!(text(given), Cow::Borrowed(same) if same == given), "{}", text(given));
    }

    #[test]
    fn a_bare_value_becomes_stars_behind_an_equals_sign() {
        check("password=hunter2", "password=***");
        check("login failed: Token: abc.def-1 for bob", "login failed: Token=*** for bob");
        check("secret  =  x, api_key:y", "secret=*** api_key=***");
        check("GET /?apikey=1&user=bob&ACCESS_TOKEN=x HTTP", "GET /?apikey=***&user=bob&ACCESS_TOKEN=*** HTTP");
        check("client-secret=x\nuser[password]=y", "client-secret=***\nuser[password]=***");
        check("password:=é§ß ok", "password=*** ok");
        check("token=QUJD== status=200", "token=*** status=200");
    }

    #[test]
    fn a_value_in_quotes_keeps_them() {
        check(r#"password="hunter 2" x"#, r#"password="***" x"#);
        check(r#"{"a":1,"password": "x\"y","b":2}"#, r#"{"a":1,"password": "***","b":2}"#);
        check(r#"%{"token" => "x", b: 2}"#, r#"%{"token" => "***", b: 2}"#);
        check("{'secret': 'it''s'}", "{'secret': '***''s'}");
        check(r#""text":"{\"token\":\"a\\\"b\\\\\",\"c\":1}""#, r#""text":"{\"token\":\"***\",\"c\":1}""#);
        check(r#"{"password": "never closed, and on"#, r#"{"password": "***""#);
    }

    #[test]
    fn a_value_in_brackets_goes_as_a_whole() {
        check(r#"{"credentials":{"user":"}","n":[1]},"b":2}"#, r#"{"credentials":"***","b":2}"#);
        check(r#""{\"secrets\":[\"]\",1],\"b\":2}""#, r#""{\"secrets\":\"***\",\"b\":2}""#);
        check("%{credentials: {:ok, [1]}, b: 2}", "%{credentials: {***}, b: 2}");
        check("tokens=[a, (b", "tokens=[***]");
    }

    #[test]
    fn a_credential_goes_with_its_scheme() {
        check("curl -H 'Authorization: Bearer abc' x", "curl -H 'Authorization=***");
        check("Authorization: Digest a=\"b\", c=\"d\"\nHost: x", "Authorization=***\nHost: x");
        check("sent Bearer abc.d-e_f, got 401", "sent Bearer *** got 401");
        check("token: Bearer abc def\nx", "token=***\nx");
        check(r#"{"h":"bearer abc","b":2}"#, r#"{"h":"bearer ***","b":2}"#);
    }

    #[test]
    fn what_a_value_names_goes_with_it() {
        check("password= token: a b\nc", "password=***\nc");
        check("password=x;secret = a\nb", "password=***\nb");
        check(r#"token="password": "a" b"#, "token=***");
    }

    #[test]
    fn counters_and_words_stay() {
        check_stays(r#"{"max_tokens": 4096, "token": null, "is_secret":true,"tokens_used":-1.5e3}"#);
        check_stays("max_tokens: 4096, tokens_used=512");
        check_stays("the password is wrong, the token expired; bearer");
        check_stays("password=&token=");
        check_stays("");
        check("token: 4096", "token=***");
        check(r#"{"tokens": 4096x}"#, r#"{"tokens": ***"#);
    }

    #[test]
    fn masked_text_stays_and_is_borrowed() {
        for masked in ["password=***", r#"{"token": "***"}"#, "Bearer ***", "tokens=[***]", "Authorization=***\nx"] {
            check_stays(masked);
        }
    }

    #[test]
    fn long_texts_of_any_kind_take_linear_time() {
        let units = [
            "token",
            "token ",
            "token\\",
            "token= ",
            "token=\"",
            "token: {",
            "a",
            "\\\"",
            "Bearer ",
            "tokens:1;",
            "password:\n",
            "\n=",
            "\n)",
            "\n:\n",
            "=\n",
            "'",
            " ",
            "\ntoken ",
            "a=",
            "-",
            "1",
        ];
        for (first, unit) in
            units.iter().flat_map(|unit| ["", "token=a;token", "tokens=", "'secret': "].map(|first| (first, unit)))
        {
            let long = first.to_owned() + &unit.repeat(300_000 / unit.len());

            assert!(text(&long).len() <= long.len() + 8);
        }
    }

    /// What may confuse the scanner, in any order.
    fn scrap() -> impl Strategy<Value = String> {
        let scraps = prop::sample::select(&[
            "password",
            "token",
            "tokens",
            "Bearer",
            "basic",
            "authorization",
            "api_key",
            "a",
            "é",
            "5",
            "null",
            "true",
            "***",
            " ",
            "\n",
            "=",
            ":",
            "=>",
            ",",
            ";",
            "&",
            "<",
            ">",
            "\"",
            "\\\"",
            "\\",
            "'",
            "`",
            "{",
            "}",
            "[",
            "]",
            "(",
            ")",
        ]);
        prop::collection::vec(scraps, 0..12).prop_map(|scraps| scraps.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_048))]

        #[test]
        fn masking_twice_is_masking_once(given in scrap()) {
            let once = text(&given).into_owned();

            prop_assert_eq!(text(&once), once.as_str(), "{:?}", given);
        }

        #[test]
        fn any_text_is_masked(given in any::<String>()) {
            let _ = text(&given);
        }

        #[test]
        fn a_planted_secret_never_survives(
            before in scrap(),
            form in prop::sample::select(&[
                "password=@", "Token: @", "my_secret = @", "api_key:\n@", "Bearer @", "Authorization: Basic @",
                "token=\"a @ b\"", "\"secret\":\"@\"", "\\\"apiKey\\\": \\\"@\\\"", "'password' => '@'", "credentials: [@]", "p[token]=@",
                "\"credentials\": {\"a\": [\"@\"]}", "\"token\": @",
            ]),
            after in scrap(),
        ) {
            let given = format!("{before}{}{after}", form.replace('@', "Zq9Xw7"));

            prop_assert!(!text(&given).contains("Zq9Xw7"), "{} of {}", text(&given), given);
        }

        #[test]
        fn what_was_json_still_is(
            key in prop::sample::select(&["token", "a", "max_tokens", "credentials"]),
            value in "(password=a|Bearer a)?[a\"\\\\{} ]{0,6}",
            levels in 0..4_usize,
        ) {
            let mut json = serde_json::json!({key: value, "b": {key: [value, 1], "c": {key: 7}}});
            for _ in 0..levels {
                json = serde_json::json!({"inner": json.to_string()});
            }

            let masked = text(&json.to_string()).into_owned();

            let mut read: serde_json::Value = serde_json::from_str(&masked).expect("JSON");
            for _ in 0..levels {
                read = serde_json::from_str(read["inner"].as_str().expect("text")).expect("JSON");
            }
            prop_assert_eq!(&read["b"]["c"][key], 7);
        }
    }
}
