//! The route action `ucachepurge:`: removes pages at the request of somebody who may do that.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use super::{
    action::key,
    asked::Asked,
    request::Request,
    settings::{Settings, list, switch},
};
use crate::{
    capi::host::{cache::Cache, kvlist},
    net::purge::{Which, purge},
    wire::shown::shown,
};

/// The header with the token.
const TOKEN: &[u8] = b"x-purge-token";

/// The options of one route.
#[derive(Clone, Debug, Default)]
pub(super) struct Purge {
    /// The cache and the key, as in `ucache:`.
    pub(super) pages: Settings,
    /// Template of a prefix of keys.
    prefix: Option<Vec<u8>>,
    /// Template of a tag.
    tag: Option<Vec<u8>>,
    soft: bool,
    /// Methods that purge; others go on to the next route.
    methods: Vec<Vec<u8>>,
    /// Networks that may purge.
    allow: Vec<Network>,
    /// What `X-Purge-Token` must be.
    token: Option<Vec<u8>>,
}

/// Addresses that may purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    /// The first bits of an address.
    Ip(IpAddr, u32),
    /// Connections without an address: those of a unix socket.
    Unix,
}

impl Purge {
    /// Reads the text behind `ucachepurge:`.
    ///
    /// # Errors
    /// Which option is wrong, and what to write.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let mut this = Self { methods: vec![b"PURGE".to_vec()], ..Self::default() };
        for (name, value) in kvlist::parse(text) {
            let name = String::from_utf8_lossy(&name).into_owned();
            let value = value.filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| format!("{}: a value is missing", shown(name.as_bytes())))?;
            match name.as_str() {
                "name" => this.pages.name = value,
                "key" => this.pages.key = Some(value),
                "prefix" => this.prefix = Some(value),
                "tag" => this.tag = Some(value),
                "soft" => this.soft = switch(&value).map_err(|expected| wrong(&name, &value, &expected))?,
                "methods" => this.methods = list(&value).map(<[u8]>::to_vec).collect(),
                "allow" => {
                    let networks: Option<_> = list(&value).map(Network::parse).collect();
                    let expected = "addresses or networks (127.0.0.1;10.0.0.0/8;::1) or unix";
                    this.allow = networks.ok_or_else(|| wrong(&name, &value, expected))?;
                }
                "token" => this.token = Some(value),
                _ => {
                    return Err(format!(
                        "{}: there is no such option (name, key, prefix, tag, soft, methods, allow, token)",
                        shown(name.as_bytes())
                    ));
                }
            }
        }
        let whats = [this.pages.key.is_some(), this.prefix.is_some(), this.tag.is_some()];
        if whats.iter().filter(|given| **given).count() > 1 {
            return Err("one of key, prefix and tag at a time".to_owned());
        }
        if this.allow.is_empty() && this.token.is_none() {
            return Err("allow= (addresses) or token= is needed: who may purge?".to_owned());
        }
        Ok(this)
    }

    fn allows(&self, address: &[u8], token: Option<&[u8]>) -> bool {
        let from = self.allow.is_empty() || self.allow.iter().any(|network| network.has(address));
        let knows = self.token.as_ref().is_none_or(|own| token.is_some_and(|given| same(own, given)));
        from && knows
    }
}

impl Network {
    fn parse(text: &[u8]) -> Option<Self> {
        if text == b"unix" {
            return Some(Self::Unix);
        }
        let text = std::str::from_utf8(text).ok()?;
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
        (bits <= most).then_some(Self::Ip(address, bits))
    }

    fn has(self, address: &[u8]) -> bool {
        let Self::Ip(network, bits) = self else { return address.is_empty() };
        let Some(address) = std::str::from_utf8(address).ok().and_then(|a| a.parse::<IpAddr>().ok()) else {
            return false;
        };
        let number = |ip: IpAddr| match ip.to_canonical() {
            IpAddr::V4(ip) => (u128::from(u32::from(ip)) << 96, 4),
            IpAddr::V6(ip) => (u128::from(ip), 6),
        };
        let ((own, family), (other, of)) = (number(network), number(address));
        family == of && (bits == 0 || (own ^ other) >> (128 - bits) == 0)
    }
}

