//! Several authenticators, asked in order.

use std::sync::Arc;

use super::{AuthRefused, Authenticator, Credential, Identity, Presented};

/// Authenticators in the order in which they are asked. The first that knows the kind of credential decides.
#[derive(Clone, Default)]
pub struct Chain(Vec<Arc<dyn Authenticator>>);

impl Chain {
    /// Adds one behind those that are there.
    pub fn with(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.0.push(authenticator);
        self
    }

    /// Who is asking.
    ///
    /// # Errors
    /// What the authenticator says that knows the credential; where none does, that it is invalid, or that there is none.
    pub async fn authenticate(&self, presented: &Presented) -> Result<Identity, AuthRefused> {
        for authenticator in &self.0 {
            if let Some(identity) = authenticator.authenticate(presented).await? {
                return Ok(identity);
            }
        }
        Err(match presented.credential {
            None => AuthRefused::no_credentials(),
            Some(Credential::Token(_)) => AuthRefused::invalid_token(),
            Some(Credential::ApiKey(_)) => AuthRefused::invalid_key(),
        })
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|authenticator| authenticator.name())).finish()
    }
}
