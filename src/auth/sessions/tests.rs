use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_795_368_555_000;

fn sessions(options: SessionOptions) -> Sessions {
    Sessions::new(options, |data| format!("signed:{data}"), |token| token.strip_prefix("signed:").map(str::to_owned))
}

fn open(sessions: &Sessions, user: &str, now: u64) -> (SessionRecord, String) {
    sessions.open(user, SessionMeta::default(), now).expect("opened")
}

#[test]
fn a_session_validates_until_its_end() {
    let sessions = sessions(SessionOptions::default());
    let (record, token) = open(&sessions, "ann", NOW);

    assert!(record.id.starts_with("mcp_session_") && record.id.len() == 44, "{}", record.id);
    let validated = sessions.validate(&token, NOW + 3_599_999).expect("valid");
    assert_eq!(validated, SessionRecord { last_activity_unix_ms: NOW + 3_599_999, ..record.clone() });
    assert_eq!(sessions.touch(&record.id, NOW + 5), Ok(validated));
    assert_eq!(sessions.validate(&token, NOW + 3_600_000), Err(SessionRefused::Expired));
    assert_eq!(sessions.expire(NOW + 3_600_000).len(), 1);
    assert_eq!(sessions.validate(&token, NOW), Err(SessionRefused::NotFound));
}

#[test]
fn what_is_no_token_is_invalid() {
    let sessions = sessions(SessionOptions::default());
    let (record, _) = open(&sessions, "ann", NOW);

    for token in ["", &record.id, "signed:", &format!("signed:{}", record.id), &format!("signed:{}.x", record.id)] {
        assert_eq!(sessions.validate(token, NOW), Err(SessionRefused::Invalid), "{token}");
    }
    let unknown = format!("signed:mcp_session_{}.0", "0".repeat(32));
    assert_eq!(sessions.validate(&unknown, NOW), Err(SessionRefused::NotFound));
}

#[test]
fn a_disconnect_frees_the_place_of_its_session() {
    let sessions = sessions(SessionOptions { per_user_max: 2, ..SessionOptions::default() });
    let (first, _) = open(&sessions, "ann", NOW);
    open(&sessions, "ann", NOW);

    let refused = sessions.open("ann", SessionMeta::default(), NOW).expect_err("there is no place");
    assert_eq!(refused.to_string(), "Maximum sessions (2) reached for user");
    open(&sessions, "bob", NOW);
    drop(sessions.hold(&first.id));
    open(&sessions, "ann", NOW);
    assert!(sessions.open("ann", SessionMeta::default(), NOW).is_err());
    assert!(!sessions.close(&first.id));
    assert_eq!(sessions.stats().sessions_closed, 1);
}

#[test]
fn expired_sessions_take_no_place() {
    let sessions = sessions(SessionOptions { per_user_max: 1, sessions_max: 1, ..SessionOptions::default() });
    open(&sessions, "ann", NOW);

    assert_eq!(sessions.open("bob", SessionMeta::default(), NOW + 1).err(), Some(OpenRefused::OfAll { max: 1 }));
    open(&sessions, "bob", NOW + 3_600_000);
    let stats = sessions.stats();
    assert_eq!((stats.sessions_expired, stats.active_sessions, stats.unique_users), (1, 1, 1));
}

#[test]
fn a_refresh_counts_within_the_window_alone_and_revokes_the_old_token() {
    let sessions = sessions(SessionOptions::default());
    let (record, token) = open(&sessions, "ann", NOW);
    let end = record.expires_unix_ms;

    for (now, refused) in [
        (NOW, SessionRefused::NotEligible),
        (end - 300_001, SessionRefused::NotEligible),
        (end, SessionRefused::Expired),
    ] {
        assert_eq!(sessions.refresh(&token, now), Err(refused), "{now}");
    }
    let (refreshed, new) = sessions.refresh(&token, end - 300_000).expect("within the window");

    assert_eq!(refreshed.expires_unix_ms, end - 300_000 + 3_600_000);
    assert_eq!(sessions.validate(&token, end - 300_000), Err(SessionRefused::Revoked));
    assert_eq!(sessions.refresh(&token, end - 300_000), Err(SessionRefused::Revoked));
    assert!(sessions.validate(&new, end).is_ok());
    assert_eq!(sessions.expire(end), []);
    let never = self::sessions(SessionOptions { refresh_window_s: 0, ..SessionOptions::default() });
    let (record, token) = open(&never, "ann", NOW);
    assert_eq!(never.refresh(&token, record.expires_unix_ms - 1), Err(SessionRefused::NotEligible));
}

