//! The names and passwords that connections begin with.

use std::{env, fs};

use crate::{
    error::Result,
    near::options::{Options, invalid},
};

/// A name and a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// By hand: without the password.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Login {
    /// Of the options with these names, and else `default`.
    pub(super) fn read(
        options: &Options,
        user: &'static str,
        password: &'static str,
        default: Self,
    ) -> Result<Self> {
        Ok(Self {
            user: options.get(user).map(str::to_owned).or(default.user),
            password: options
                .get(password)
                .map_or(Ok(default.password), |from| secret(password, from).map(Some))?,
        })
    }

    /// The words of the command that logs in; none without a name or password.
    pub(super) fn command(&self) -> Vec<&[u8]> {
        match (&self.user, &self.password) {
            (None, None) => Vec::new(),
            (None, Some(password)) => vec![b"AUTH", password.as_bytes()],
            (Some(user), password) => {
                vec![b"AUTH", user.as_bytes(), password.as_deref().unwrap_or_default().as_bytes()]
            }
        }
    }
}

/// `file:/path` (a trailing line end is not part of it) or `env:NAME`. What is neither may be a
/// secret itself, and is not repeated.
fn secret(option: &'static str, from: &str) -> Result<String> {
    let refuse = |shown: &str, reason: &str| Err(invalid(option, shown, reason));
    let secret = if let Some(path) = from.strip_prefix("file:") {
        match fs::read_to_string(path) {
            Ok(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
            Err(error) => return refuse(from, &format!("the file cannot be read: {error}")),
        }
    } else if let Some(name) = from.strip_prefix("env:") {
        match env::var(name) {
            Ok(text) => text,
            Err(_) => return refuse(from, "the environment has no such variable, or it is not UTF-8"),
        }
    } else {
        return refuse("(not shown)", "must be file:/path/of/a/file or env:NAME_OF_A_VARIABLE");
    };
    if secret.is_empty() { refuse(from, "is empty") } else { Ok(secret) }
}
