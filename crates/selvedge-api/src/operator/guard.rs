//! Who may ask: the token, and the two tricks a web page can play on a server
//! that listens on loopback.
//!
//! *DNS rebinding*: a page's own name is made to resolve to 127.0.0.1, so the
//! browser lets it read our answers. It cannot forge the `Host` header, so
//! without a token we answer only to addresses, `localhost` and names that were
//! configured. *Cross-site requests*: a page may send a POST to us without
//! reading the answer. Browsers say where it came from; we listen.

use super::{Config, Surface, problem::Problem};
use http::{HeaderMap, Method, header};
use std::net::IpAddr;

/// Lets a request pass, or says why not. The `page` itself holds no data.
pub(crate) fn check(
    surface: Surface,
    config: &Config,
    method: &Method,
    headers: &HeaderMap,
    page: bool,
) -> Result<(), Problem> {
    let host = text(headers, &header::HOST).unwrap_or_default();
    match &config.token {
        Some(token) if !page => {
            if !bearer(headers).is_some_and(|given| same(given.as_bytes(), token.as_bytes())) {
                return Err(Problem::unauthorized(surface));
            }
        }
        Some(_) => {}
        None if known_host(config, host) => {}
        None => return Err(Problem::host(host)),
    }
    if method != Method::GET && method != Method::HEAD {
        let foreign_site = headers
            .get("sec-fetch-site")
            .is_some_and(|site| site != "same-origin" && site != "none");
        let foreign_origin =
            headers.get(header::ORIGIN).is_some_and(|origin| match origin.to_str() {
                Ok(origin) => {
                    origin.split_once("://").map(|(_, authority)| authority) != Some(host)
                }
                Err(_) => true,
            });
        if foreign_site || foreign_origin {
            return Err(Problem::cross_site());
        }
    }
    Ok(())
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = text(headers, &header::AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Equality in a time that depends on the lengths only.
fn same(given: &[u8], wanted: &[u8]) -> bool {
    let differences = given
        .iter()
        .zip(wanted)
        .fold(0, |differences, (given, wanted)| differences | (given ^ wanted));
    given.len() == wanted.len() && differences == 0
}

fn known_host(config: &Config, host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || config.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
}