#[test]
fn a_revoked_session_is_refused_and_in_the_end_forgotten() {
    let sessions = sessions(SessionOptions { revoked_remembered_s: 10, ..SessionOptions::default() });
    let (first, token) = open(&sessions, "ann", NOW);
    let (_, second) = open(&sessions, "ann", NOW);
    let (_, bobs) = open(&sessions, "bob", NOW);

    assert_eq!(sessions.revoke(&first.id, NOW).as_ref(), Some(&first));
    assert_eq!(sessions.revoke(&first.id, NOW), None);
    assert_eq!(sessions.validate(&token, NOW), Err(SessionRefused::Revoked));
    assert_eq!(sessions.revoke_token(&token, NOW), Err(SessionRefused::Revoked));
    assert_eq!(sessions.revoke_user("ann", NOW).len(), 1);
    assert_eq!(sessions.validate(&second, NOW), Err(SessionRefused::Revoked));
    assert!(sessions.revoke_token(&bobs, NOW).is_ok());
    assert_eq!((sessions.stats().revoked_tokens, sessions.stats().sessions_revoked), (3, 3));
    sessions.expire(NOW + 10_000);
    assert_eq!(sessions.validate(&token, NOW + 10_000), Err(SessionRefused::NotFound));
    assert_eq!(sessions.stats().revoked_tokens, 0);
}

#[test]
fn no_more_revocations_are_remembered_than_the_bound() {
    let sessions = sessions(SessionOptions::default());

    for _ in 0..REVOKED_MAX + 10 {
        let (record, _) = open(&sessions, "ann", NOW);
        sessions.revoke(&record.id, NOW);
    }

    let stats = sessions.stats();
    assert_eq!((stats.revoked_tokens, stats.active_sessions, stats.unique_users), (REVOKED_MAX, 0, 0));
}

#[test]
fn what_a_client_calls_itself_is_cut() {
    let sessions = sessions(SessionOptions::default());
    let meta = SessionMeta { ip_address: Some("::1".into()), user_agent: Some("ü".repeat(META_BYTES_MAX)) };

    let (record, token) = sessions.open("ann", meta, NOW).expect("opened");

    assert_eq!(record.user_agent.map(|agent| agent.len()), Some(META_BYTES_MAX));
    assert!(!format!("{sessions:?} {:?}", sessions.of_user("ann")).contains(&token));
}

/// The simplest that is obviously right: everything that ever was, in a list.
#[derive(Default)]
struct Model {
    now: u64,
    all: Vec<Modelled>,
}

struct Modelled {
    user: u8,
    end: u64,
    tokens: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Live,
    Gone,
    Revoked(u64),
}

const OPTIONS: SessionOptions =
    SessionOptions { timeout_s: 20, per_user_max: 2, refresh_window_s: 8, revoked_remembered_s: 30, sessions_max: 5 };

impl Model {
    fn live(&self) -> impl Iterator<Item = &Modelled> {
        self.all.iter().filter(|one| one.state == State::Live)
    }

    /// What a sweep does, as far as sessions are concerned.
    fn sweep(&mut self) {
        let now = self.now;
        self.all
            .iter_mut()
            .filter(|one| one.state == State::Live && one.end <= now)
            .for_each(|one| one.state = State::Gone);
    }

    fn open(&mut self, user: u8) -> Result<(), OpenRefused> {
        self.sweep();
        if self.live().filter(|one| one.user == user).count() == OPTIONS.per_user_max {
            return Err(OpenRefused::OfUser { max: OPTIONS.per_user_max });
        }
        if self.live().count() == OPTIONS.sessions_max {
            return Err(OpenRefused::OfAll { max: OPTIONS.sessions_max });
        }
        self.all.push(Modelled { user, end: self.now + 20_000, tokens: 1, state: State::Live });
        Ok(())
    }

