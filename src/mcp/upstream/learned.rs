//! What is learnt of an upstream from the messages that pass: whose its tasks are, and which arguments it wants as headers.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::Value;

use crate::clock;
use crate::protocol::Time;
use crate::protocol::jsonrpc::splice;
use crate::protocol::mcp::headers::ParamHeaders;

/// Tasks whose owners are known; the oldest are forgotten, and then reached by nobody who shares a connection.
const TASKS_MAX: usize = 10_000;
/// Tools whose headers are known.
const TOOLS_MAX: usize = 10_000;
/// Milliseconds for which an upstream is not opened with `server/discover` that ended, or was silent, then: it may have been slow.
const FEAR_MS: u64 = 600_000;
/// Bytes of a task's id.
const TASK_ID_BYTES_MAX: usize = 1_024;

#[derive(Default)]
pub(in crate::mcp) struct Learned {
    tasks: Mutex<Tasks>,
    headers: Mutex<Headers>,
    /// It speaks the stateless era; and where it was opened in the other first, that alone.
    is_modern: AtomicBool,
    is_modern_only: AtomicBool,
    has_opened: AtomicBool,
    /// It ended, or said nothing, when it was opened with `server/discover`.
    /// When, in milliseconds; 0 for never.
    feared_discover_at: AtomicU64,
}

#[derive(Default)]
struct Tasks {
    owners: HashMap<String, Arc<str>>,
    order: VecDeque<String>,
}

#[derive(Default)]
struct Headers {
    is_known: bool,
    by_tool: HashMap<String, Arc<ParamHeaders>>,
}

impl Learned {
    /// Notes which era a connection speaks, by the one that was tried first.
    pub(in crate::mcp) fn note_era(&self, is_modern_first: bool, is_modern: bool) {
        if is_modern_first {
            self.has_opened.store(true, Ordering::SeqCst);
        }
        let known = if is_modern_first { &self.is_modern } else { &self.is_modern_only };
        known.store(is_modern, Ordering::SeqCst);
    }

    /// Whether a client of the stateless era is spoken for in it; or where not `is_modern`, one of the other.
    pub(in crate::mcp) fn speaks_stateless(&self, is_modern: bool) -> bool {
        let known = if is_modern { &self.is_modern } else { &self.is_modern_only };
        known.load(Ordering::SeqCst)
    }

    pub(in crate::mcp) fn note_fear_of_discover(&self) {
        self.feared_discover_at.store(clock::now().0, Ordering::SeqCst);
    }

    /// Whether it is known if it speaks the stateless era.
    pub(in crate::mcp) fn has_opened(&self) -> bool {
        self.has_opened.load(Ordering::SeqCst)
    }

    /// Whether it is to be opened with `initialize`, whoever it is for.
    pub(in crate::mcp) fn fears_discover(&self) -> bool {
        let feared = self.feared_discover_at.load(Ordering::SeqCst);
        feared > 0 && clock::now().since(Time(feared)) < FEAR_MS
    }

    /// Notes whose a task is that an answer to `tools/call` tells of.
    pub(in crate::mcp) fn note_task(&self, answer: &str, user: &Arc<str>) {
        let result = splice::get(answer, &["result"]).unwrap_or_default();
        // 2025-11-25 has a task in the result, the extension is the result.
        let id = splice::get(result, &["task", "taskId"]).or_else(|| {
            (splice::get(result, &["resultType"]) == Some("\"task\""))
                .then(|| splice::get(result, &["taskId"]))
                .flatten()
        });
        let Some(id) = id.and_then(|id| serde_json::from_str::<String>(id).ok()) else { return };
        if id.len() > TASK_ID_BYTES_MAX {
            return;
        }
        let mut tasks = self.tasks.lock();
        if tasks.owners.insert(id.clone(), Arc::clone(user)).is_none() {
            tasks.order.push_back(id);
        }
        if tasks.order.len() > TASKS_MAX
            && let Some(oldest) = tasks.order.pop_front()
        {
            tasks.owners.remove(&oldest);
        }
    }

