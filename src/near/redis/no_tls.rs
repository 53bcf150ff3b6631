//! In place of `tls` in a build without it.

use std::io;

use crate::{
    error::Result,
    near::options::{Options, invalid, without_credentials},
    os::stream::Stream,
};

/// No connection has it.
#[derive(Clone, Debug)]
pub(super) enum Tls {}

/// No connection has it.
#[derive(Debug)]
pub(super) enum Session {}

impl Tls {
    pub(super) fn check(options: &Options) -> Result<Self> {
        let url = without_credentials(options.get("backend").unwrap_or_default());
        Err(invalid("backend", &url, "this build of ucache has no TLS: build it with the feature tls"))
    }

    pub(super) fn begin(&self, _: &mut Stream, _: &str) -> io::Result<Session> {
        match *self {}
    }

    pub(super) fn is_insecure(&self) -> bool {
        match *self {}
    }
}

impl Session {
    pub(super) fn send(&mut self, _: &Stream, _: &[u8]) -> io::Result<usize> {
        match *self {}
    }

    pub(super) fn read(&mut self, _: &mut Stream, _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    pub(super) fn hint(&self) -> &'static str {
        match *self {}
    }
}
