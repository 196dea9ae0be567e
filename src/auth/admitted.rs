//! What a socket keeps of the client that was let in.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use super::Identity;
use super::live::Resident;

/// The client of a socket, for its channels: the value that the socket's `connect` gives to its assigns. Clones are the same.
#[derive(Clone, Debug)]
pub struct Admitted(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ip: Option<IpAddr>,
    identity: Option<Identity>,
    /// Its entry among those who are here.
    resident: OnceLock<Resident>,
}

impl Admitted {
    /// A client at an address; `identity` is none where nobody asked who it is.
    pub fn new(identity: Option<Identity>, ip: Option<IpAddr>) -> Self {
        Admitted(Arc::new(Inner { ip, identity, resident: OnceLock::new() }))
    }

    /// Keeps its place among those who are here, as long as the socket lives.
    pub fn settle(&self, resident: Resident) {
        // A socket is opened once.
        let _ = self.0.resident.set(resident);
    }

    /// The client's address, as far as it is known.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.ip
    }

    /// Who it is.
    pub fn identity(&self) -> Option<&Identity> {
        self.0.identity.as_ref()
    }

    /// Takes a later credential of the same user; whether it was of the same.
    pub fn renew(&self, later: &Identity) -> bool {
        let Some(identity) = self.0.identity.as_ref().filter(|identity| *identity == later) else { return false };
        // One that holds for ever is not given an end.
        if identity.rights().expires_unix_ms.is_none() {
            return true;
        }
        identity.renew(later);
        if let Some(resident) = self.0.resident.get() {
            resident.renewed();
        }
        true
    }
}
