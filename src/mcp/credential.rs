//! The credential of an MCP channel: who joins, what becomes of it when it ends, and the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Mcp;
use super::auth::{Admitted, Door, Identity, Presented};
use super::channel::json;
use crate::auth::live::{Gone, Resident};
use crate::channel::{Channel, Cx, JoinCx, Next, Payload, Refusal};
use crate::clock;
use crate::protocol::jsonrpc::Object;
use crate::protocol::mcp::session::Credential;
use crate::protocol::mcp::{ACCESS_TOKEN, CREDENTIAL_EXPIRED, UNKNOWN_EVENT};

/// Who is on a channel, as long as it lives.
pub(super) struct Member {
    pub(super) user: Identity,
    resident: Option<Resident>,
    /// Whether the credential, the session or the user was revoked.
    is_revoked: Arc<AtomicBool>,
}

/// Who joins, by the credential among the join's parameters or by their socket's.
pub(super) async fn authenticate<C: Channel>(
    mcp: &Mcp,
    topic: &str,
    params: &Payload,
    cx: &JoinCx<C>,
) -> Result<Identity, Refusal> {
    let presented = Presented::new(Credential::choose(json(params)), Door::Topic(topic.to_owned()));
    let presented = presented.by(cx.assigns::<Admitted>());
    mcp.auth.authenticate(presented).await.map_err(|refused| Refusal::reason(refused.0))
}

impl Member {
    /// Lets a user stay while their credential holds. When its time is over the channel is told `expired`; when it is revoked,
    /// the client's socket is closed.
    pub(super) fn stay<C: Channel>(mcp: &Mcp, user: Identity, expired: fn() -> C::Info, cx: &JoinCx<C>) -> Self {
        Self::stay_in(mcp, user, None, expired, cx)
    }

    /// The same for one who has a session that can be revoked by this name.
    pub(super) fn stay_in<C: Channel>(
        mcp: &Mcp,
        user: Identity,
        session: Option<&Arc<str>>,
        expired: fn() -> C::Info,
        cx: &JoinCx<C>,
    ) -> Self {
        let (handle, socket) = (cx.handle(), cx.socket());
        let is_revoked = Arc::<AtomicBool>::default();
        let noted = Arc::clone(&is_revoked);
        let resident = mcp.auth.watch_credential(
            &user,
            session,
            Box::new(move |gone| match gone {
                // Where the connection is going, nobody waits for the message.
                Gone::Expired => drop(handle.send(expired())),
                Gone::Revoked => {
                    noted.store(true, Ordering::SeqCst);
                    socket.disconnect();
                }
            }),
        );
        Member { user, resident, is_revoked }
    }

    /// Whether their connection was closed because they may no longer be here.
    pub(super) fn is_revoked(&self) -> bool {
        self.is_revoked.load(Ordering::SeqCst)
    }

    /// Takes a later credential: `access_token` with `{"access_token": <token>}`. The one before goes on to hold where this
    /// one is refused.
    pub(super) async fn renew<C: Channel>(&self, mcp: &Mcp, topic: &str, payload: &Payload, cx: &Cx<C>) -> Next {
        let fields = Object::parse(json(payload)).unwrap_or_default();
        let Some(token) = fields.string("access_token") else {
            return Next::error(Payload::reason("access_token must be a string"));
        };
        let presented = Presented::new(Some(Credential::Token(token)), Door::Topic(topic.to_owned()));
        let admitted = cx.assigns::<Admitted>();
        let later = match mcp.auth.authenticate(presented.by(admitted).renewal()).await {
            Ok(later) if later == self.user => later,
            Ok(_) => return Next::error(Payload::reason("access_token is another user's")),
            Err(refused) => return Next::error(Payload::reason(&refused.0)),
        };
        if later.rights().session.is_some() {
            return Next::error(Payload::reason("access_token is a session's, which ends with it"));
        }
        // Who came in as their socket's user ends with it, and not before.
        let is_the_sockets = admitted.and_then(Admitted::identity).is_some_and(|of| of.shares_rights(&self.user));
        if !is_the_sockets {
            self.user.renew(&later);
            if let Some(resident) = &self.resident {
                resident.renewed();
            }
        }
        if let Some(admitted) = admitted {
            admitted.renew(&later);
        }
        Next::ok(Payload::EMPTY)
    }

    /// What a channel that only watches answers its client.
    pub(super) async fn handle_in<C: Channel>(&self, mcp: &Mcp, event: &str, payload: &Payload, cx: &Cx<C>) -> Next {
        match event {
            ACCESS_TOKEN => self.renew(mcp, cx.topic(), payload, cx).await,
            _ => Next::error(Payload::reason(UNKNOWN_EVENT)),
        }
    }

    /// How a channel ends whose credential's time is over: with `phx_error`, so that phoenix.js joins again with fresh
    /// parameters.
    pub(super) fn expire(&self) -> Next {
        let now_ms = clock::unix_micros() / 1_000;
        match self.user.rights().expires_unix_ms {
            // A later one was taken meanwhile.
            Some(at) if at > now_ms && self.user.rights().session.is_none() => Next::NoReply,
            _ => Next::crash(CREDENTIAL_EXPIRED),
        }
    }
}
