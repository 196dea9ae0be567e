//! How many connections may be open, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::metrics::METRICS;

/// Limits on open connections; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdmissionLimits {
    /// In all.
    pub connections_max: usize,
    /// From one address.
    pub connections_per_ip_max: usize,
}

/// Counts open connections, WebSockets among them, and refuses those beyond the limits.
#[derive(Debug)]
pub struct Admission {
    limits: AdmissionLimits,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_ip: HashMap<IpAddr, usize>,
}

impl Admission {
    /// Nothing is open yet.
    pub fn new(limits: AdmissionLimits) -> Arc<Self> {
        Arc::new(Admission { limits, open: Mutex::default() })
    }

    /// Admits a connection until its permit is dropped. None, and counted, where a limit is reached.
    pub fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Permit> {
        let limits = self.limits;
        let mut guard = self.open.lock();
        let open = &mut *guard;
        let full = limits.connections_max != 0 && open.total >= limits.connections_max;
        let of_ip = open.by_ip.get(&ip).copied().unwrap_or(0);
        if full || limits.connections_per_ip_max != 0 && of_ip >= limits.connections_per_ip_max {
            METRICS.refused_connections.inc();
            return None;
        }
        open.total += 1;
        if limits.connections_per_ip_max != 0 {
            open.by_ip.insert(ip, of_ip + 1);
        }
        Some(Permit { admission: Arc::clone(self), ip })
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.lock().total
    }
}

/// An admitted connection.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    ip: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.admission.open.lock();
        open.total -= 1;
        if let Some(count) = open.by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                open.by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_share_and_gives_it_back() {
        let admission = Admission::new(AdmissionLimits { connections_max: 3, connections_per_ip_max: 2 });
        let (a, b) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());

        let first = admission.admit(a).unwrap();
        let _second = admission.admit(a).unwrap();
        assert!(admission.admit(a).is_none(), "two from one address");
        let _third = admission.admit(b).unwrap();
        assert!(admission.admit(b).is_none(), "three in all");

        drop(first);
        assert!(admission.admit(a).is_some());
    }
}
