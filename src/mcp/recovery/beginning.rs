//! Where a join leads: to a session that begins, or back to one.

use std::sync::Arc;

use super::{Attachment, Joining, Present};
use crate::channel::{JoinCx, Refusal};
use crate::mcp::Mcp;
use crate::mcp::auth::{AuthRefused, Identity, Opened, SessionPlace, SessionToken};
use crate::mcp::channel::SessionChannel;
use crate::mcp::session::{NewSession, Session};
use crate::protocol::mcp::recovery::{Offer, Position, Wish};

/// What a join has begun, or come back to.
pub(in crate::mcp) struct Begun {
    pub(in crate::mcp) session: Arc<Session>,
    pub(in crate::mcp) attachment: Option<Attachment>,
    pub(in crate::mcp) token: Option<SessionToken>,
    /// By which the session is revoked.
    pub(in crate::mcp) name: Option<Arc<str>>,
    /// Of a session that ends with its channel.
    pub(in crate::mcp) place: Option<SessionPlace>,
    pub(in crate::mcp) offer: Option<Offer>,
}

/// Reason of a join whose session may be in the store, which could not be read.
const NOT_READ: &str = "the session could not be read";
/// Reason of a join whose session could not be stored.
const NOT_STORED: &str = "the session could not be stored";

/// An attachment that no channel has yet: where the join comes to nothing, its client is lost.
struct Joined(Option<Attachment>);

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(attachment) = &self.0 {
            attachment.lose();
        }
    }
}

impl Mcp {
    /// A place among its user's sessions. Where there is none, the session gives way whose client has been away for longest.
    pub(super) fn open_place(&self, user: &Identity, id: &str) -> Result<Opened, AuthRefused> {
        loop {
            match self.auth.open_session(user, id) {
                Ok(opened) => return Ok(opened),
                Err(_) if self.recoveries.give_way(user) => {}
                Err(refused) => return Err(refused),
            }
        }
    }
}

impl Begun {
    /// Waits until the session is stored, where it is to be, so that its client may be told of it.
    pub(in crate::mcp) async fn stored(mut self) -> Result<Self, Refusal> {
        let mut joined = Joined(self.attachment.take());
        self.session.standing().until_stored().await.map_err(|_| Refusal::reason(NOT_STORED))?;
        self.attachment = joined.0.take();
        Ok(self)
    }

    /// Brings a client back to the session that its token is for, if that counts.
    pub(in crate::mcp) async fn again(
        mcp: &Arc<Mcp>,
        topic: &str,
        wish: &Wish,
        user: &Identity,
        cx: &JoinCx<SessionChannel>,
    ) -> Result<Option<Self>, Refusal> {
        let Some(token) = wish.token.as_deref() else { return Ok(None) };
        let joining = Joining { topic, user, handle: cx.handle(), connection: cx.connection_id() };
        mcp.recoveries.recall(mcp, token, &joining).await.map_err(|error| {
            tracing::error!(%error, "an MCP session could not be read from the store");
            Refusal::reason(NOT_READ)
        })?;
        let attached = mcp.recoveries.attach(mcp, token, wish.position, joining);
        let Some((recoverable, attached)) = attached else { return Ok(None) };
        let session = Arc::clone(&recoverable.session);
        tracing::debug!(server = session.server.name, user = &*user.user, "a client comes back to its MCP session");
        mcp.connections.resumed(&session, cx.handle());
        Ok(Some(Begun {
            offer: Some(mcp.recoveries.offer(&session, attached.serial, true, attached.position)),
            token: recoverable.token(),
            name: recoverable.name(),
            place: None,
            attachment: Some(Attachment::new(recoverable, attached.attachment)),
            session,
        }))
    }

    /// Begins a session, to which its client may come back if it `is_recoverable`.
    pub(in crate::mcp) fn anew(
        mcp: &Arc<Mcp>,
        topic: &str,
        mut new: NewSession,
        is_recoverable: bool,
        cx: &JoinCx<SessionChannel>,
    ) -> Result<Self, Refusal> {
        tracing::debug!(server = new.server.name, user = &*new.user.user, "an MCP session begins");
        let user = new.user.clone();
        let present = Present::first(cx.handle());
        if is_recoverable {
            new.standing = Arc::new(mcp.recoveries.outgoing(mcp, &new.server, &present));
            // It outlives the socket, whose rights end with that.
            new.user = Identity::new(Arc::clone(&user.user), (*user.rights()).clone());
        }
        let session = Session::open(mcp, new);
        let opened = match mcp.open_place(&user, session.id()) {
            Ok(opened) => opened,
            Err(refused) => {
                session.end();
                return Err(Refusal::reason(refused.0));
            }
        };
        if !is_recoverable {
            let Opened { place, token, session: name } = opened;
            mcp.connections.opened(&session, cx.handle());
            return Ok(Begun { session, attachment: None, token, name, place, offer: None });
        }
        session.record.opens();
        let recoverable = mcp.recoveries.hold(&session, topic, present);
        recoverable.keep(opened.place, opened.session.clone(), opened.token.clone());
        mcp.connections.opened(&session, cx.handle());
        let serial = session.standing().recovery(|recovery| recovery.serial()).unwrap_or_default();
        Ok(Begun {
            offer: Some(mcp.recoveries.offer(&session, serial, false, Position::default())),
            attachment: Some(Attachment::new(recoverable, 1)),
            token: opened.token,
            name: opened.session,
            place: None,
            session,
        })
    }
}