/// Compares in a time that does not depend on where the first difference is.
fn same(own: &[u8], given: &[u8]) -> bool {
    own.len() == given.len() && own.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

fn wrong(name: &str, value: &[u8], expected: &str) -> String {
    format!("{name}={}: expected {expected}", shown(value))
}

/// Purges and answers; `false` = the request is none for this.
pub(super) fn run(request: &Request, purges: &Purge) -> bool {
    let method = request.var("REQUEST_METHOD").unwrap_or_default();
    if !purges.methods.iter().any(|own| own == method) {
        return false;
    }
    let address = request.var("REMOTE_ADDR").unwrap_or_default();
    if !purges.allows(address, request.header(TOKEN)) {
        answer(request, b"403 Forbidden", "not allowed to purge\n");
        return true;
    }
    let translated = |template: &Option<Vec<u8>>| {
        template.as_ref().and_then(|t| request.translate(t)).filter(|text| !text.is_empty())
    };
    let (prefix, tag) = (translated(&purges.prefix), translated(&purges.tag));
    let url =
        if purges.prefix.is_none() && purges.tag.is_none() { key(request, &purges.pages) } else { None };
    let which = match (&prefix, &tag, &url) {
        (Some(prefix), ..) => Which::Prefix(prefix),
        (_, Some(tag), _) => Which::Tag(tag),
        (.., Some(url)) => Which::Key(url),
        _ => {
            answer(request, b"400 Bad Request", "nothing to purge is named\n");
            return true;
        }
    };
    let Some(cache) = Cache::by_name(&purges.pages.name) else { return false };
    match purge(&cache.tier, which, purges.soft) {
        Ok(count) => answer(request, b"200 OK", &format!("{count}\n")),
        Err(error) => {
            request.host.log(&format!("ucachepurge: {error}"));
            answer(request, b"503 Service Unavailable", "the cache cannot be purged now\n");
        }
    }
    true
}

fn answer(request: &Request, status: &[u8], body: &str) {
    let fields = [
        (b"Content-Type".to_vec(), b"text/plain".to_vec()),
        (b"Content-Length".to_vec(), body.len().to_string().into_bytes()),
    ];
    request.log("PURGE");
    if request.begin(status, &fields, std::ptr::null()) {
        request.send(body.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Purge, String> {
        Purge::parse(text.as_bytes())
    }

    #[test]
    fn somebody_must_be_allowed() {
        let lacking = parse("name=c").expect_err("nobody is allowed");
        assert!(lacking.contains("allow="), "{lacking}");
        for (text, part) in [
            ("allow=10.0.0.0/33", "expected addresses"),
            ("allow=host", "expected addresses"),
            ("token=", "a value is missing"),
            ("token=t,soft=maybe", "expected 1 or 0"),
            ("token=t,prefix=a,tag=b", "one of"),
            ("token=t,ttl=5", "no such option"),
        ] {
            let why = parse(text).expect_err(text);
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    #[test]
    fn addresses_and_tokens_are_checked() {
        let both = parse("allow=10.1.0.0/16;::1;unix,token=secret").expect("valid");
        let allows = |address: &str, token: &str| both.allows(address.as_bytes(), Some(token.as_bytes()));
        for address in ["10.1.2.3", "::1", "", "::ffff:10.1.0.1"] {
            assert!(allows(address, "secret"), "{address}");
            assert!(!allows(address, "secreT") && !allows(address, "secret2") && !allows(address, ""));
            assert!(!both.allows(address.as_bytes(), None));
        }
        for address in ["10.2.0.1", "::2", "10.1.2", "unix", "10.1.2.3, 1.1.1.1"] {
            assert!(!allows(address, "secret"), "{address}");
        }
        let all = parse("allow=0.0.0.0/0").expect("valid");
        assert!(all.allows(b"1.2.3.4", None) && !all.allows(b"::1", None));
    }
}