    /// Whether a task is that user's.
    pub(in crate::mcp) fn is_owner(&self, task: &str, user: &str) -> bool {
        self.tasks.lock().owners.get(task).is_some_and(|owner| **owner == *user)
    }

    /// The tasks of a user.
    pub(in crate::mcp) fn tasks_of(&self, user: &str) -> BTreeSet<String> {
        let tasks = self.tasks.lock();
        tasks.owners.iter().filter(|(_, owner)| ***owner == *user).map(|(id, _)| id.clone()).collect()
    }

    /// Notes the headers of tools, of an answer to `tools/list`.
    pub(in crate::mcp) fn note_tools(&self, answer: &str) {
        let tools =
            splice::get(answer, &["result", "tools"]).and_then(|tools| serde_json::from_str::<Vec<Value>>(tools).ok());
        let mut headers = self.headers.lock();
        headers.is_known = true;
        for tool in tools.unwrap_or_default() {
            let Some(name) = tool["name"].as_str() else { continue };
            // Clients leave out a tool whose annotations are wrong; here it is as if it had none.
            let wanted = ParamHeaders::collect(&tool["inputSchema"]).unwrap_or_default();
            if wanted.is_empty() {
                headers.by_tool.remove(name);
            } else if headers.by_tool.len() < TOOLS_MAX {
                headers.by_tool.insert(name.to_owned(), Arc::new(wanted));
            }
        }
    }

    /// Whether the headers of tools have been learnt.
    pub(in crate::mcp) fn knows_headers(&self) -> bool {
        self.headers.lock().is_known
    }

    /// Which arguments of a tool come as headers too.
    pub(in crate::mcp) fn headers_of(&self, tool: &str) -> Option<Arc<ParamHeaders>> {
        self.headers.lock().by_tool.get(tool).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_its_users() {
        let learned = Learned::default();
        let (alice, bob): (Arc<str>, Arc<str>) = ("alice".into(), "bob".into());

        learned.note_task(r#"{"id":1,"result":{"task":{"taskId":"t\u0031"}}}"#, &alice);
        learned.note_task(r#"{"id":1,"result":{"resultType":"task","taskId":"t2"}}"#, &bob);
        learned.note_task(r#"{"id":1,"result":{"taskId":"t3"}}"#, &bob);

        assert!(learned.is_owner("t1", "alice") && learned.is_owner("t2", "bob"));
        assert!(!learned.is_owner("t1", "bob") && !learned.is_owner("t3", "bob"));
        assert_eq!(learned.tasks_of("alice"), BTreeSet::from(["t1".to_owned()]));
    }

    #[test]
    fn no_more_tasks_are_kept_than_may_be() {
        let learned = Learned::default();
        let user: Arc<str> = "u".into();

        for n in 0..=TASKS_MAX {
            learned.note_task(&format!(r#"{{"result":{{"task":{{"taskId":"{n}"}}}}}}"#), &user);
        }

        assert!(!learned.is_owner("0", "u") && learned.is_owner("1", "u"));
    }

    #[test]
    fn headers_of_tools_are_learnt_from_their_list() {
        let learned = Learned::default();
        assert!(!learned.knows_headers());

        learned.note_tools(
            r#"{"result":{"tools":[{"name":"a","inputSchema":{"properties":{"r":{"type":"string","x-mcp-header":"Region"}}}},{"name":"b","inputSchema":{}}]}}"#,
        );

        let wanted = learned.headers_of("a").expect("learnt");
        assert_eq!(wanted.values(&serde_json::json!({"r": "eu"})), [("Mcp-Param-Region".to_owned(), "eu".to_owned())]);
        assert!(learned.knows_headers() && learned.headers_of("b").is_none());
    }
}
