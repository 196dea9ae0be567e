//! What happens in a conversation, and how it is drawn from a seed.

use super::script::{Act, End, Gate, JoinEnd, JoinScript, Script};

pub const ROOMS: [&str; 4] = ["room:a", "room:b", "room:c", "room:d"];
pub const IDS: [&str; 2] = ["user:0", "user:1"];
/// A topic that nobody can join.
pub const NEWS: &str = "news";
const KEYS: [&str; 2] = ["ada", "bob"];
/// Clients that are connected at once.
pub const CLIENTS_MAX: usize = 4;

/// One step. Whatever it names that is not there is left out, so that every list of operations can be played.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Connect {
        is_v1: bool,
        id: Option<usize>,
    },
    /// A client sends messages in one go, with so many turns of the runtime after each.
    Send {
        client: usize,
        messages: Vec<Sent>,
        yields: usize,
    },
    /// Clients, and somebody who is none, say things at the same time that do not change who hears them.
    Storm(Vec<Shouted>),
    /// Something that waits goes on.
    Open(usize),
    /// Somebody who is no client broadcasts.
    Broadcast(&'static str, Broadcast),
    /// Sockets with an id are closed.
    Disconnect(usize),
    /// A client goes away without a word.
    Gone(usize),
    Advance(u64),
    /// A client sends more to a waiting channel than may wait there, then what waits goes on.
    Flood {
        client: usize,
        topic: &'static str,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Shouted {
    /// None: somebody who is no client.
    pub client: Option<usize>,
    pub topic: &'static str,
    pub script: Script,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Broadcast {
    Shout,
    Secret,
    /// No object: V2 clients are passed over.
    List,
    /// V1 clients are passed over.
    Binary,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub topic: &'static str,
    pub join_ref: JoinRef,
    pub says: Says,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Says {
    Join(JoinScript),
    Leave,
    Do(Script),
    Unknown,
    OddEvent,
    Heartbeat,
    Malformed,
}

/// Which join_ref a message has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum JoinRef {
    /// That of the client's last join of the topic; of a join its own ref.
    Right,
    /// That of an earlier join of the topic.
    Stale,
    Null,
    /// The right one's number, or its text if it was a number; of a join a number.
    OtherType,
    /// One that was never sent; of a join one that is not its ref.
    Foreign,
}

/// A stream of random numbers: splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("it is below a usize")
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// Draws one conversation.
pub fn draw(random: &mut Random) -> Vec<Op> {
    let mut draw = Draw { gates: 0, random };
    let mut ops: Vec<Op> = (0..2 + draw.random.below(2)).map(|_| draw.connect()).collect();
    for client in 0..ops.len() {
        let messages = ROOMS[..2].iter().map(|&topic| Sent { topic, join_ref: JoinRef::Right, says: draw.join() });
        ops.push(Op::Send { client, messages: messages.collect(), yields: 0 });
    }
    let length = 10 + draw.random.below(40);
    ops.extend((0..length).map(|_| draw.op()).collect::<Vec<_>>());
    ops
}

struct Draw<'a> {
    gates: Gate,
    random: &'a mut Random,
}

impl Draw<'_> {
    fn op(&mut self) -> Op {
        let client = self.random.below(CLIENTS_MAX);
        match self.random.below(100) {
            0..2 => self.connect(),
            2..57 => {
                let messages = if self.random.one_in(2) { 1 } else { 1 + self.random.below(6) };
                let yields = self.random.below(3);
                // Bursts on one topic pile up.
                let topic = self.random.one_in(2).then(|| self.random.of(&ROOMS[..3]));
                let messages = (0..messages).map(|_| self.sent(topic)).collect();
                Op::Send { client, messages, yields }
            }
            57..62 => Op::Storm((0..2 + self.random.below(8)).map(|_| self.shouted()).collect()),
            62..84 => Op::Open(self.random.below(8)),
            84..90 => {
                let topic = if self.random.one_in(4) { NEWS } else { self.random.of(&ROOMS) };
                let broadcasts = [Broadcast::Shout, Broadcast::Secret, Broadcast::List, Broadcast::Binary];
                Op::Broadcast(topic, self.random.of(&broadcasts))
            }
            90..91 => Op::Disconnect(self.random.below(IDS.len())),
            91..92 => Op::Gone(client),
            92..98 => Op::Advance(self.random.of(&[1, 50, 300, 1_000, 1_000, 6_000])),
            _ => Op::Flood { client, topic: self.random.of(&ROOMS[..3]) },
        }
    }

    fn connect(&mut self) -> Op {
        let id = self.random.one_in(2).then(|| self.random.below(IDS.len()));
        Op::Connect { is_v1: self.random.one_in(4), id }
    }

    fn sent(&mut self, topic: Option<&'static str>) -> Sent {
        let topic = topic.unwrap_or_else(|| if self.random.one_in(25) { NEWS } else { self.random.of(&ROOMS) });
        let join_ref = match self.random.below(20) {
            0..14 => JoinRef::Right,
            14..16 => JoinRef::Stale,
            16..18 => JoinRef::Null,
            18 => JoinRef::OtherType,
            _ => JoinRef::Foreign,
        };
        let says = match self.random.below(200) {
            0..40 => self.join(),
            40..60 => Says::Leave,
            60..62 => Says::Unknown,
            62..64 => Says::OddEvent,
            64..68 => Says::Heartbeat,
            68 => Says::Malformed,
            _ => Says::Do(self.script()),
        };
        Sent { topic, join_ref, says }
    }

    fn join(&mut self) -> Says {
        let mut acts = Vec::new();
        while self.random.one_in(3) {
            acts.push(match self.random.below(8) {
                0..3 => Act::Subscribe(self.heard()),
                3..5 => self.wait(),
                5 => Act::Yield,
                _ => Act::Info(Box::new(self.plain(2))),
            });
        }
        let end = match self.random.below(100) {
            0..8 => JoinEnd::Refuse,
            8..11 => JoinEnd::Panic,
            11..15 => JoinEnd::OkBinary,
            15..17 => JoinEnd::Unencodable,
            _ => JoinEnd::Ok,
        };
        Says::Join(JoinScript { acts, end })
    }

    fn script(&mut self) -> Script {
        // What a channel sends itself is on its way when the handler ends, so it does nothing else.
        let alone = match self.random.below(14) {
            0 => Act::Info(Box::new(self.plain(3))),
            1 => {
                let ms = self.random.of(&[100, 500, 900]) + u64::from(self.gate() % 50);
                Act::After(ms, Box::new(self.plain(3)))
            }
            _ => return self.plain(4),
        };
        Script { acts: vec![alone], end: if self.random.one_in(2) { End::NoReply } else { End::Ok } }
    }

    fn plain(&mut self, acts_max: usize) -> Script {
        let acts = (0..self.random.below(acts_max + 1)).map(|_| self.act()).collect();
        let end = match self.random.below(40) {
            0..10 => End::NoReply,
            10..28 => End::Ok,
            28..31 => End::Error,
            31 => End::OkBinary,
            32 => End::StopNormal,
            33 => End::StopShutdown,
            34 => End::StopError,
            35 => End::StopNormalAfterOk,
            36 => End::StopErrorAfterError,
            37..39 => End::Panic,
            _ => End::NoReply,
        };
        Script { acts, end }
    }

    fn act(&mut self) -> Act {
        match self.random.below(50) {
            0..6 => Act::Push,
            6..12 => Act::Shout,
            12..15 => Act::ShoutFrom,
            15..18 => Act::Secret,
            18..21 => Act::ShoutOn(self.heard()),
            21..25 => Act::Track(self.random.of(&KEYS).to_owned()),
            25..27 => Act::Update(self.random.of(&KEYS).to_owned()),
            27..29 => Act::Untrack(self.random.of(&KEYS).to_owned()),
            29..32 => Act::Subscribe(self.heard()),
            32..34 => Act::Unsubscribe(self.heard()),
            34..40 => self.wait(),
            40..42 => Act::Yield,
            42..44 => Act::Later(self.gate(), self.random.one_in(3)),
            44..47 => Act::AtEnd(Box::new(self.at_end())),
            47 => Act::PushList,
            48 => Act::PushBinary,
            _ => Act::Push,
        }
    }

    fn at_end(&mut self) -> Script {
        let act = |draw: &mut Self| match draw.random.below(12) {
            0..2 => Act::Push,
            2..4 => Act::Shout,
            4 => Act::ShoutFrom,
            5 => Act::Secret,
            6..8 => Act::Track(draw.random.of(&KEYS).to_owned()),
            8 => Act::Subscribe(draw.heard()),
            9 => Act::PushList,
            _ => draw.wait(),
        };
        let acts = (0..1 + self.random.below(3)).map(|_| act(self)).collect();
        Script { acts, end: if self.random.one_in(4) { End::Panic } else { End::NoReply } }
    }

    fn shouted(&mut self) -> Shouted {
        let act = |draw: &mut Self| match draw.random.below(7) {
            0 => Act::Push,
            1..3 => Act::Shout,
            3 => Act::ShoutFrom,
            4 => Act::Secret,
            _ => Act::ShoutOn(draw.heard()),
        };
        let acts = (0..1 + self.random.below(3)).map(|_| act(self)).collect();
        let client = (!self.random.one_in(5)).then(|| self.random.below(CLIENTS_MAX));
        Shouted {
            client,
            topic: self.random.of(&ROOMS),
            script: Script { acts, end: self.random.of(&[End::Ok, End::NoReply]) },
        }
    }

    fn heard(&mut self) -> String {
        if self.random.one_in(3) { NEWS.to_owned() } else { self.random.of(&ROOMS).to_owned() }
    }

    fn wait(&mut self) -> Act {
        Act::Wait(self.gate())
    }

    fn gate(&mut self) -> Gate {
        self.gates += 1;
        self.gates
    }
}
