//! The state of the files of users: what was in force last, and what is wrong with what is there by now.

use std::sync::Arc;

use crate::auth::{Auth, AuthError, Files};
use crate::config::Config;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    /// Of what was looked at last, sound or not; `None` if it could not be read.
    hash: Option<[u8; 32]>,
    pub(super) problem: Option<String>,
}

impl Credentials {
    /// Reads them for a config that names others, or none.
    pub(super) fn first(config: &Config) -> Result<(Arc<Auth>, Self), AuthError> {
        let files = Files::read(config)?;
        let auth = Auth::new(config, &files)?;
        Ok((Arc::new(auth), Self { hash: Some(files.hash()), problem: None }))
    }

    /// Reads them again. `None` if they are what they were when they were looked at last.
    pub(super) fn again(&mut self, config: &Config) -> Result<Option<Arc<Auth>>, String> {
        let files = Files::read(config);
        let hash = files.as_ref().ok().map(Files::hash);
        if hash.is_some() && hash == self.hash {
            return Ok(None);
        }
        let auth = files.and_then(|files| Auth::new(config, &files));
        let problem = auth.as_ref().err().map(ToString::to_string);
        if hash.is_none() && problem == self.problem {
            // Said already.
            return Ok(None);
        }
        self.hash = hash;
        self.problem.clone_from(&problem);
        auth.map(|auth| Some(Arc::new(auth))).map_err(|_| problem.unwrap_or_default())
    }
}
