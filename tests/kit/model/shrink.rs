//! Makes a conversation that diverges as short as it can be.

use super::operation::{Op, Says, Sent};
use super::script::{Act, End, JoinEnd, JoinScript, Script};

/// Conversations that are tried at most.
const TRIES_MAX: usize = 3_000;

/// Gives back a conversation that still `fails` and of which nothing can be left out.
pub fn shrink(mut ops: Vec<Op>, fails: impl Fn(&[Op]) -> bool) -> Vec<Op> {
    let mut tries = 0;
    loop {
        let before = ops.clone();
        let mut chunk = ops.len() / 2;
        while chunk > 0 {
            let mut at = 0;
            while at < ops.len() {
                let mut fewer = ops.clone();
                fewer.drain(at..(at + chunk).min(ops.len()));
                tries += 1;
                if fails(&fewer) { ops = fewer } else { at += chunk }
            }
            chunk /= 2;
        }
        for at in 0..ops.len() {
            let mut candidate = 0;
            while let Some(smaller) = smaller_op(&ops[at]).into_iter().nth(candidate) {
                let mut tried = ops.clone();
                tried[at] = smaller;
                tries += 1;
                if fails(&tried) {
                    (ops, candidate) = (tried, 0);
                } else {
                    candidate += 1;
                }
            }
        }
        if ops == before || tries > TRIES_MAX {
            return ops;
        }
    }
}

fn smaller_op(op: &Op) -> Vec<Op> {
    match op {
        Op::Send { client, messages, yields } => {
            let send = |messages, yields| Op::Send { client: *client, messages, yields };
            let mut all: Vec<Op> = each_less(messages, smaller_sent).map(|messages| send(messages, *yields)).collect();
            all.extend((*yields > 0).then(|| send(messages.clone(), 0)));
            all
        }
        Op::Storm(shouted) => each_less(shouted, |_| Vec::new()).map(Op::Storm).collect(),
        Op::Connect { is_v1, id } if id.is_some() => vec![Op::Connect { is_v1: *is_v1, id: None }],
        Op::Connect { is_v1: true, .. } => vec![Op::Connect { is_v1: false, id: None }],
        _ => Vec::new(),
    }
}

fn smaller_sent(sent: &Sent) -> Vec<Sent> {
    let says: Vec<Says> = match &sent.says {
        Says::Join(script) => {
            let mut all: Vec<Says> = each_less(&script.acts, smaller_act)
                .map(|acts| Says::Join(JoinScript { acts, end: script.end }))
                .collect();
            if script.end != JoinEnd::Ok {
                all.push(Says::Join(JoinScript { acts: script.acts.clone(), end: JoinEnd::Ok }));
            }
            all
        }
        Says::Do(script) => smaller_script(script).into_iter().map(Says::Do).collect(),
        _ => Vec::new(),
    };
    says.into_iter().map(|says| Sent { says, ..sent.clone() }).collect()
}

fn smaller_script(script: &Script) -> Vec<Script> {
    let end = script.end;
    let mut all: Vec<Script> = each_less(&script.acts, smaller_act).map(|acts| Script { acts, end }).collect();
    if end != End::NoReply {
        all.push(Script { acts: script.acts.clone(), end: End::NoReply });
    }
    all
}

fn smaller_act(act: &Act) -> Vec<Act> {
    let within = |script: &Script, wrap: fn(Box<Script>) -> Act| {
        smaller_script(script).into_iter().map(|script| wrap(Box::new(script))).collect()
    };
    match act {
        Act::Info(script) => within(script, Act::Info),
        Act::AtEnd(script) => within(script, Act::AtEnd),
        Act::After(ms, script) => {
            smaller_script(script).into_iter().map(|script| Act::After(*ms, Box::new(script))).collect()
        }
        _ => Vec::new(),
    }
}

/// The list without one of its parts, then with one of them smaller.
fn each_less<T: Clone>(parts: &[T], smaller: impl Fn(&T) -> Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut all = Vec::new();
    for at in 0..parts.len() {
        let mut fewer = parts.to_vec();
        fewer.remove(at);
        all.push(fewer);
    }
    for at in 0..parts.len() {
        for part in smaller(&parts[at]) {
            let mut changed = parts.to_vec();
            changed[at] = part;
            all.push(changed);
        }
    }
    all.into_iter()
}
