//! Who is told to go, when, and how often. The wall clock can't be paused, so expiries are asked about at times that a
//! test names; the task is given ones that are over.

use proptest::prelude::*;

use super::*;
use crate::auth::Rights;

/// A resident's word of its own end: its name, and why.
type Told = Arc<Mutex<Vec<(&'static str, Gone)>>>;

fn identity(user: &str, credential: Option<&str>, expires_unix_ms: Option<u64>) -> Identity {
    Identity::new(user, Rights { credential: credential.map(Into::into), expires_unix_ms, ..Rights::default() })
}

fn enter(live: &Live, told: &Told, name: &'static str, identity: &Identity) -> Resident {
    let told = Arc::clone(told);
    live.enter(identity, None, move |gone| told.lock().push((name, gone)))
}

/// Lets time come to that moment, as the task does; gives who was told since, and when it would look again.
fn at(live: &Live, told: &Told, now_ms: u64) -> (Vec<&'static str>, Option<u64>) {
    let (leaving, next) = live.0.residents.lock().expired(now_ms);
    leaving.iter().for_each(|leave| leave(Gone::Expired));
    (told.lock().drain(..).map(|(name, _)| name).collect(), next)
}

#[test]
fn residents_go_in_the_order_of_their_expiries_each_in_its_millisecond() {
    let (live, told) = (Live::default(), Told::default());
    let _held: Vec<_> = [("third", Some(30)), ("first", Some(10)), ("never", None), ("second", Some(20))]
        .map(|(name, expires)| enter(&live, &told, name, &identity("u", None, expires)))
        .into();

    assert_eq!(at(&live, &told, 9), (vec![], Some(10)));
    assert_eq!(at(&live, &told, 10), (vec!["first"], Some(20)));
    assert_eq!(at(&live, &told, 30), (vec!["second", "third"], None));
    assert_eq!(at(&live, &told, u64::MAX), (vec![], None), "each is told once");
    assert_eq!(live.len(), 4, "whoever was told leaves by itself");
}

#[test]
fn a_renewal_puts_the_end_off_and_another_brings_it_forward() {
    let (live, told) = (Live::default(), Told::default());
    let user = identity("u", None, Some(10));
    let resident = enter(&live, &told, "it", &user);

    user.renew(&identity("u", None, Some(50)));
    resident.renewed();
    assert_eq!(at(&live, &told, 49), (vec![], Some(50)));

    user.renew(&identity("u", None, Some(40)));
    resident.renewed();
    assert_eq!(at(&live, &told, 39), (vec![], Some(40)));
    assert_eq!(at(&live, &told, 40), (vec!["it"], None));
    assert_eq!(at(&live, &told, 60), (vec![], None), "the end that was put off is forgotten");

    user.renew(&identity("u", None, None));
    resident.renewed();
    assert_eq!(at(&live, &told, u64::MAX), (vec![], None), "a credential without an end has none");
}

#[test]
fn the_same_credential_again_tells_once_and_takes_no_room() {
    let (live, told) = (Live::default(), Told::default());
    let user = identity("u", None, Some(10));
    let resident = enter(&live, &told, "it", &user);

    for expires in [10, 10, 20, 10, 20, 10] {
        user.renew(&identity("u", None, Some(expires)));
        resident.renewed();
    }
    for _ in 0..10_000 {
        resident.renewed();
    }

    assert!(live.0.residents.lock().due.len() < 100, "{}", live.0.residents.lock().due.len());
    assert_eq!(at(&live, &told, 10).0, ["it"]);
    assert_eq!(at(&live, &told, 20).0, [""; 0]);
}

#[test]
fn whoever_shares_the_rights_of_one_that_is_renewed_ends_with_them() {
    let (live, told) = (Live::default(), Told::default());
    let socket = identity("u", None, None);
    let (_first, second) = (enter(&live, &told, "first", &socket), enter(&live, &told, "second", &socket.clone()));

    socket.renew(&identity("u", None, Some(10)));
    second.renewed();

    let (mut gone, next) = at(&live, &told, 10);
    gone.sort_unstable();
    assert_eq!((gone, next), (vec!["first", "second"], None));
}

#[test]
fn a_revocation_is_about_a_user_or_a_credential_and_about_nobody_else() {
    let (live, told) = (Live::default(), Told::default());
    let [ann, bob] = ["ann", "bob"];
    let _held = [
        enter(&live, &told, "ann by key", &identity(ann, Some("api_key:1"), None)),
        enter(&live, &told, "ann by token", &identity(ann, None, Some(10))),
        enter(&live, &told, "bob by key", &identity(bob, Some("api_key:2"), None)),
        enter(&live, &told, "bob by the other key", &identity(bob, Some("api_key:1"), None)),
    ];
    let revoke = |revoked: Revoked| {
        let count = live.revoke(&revoked);
        let mut gone: Vec<_> = told.lock().drain(..).collect();
        gone.sort_unstable_by_key(|(name, _)| *name);
        assert!(gone.iter().all(|(_, why)| *why == Gone::Revoked));
        assert_eq!(count, gone.len());
        gone.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };

    assert_eq!(revoke(Revoked::Credential("api_key:1".to_owned())), ["ann by key", "bob by the other key"]);
    assert_eq!(revoke(Revoked::User(ann.to_owned())), ["ann by key", "ann by token"]);
    assert_eq!(revoke(Revoked::User("an".to_owned())), [""; 0]);
    assert_eq!(revoke(Revoked::Credential(String::new())), [""; 0]);
}

#[test]
fn a_revocation_counts_by_the_credential_that_holds_now() {
    let (live, told) = (Live::default(), Told::default());
    let user = identity("u", Some("jwt:old"), None);
    let resident = enter(&live, &told, "it", &user);
    user.renew(&identity("u", Some("jwt:new"), None));
    resident.renewed();

    assert_eq!(live.revoke(&Revoked::Credential("jwt:old".to_owned())), 0);
    assert_eq!(live.revoke(&Revoked::Credential("jwt:new".to_owned())), 1);
}

#[test]
fn what_told_a_resident_may_drop_its_place() {
    let live = Live::default();
    let place: Arc<Mutex<Option<Resident>>> = Arc::default();
    let dropping = Arc::clone(&place);
    let resident = live.enter(&identity("u", None, Some(10)), None, move |_| drop(dropping.lock().take()));
    *place.lock() = Some(resident);

    assert_eq!(live.revoke(&Revoked::User("u".to_owned())), 1);

    assert!(live.is_empty());
}

#[test]
fn whoever_leaves_takes_no_room() {
    let (live, told) = (Live::default(), Told::default());
    let stays = enter(&live, &told, "stays", &identity("u", None, Some(1_000_000)));
    for n in 0..10_000 {
        drop(enter(&live, &told, "goes", &identity("u", Some("c"), Some(1_000 + n))));
    }

    assert_eq!((live.len(), live.revoke(&Revoked::Credential("c".to_owned()))), (1, 0));
    assert!(live.0.residents.lock().due.len() <= 65, "{}", live.0.residents.lock().due.len());
    assert_eq!(at(&live, &told, 999_999), (vec![], Some(1_000_000)));
    drop(stays);
    assert!(live.is_empty());
}

#[test]
fn a_place_may_outlive_those_it_was_among() {
    let live = Live::default();
    let resident = live.enter(&identity("u", None, Some(10)), None, |_| {});

    drop(live);

    resident.renewed();
    drop(resident);
}

#[tokio::test(start_paused = true)]
async fn the_task_tells_who_is_over_and_wakes_for_whoever_ends_sooner() {
    let (live, told) = (Live::default(), Told::default());
    let task = tokio::spawn(live.expiring());
    let now_ms = clock::unix_micros() / 1_000;
    let in_an_hour = identity("later", None, Some(now_ms + 3_600_000));
    let _later = enter(&live, &told, "later", &in_an_hour);
    tokio::task::yield_now().await;

    // Its end is before that of the one that the task sleeps for, and over.
    let _over = enter(&live, &told, "over", &identity("over", None, Some(now_ms)));
    tokio::time::timeout(Duration::from_secs(1), async {
        while told.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is told without any of the time that the task sleeps");

    assert_eq!(*told.lock(), [("over", Gone::Expired)]);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn the_task_looks_at_the_clock_again_each_minute_and_ends_with_the_last_handle() {
    let (live, told) = (Live::default(), Told::default());
    let task = tokio::spawn(live.expiring());
    let _resident = enter(&live, &told, "it", &identity("u", None, Some(u64::MAX)));
    tokio::task::yield_now().await;

    // As if the clock had been set: nothing wakes the task but its own sleep.
    {
        let mut residents = live.0.residents.lock();
        residents.by_number.get_mut(&1).expect("the first is number 1").end = Some(1);
        residents.due.push(Reverse((1, 1)));
    }
    tokio::time::sleep(SLEEP_MAX + Duration::from_millis(1)).await;
    assert_eq!(*told.lock(), [("it", Gone::Expired)]);

    drop(live);
    let ended = tokio::time::timeout(SLEEP_MAX + Duration::from_millis(1), task).await;
    ended.expect("it ends within its sleep").expect("it does not panic");
}

/// What may happen to residents: another one, a renewal, a departure, time.
#[derive(Clone, Debug)]
enum Deed {
    Enter(Option<u64>),
    Renew(usize, Option<u64>),
    Leave(usize),
    Wait(u64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let end = || prop::option::weighted(0.8, 1..100_u64);
    let deed = prop_oneof![
        3 => end().prop_map(Deed::Enter),
        3 => (any::<prop::sample::Index>(), end()).prop_map(|(who, end)| Deed::Renew(who.index(1_000), end)),
        1 => any::<prop::sample::Index>().prop_map(|who| Deed::Leave(who.index(1_000))),
        2 => (0..20_u64).prop_map(Deed::Wait),
    ];
    prop::collection::vec(deed, 0..60)
}

proptest! {
    /// Beside a list that is gone through from its beginning to its end.
    #[test]
    fn everyone_is_told_once_when_their_time_comes(deeds in deeds()) {
        let live = Live::default();
        let told: Arc<Mutex<Vec<usize>>> = Arc::default();
        // Each with its end, and whether it was told of that one.
        type Here = Option<(Identity, Resident, Option<u64>, bool)>;
        let mut here: Vec<Here> = Vec::new();
        let mut now = 0;
        for deed in deeds {
            match deed {
                Deed::Enter(end) => {
                    let (number, telling) = (here.len(), Arc::clone(&told));
                    let user = identity("u", None, end);
                    let resident = live.enter(&user, None, move |_| telling.lock().push(number));
                    here.push(Some((user, resident, end, false)));
                }
                Deed::Renew(who, end) if !here.is_empty() => {
                    let who = who % here.len();
                    if let Some((user, resident, held, was_told)) = &mut here[who] {
                        user.renew(&identity("u", None, end));
                        resident.renewed();
                        *was_told &= *held == end;
                        *held = end;
                    }
                }
                Deed::Leave(who) if !here.is_empty() => {
                    let who = who % here.len();
                    here[who] = None;
                }
                Deed::Renew(..) | Deed::Leave(_) => {}
                Deed::Wait(ms) => now += ms,
            }
            let (leaving, next) = live.0.residents.lock().expired(now);
            leaving.iter().for_each(|leave| leave(Gone::Expired));
            let mut expected = Vec::new();
            for (number, one) in here.iter_mut().enumerate() {
                if let Some((.., Some(end), was_told)) = one && *end <= now && !*was_told {
                    *was_told = true;
                    expected.push(number);
                }
            }
            let mut came = std::mem::take(&mut *told.lock());
            came.sort_unstable();
            prop_assert_eq!(came, expected);
            let soonest = here.iter().flatten().filter_map(|(.., end, _)| end.filter(|end| *end > now)).min();
            prop_assert_eq!(next, soonest);
        }
    }
}
