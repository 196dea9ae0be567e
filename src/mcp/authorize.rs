//! Whether a request may be made, and made now: rate, then policy, then it is written down.
//!
//! Source: the contract of the Elixir deployment, section 4.3.

use super::auth::{Identity, Operation, Outcome};
use super::session::Session;
use crate::protocol::jsonrpc::{Fault, Object};
use crate::protocol::mcp::subscription::Filter;
use crate::protocol::mcp::{
    COMPLETE, PROMPTS_GET, RESOURCES_READ, RESOURCES_SUBSCRIBE, SUBSCRIPTIONS_LISTEN, TOOLS_CALL, peer,
};
use crate::protocol::policy::{Denied, methods};

impl Session {
    /// Whether the user may make this request, and make it now. Steps of a workflow are asked about rights alone.
    pub(super) fn authorize(&self, call: &peer::Call<'_>) -> Result<(), Fault> {
        let auth = &self.mcp.auth;
        let admitted = if self.is_workflow() { Ok(()) } else { auth.admit(&self.user, &call.method) };
        let decided = match admitted {
            Err(limited) => {
                Err((Outcome::RateLimited(limited), Fault::RateLimited { retry_after_s: limited.retry_after_s }))
            }
            Ok(()) => self
                .permit_call(&call.method, &call.params)
                .map_err(|denied| (Outcome::Denied(denied.reason()), Fault::Unauthorized(denied.to_string()))),
        };
        if auth.is_audited() {
            auth.operated(&Operation {
                user: &self.user,
                session_id: self.id(),
                server: &self.server.name,
                method: &call.method,
                params: call.raw_params,
                outcome: decided.as_ref().map_or_else(|(outcome, _)| *outcome, |()| Outcome::Allowed),
            });
        }
        decided.map_err(|(_, fault)| fault)
    }

    /// The same of a call that was admitted before a restart.
    pub(super) fn authorize_again(&self, call: &peer::Call<'_>) -> Result<(), Fault> {
        self.permit_call(&call.method, &call.params).map_err(|denied| Fault::Unauthorized(denied.to_string()))
    }

    /// Whether the user may make such a request.
    pub(super) fn permits(&self, method: &str, params: &Object<'_>) -> bool {
        self.permit_call(method, params).is_ok()
    }

    fn permit_call(&self, method: &str, params: &Object<'_>) -> Result<(), Denied> {
        // Rights may have become fewer since the session began.
        if !self.mcp.may_use(&self.user, &self.server) {
            return Err(Denied::Capability(format!("servers:use:{}", self.server.name)));
        }
        let name = |key: &str| params.string(key).unwrap_or_default();
        match method {
            TOOLS_CALL | PROMPTS_GET => permit(&self.user, method, &name("name")),
            RESOURCES_READ | RESOURCES_SUBSCRIBE => permit(&self.user, method, &name("uri")),
            // What it completes for has to be within reach.
            COMPLETE => {
                let reference = params.object("ref").unwrap_or_default();
                let text = |key: &str| reference.string(key).unwrap_or_default();
                match text("type").as_str() {
                    "ref/prompt" => permit(&self.user, PROMPTS_GET, &text("name")),
                    "ref/resource" => permit(&self.user, RESOURCES_READ, &text("uri")),
                    _ => Ok(()),
                }
            }
            SUBSCRIPTIONS_LISTEN => {
                // What is no list of changes is refused by whoever reads it.
                let uris = Filter::read(params).map(|filter| filter.uris).unwrap_or_default();
                uris.iter().try_for_each(|uri| permit(&self.user, RESOURCES_SUBSCRIBE, uri))
            }
            // A server of others may have methods of its own, which nobody may use who was not given them.
            unknown if self.server.upstream().is_some() && methods::known(unknown).is_none() => {
                let wanted = unknown.replace('/', ":");
                let may = self.user.rights().grants.allows(&wanted);
                if may { Ok(()) } else { Err(Denied::Capability(wanted)) }
            }
            _ => permit(&self.user, method, ""),
        }
    }
}

/// Whether a user may use a method on what is named: a tool, a prompt, a resource's URI; nothing for other methods.
pub(super) fn permit(user: &Identity, method: &str, name: &str) -> Result<(), Denied> {
    let rights = user.rights();
    match method {
        TOOLS_CALL => rights.grants.permit_tool(name),
        PROMPTS_GET => rights.grants.permit_prompt(name),
        RESOURCES_READ | RESOURCES_SUBSCRIBE => rights.grants.permit_resource(method, name),
        _ => rights.grants.permit_method(method),
    }
}
