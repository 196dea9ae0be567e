//! What has to happen, client by client.

mod absinthe;
mod phyllo;
mod realtime;
mod room;
mod yjs;

use crate::app::End;

/// Both ways in which a server goes away.
const ENDS: [End; 2] = [End::Drained, End::Killed];
