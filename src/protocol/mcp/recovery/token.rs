//! Recovery tokens: what one says, and which of a session's count. Who signs them is the caller.

/// What a token says. It has no time of its own: how long it counts begins when the connection is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The session.
    pub session: String,
    /// Whose it is.
    pub user: String,
    /// Which of the session's tokens it is.
    pub serial: u64,
}

impl Claims {
    /// The text to sign: `<serial>.<session>.<user>`. Sessions' ids have no dot.
    pub fn to_text(&self) -> String {
        format!("{}.{}.{}", self.serial, self.session, self.user)
    }

    /// Reads a text that was signed.
    pub fn parse(text: &str) -> Option<Self> {
        let (serial, rest) = text.split_once('.')?;
        let (session, user) = rest.split_once('.')?;
        Some(Claims { session: session.to_owned(), user: user.to_owned(), serial: serial.parse().ok()? })
    }
}

/// More tokens than a session is given between two starts of its server.
const GIVEN_MAX: u64 = 1 << 32;

/// Which tokens of a session count: the one that was used last, and all that were given since. What brought any of these may have been
/// lost with the connection.
#[derive(Clone, Debug)]
pub struct Tokens {
    used: u64,
    newest: u64,
}

impl Default for Tokens {
    /// A session's first token.
    fn default() -> Self {
        Tokens { used: 1, newest: 1 }
    }
}

impl Tokens {
    /// Those of a session of which only the token used last is known and one that was given since, as long as its server ran: all
    /// given since count, however many they were, and new ones are like none of them.
    pub fn restored(used: u64, given: u64) -> Self {
        Tokens { used, newest: (given / GIVEN_MAX + 1) * GIVEN_MAX }
    }

    /// The serial of the token that was used last.
    pub fn last_used(&self) -> u64 {
        self.used
    }

    /// The serial of the newest.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Whether a token counts.
    pub fn accepts(&self, serial: u64) -> bool {
        (self.used..=self.newest).contains(&serial)
    }

    /// Gives a further token.
    pub fn renew(&mut self) -> u64 {
        self.newest += 1;
        self.newest
    }

    /// Notes that a client came back by a token that counts, and gives the next one.
    pub fn used(&mut self, serial: u64) -> u64 {
        self.used = serial;
        self.renew()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(tokens: &Tokens) -> Vec<u64> {
        (0..10).filter(|serial| tokens.accepts(*serial)).collect()
    }

    #[test]
    fn claims_are_read_as_they_are_written_whatever_the_user_is_called() {
        for user in ["ann", "", "a.b.c", "ä@ö.example"] {
            let claims =
                Claims { session: "mcp_session_0001020304abcdef".to_owned(), user: user.to_owned(), serial: 7 };
            assert_eq!(Claims::parse(&claims.to_text()), Some(claims));
        }
        for wrong in ["", "1", "1.s", "x.s.u", "-1.s.u"] {
            assert_eq!(Claims::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn all_tokens_given_before_a_restart_count_and_new_ones_are_others() {
        let mut before = Tokens::default();
        let given: Vec<_> = (0..3).map(|_| before.renew()).collect();

        let mut tokens = Tokens::restored(before.last_used(), before.newest());
        assert!(given.iter().all(|serial| tokens.accepts(*serial)) && !tokens.accepts(0));
        let next = tokens.used(given[2]);
        assert!(next > given[2] && !tokens.accepts(given[1]) && tokens.accepts(next));

        let mut again = Tokens::restored(tokens.last_used(), tokens.newest());
        assert!(again.accepts(given[2]) && again.accepts(next) && !again.accepts(given[1]));
        assert!(again.used(next) > next);
        // By an older one than it had: what came after that counts still.
        let mut once_more = Tokens::restored(again.last_used(), again.newest());
        let later = once_more.used(next);
        assert!(Tokens::restored(once_more.last_used(), once_more.newest()).accepts(later));
    }

    #[test]
    fn the_token_used_last_and_all_given_since_count() {
        let mut tokens = Tokens::default();
        assert_eq!(counting(&tokens), [1]);

        assert_eq!(tokens.renew(), 2);
        assert_eq!(tokens.renew(), 3);
        assert_eq!(counting(&tokens), [1, 2, 3], "what brought two of them may be lost");

        // The reply that brings the fourth may be lost too.
        assert_eq!(tokens.used(3), 4);
        assert_eq!(counting(&tokens), [3, 4]);
        assert_eq!(tokens.used(3), 5);
        assert_eq!(counting(&tokens), [3, 4, 5]);
        assert_eq!(tokens.used(5), 6);
        assert_eq!(counting(&tokens), [5, 6]);
    }
}