    fn check(&self, one: usize, token: usize) -> Result<(), SessionRefused> {
        let one = &self.all[one];
        match one.state {
            State::Revoked(_) => Err(SessionRefused::Revoked),
            State::Gone => Err(SessionRefused::NotFound),
            State::Live if token + 1 != one.tokens => Err(SessionRefused::Revoked),
            State::Live if one.end <= self.now => Err(SessionRefused::Expired),
            State::Live => Ok(()),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Open(u8),
    Close(usize),
    Validate(usize, usize),
    Refresh(usize, usize),
    Revoke(usize),
    RevokeUser(u8),
    Sweep,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u8).prop_map(Step::Open),
        1 => any::<usize>().prop_map(Step::Close),
        4 => any::<(usize, usize)>().prop_map(|(one, token)| Step::Validate(one, token)),
        4 => any::<(usize, usize)>().prop_map(|(one, token)| Step::Refresh(one, token)),
        1 => any::<usize>().prop_map(Step::Revoke),
        1 => (0..4_u8).prop_map(Step::RevokeUser),
        1 => Just(Step::Sweep),
        4 => (0..9_000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn sessions_do_what_a_plain_model_does(steps in proptest::collection::vec(step(), 1..120)) {
        let sessions = sessions(OPTIONS);
        let mut model = Model { now: NOW, ..Model::default() };
        let mut tokens: Vec<(Arc<str>, Vec<String>)> = Vec::new();
        for step in steps {
            let now = model.now;
            let chosen = |one: usize| (!tokens.is_empty()).then(|| one % tokens.len());
            match step {
                Step::Open(user) => {
                    let opened = sessions.open(&user.to_string(), SessionMeta::default(), now);
                    prop_assert_eq!(opened.as_ref().map(drop).map_err(|error| *error), model.open(user));
                    tokens.extend(opened.ok().map(|(record, token)| (record.id, vec![token])));
                }
                Step::Close(one) => {
                    let Some(one) = chosen(one) else { continue };
                    let is_live = model.all[one].state == State::Live;
                    prop_assert_eq!(sessions.close(&tokens[one].0), is_live);
                    if is_live {
                        model.all[one].state = State::Gone;
                    }
                }
                Step::Validate(one, token) => {
                    let Some(one) = chosen(one) else { continue };
                    let token = token % tokens[one].1.len();
                    prop_assert_eq!(sessions.validate(&tokens[one].1[token], now).map(drop), model.check(one, token));
                }
                Step::Refresh(one, token) => {
                    let Some(one) = chosen(one) else { continue };
                    let token = token % tokens[one].1.len();
                    let refreshed = sessions.refresh(&tokens[one].1[token], now);
                    let expected = model.check(one, token).and_then(|()| {
                        let is_eligible = model.all[one].end - now <= 8_000;
                        is_eligible.then_some(()).ok_or(SessionRefused::NotEligible)
                    });
                    prop_assert_eq!(refreshed.as_ref().map(drop).map_err(|error| *error), expected);
                    if let Ok((_, token)) = refreshed {
                        model.all[one].tokens += 1;
                        model.all[one].end = now + 20_000;
                        tokens[one].1.push(token);
                    }
                }
                Step::Revoke(one) => {
                    let Some(one) = chosen(one) else { continue };
                    let is_live = model.all[one].state == State::Live;
                    prop_assert_eq!(sessions.revoke(&tokens[one].0, now).is_some(), is_live);
                    if is_live {
                        model.all[one].state = State::Revoked(now + 30_000);
                    }
                }
                Step::RevokeUser(user) => {
                    let of_user = |one: &&mut Modelled| one.state == State::Live && one.user == user;
                    let mut count = 0;
                    for one in model.all.iter_mut().filter(of_user) {
                        one.state = State::Revoked(now + 30_000);
                        count += 1;
                    }
                    prop_assert_eq!(sessions.revoke_user(&user.to_string(), now).len(), count);
                }
                Step::Sweep => {
                    let before = model.live().count();
                    model.sweep();
                    for one in &mut model.all {
                        if matches!(one.state, State::Revoked(until) if until <= now) {
                            one.state = State::Gone;
                        }
                    }
                    prop_assert_eq!(sessions.expire(now).len(), before - model.live().count());
                }
                Step::Wait(ms) => model.now += ms,
            }
            let stats = sessions.stats();
            let users: BTreeSet<_> = model.live().map(|one| one.user).collect();
            prop_assert_eq!((stats.active_sessions, stats.unique_users), (model.live().count(), users.len()));
            let revoked = model.all.iter().filter(|one| matches!(one.state, State::Revoked(_))).count();
            prop_assert_eq!(stats.revoked_tokens, revoked);
            let ended = stats.sessions_closed + stats.sessions_expired + stats.sessions_revoked;
            prop_assert_eq!(stats.sessions_created - ended, stats.active_sessions as u64);
        }
    }
}
