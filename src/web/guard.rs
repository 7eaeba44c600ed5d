//! Which requests are answered: those that a program or person meant for this machine.
//!
//! A page from elsewhere can make a browser ask here under a name that it has pointed at this address (DNS rebinding), and
//! then read the answer as its own. So the request must name the address itself, or `localhost`.

use std::net::IpAddr;

use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Page,
    Metrics,
    Status,
}

/// What `request` asks for, or how it is turned away.
pub(super) fn admit<B>(request: &Request<B>) -> Result<Asked, StatusCode> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).ok_or(StatusCode::BAD_REQUEST)?;
    if hosts.next().is_some() {
        return Err(StatusCode::BAD_REQUEST);
    }
    let is_named_so = |authority: &hyper::http::uri::Authority| is_own(authority.as_str());
    if !is_own(host) || !request.uri().authority().is_none_or(is_named_so) {
        return Err(StatusCode::MISDIRECTED_REQUEST);
    }
    if request.method() != Method::GET {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    match request.uri().path() {
        "/" => Ok(Asked::Page),
        "/metrics" => Ok(Asked::Metrics),
        "/status.json" => Ok(Asked::Status),
        _ => Err(StatusCode::NOT_FOUND),
    }
}

/// Whether a `Host` names an address, which nobody can point elsewhere, or this machine.
fn is_own(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) if host.starts_with('[') && host.ends_with(']') => host,
        Some(_) => return false,
        None => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    name.eq_ignore_ascii_case("localhost")
        || match bare {
            Some(bare) => matches!(bare.parse(), Ok(IpAddr::V6(_))),
            None => matches!(name.parse(), Ok(IpAddr::V4(_))),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: Method, uri: &str, hosts: &[&str]) -> Result<Asked, StatusCode> {
        let mut request = Request::builder().method(method).uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        admit(&request.body(()).unwrap())
    }

    #[test]
    fn a_name_that_somebody_else_may_own_is_not_answered() {
        for host in ["127.0.0.1:9400", "localhost", "LocalHost:9400", "[::1]:9400", "[::1]", "192.0.2.7"] {
            assert_eq!(ask(Method::GET, "/", &[host]), Ok(Asked::Page), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9400",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "localhost:",
            "localhost:80x",
            "::1",
            "[evil]:80",
            "127.0.0.1:80:80",
            "",
            "[127.0.0.1]",
        ] {
            let refused = ask(Method::GET, "/metrics", &[host]);
            assert_eq!(refused, Err(StatusCode::MISDIRECTED_REQUEST), "{host:?}");
        }
        assert_eq!(ask(Method::GET, "/", &[]), Err(StatusCode::BAD_REQUEST));
        assert_eq!(ask(Method::GET, "/", &["localhost", "evil.example"]), Err(StatusCode::BAD_REQUEST));
        let absolute = ask(Method::GET, "http://evil.example/status.json", &["localhost"]);
        assert_eq!(absolute, Err(StatusCode::MISDIRECTED_REQUEST));
    }

    #[test]
    fn only_three_things_can_be_had_and_only_by_get() {
        assert_eq!(ask(Method::GET, "/metrics?x=1", &["localhost"]), Ok(Asked::Metrics));
        assert_eq!(ask(Method::GET, "/status.json", &["localhost"]), Ok(Asked::Status));
        for path in ["/metrics/", "//", "/index.html", "/../etc/passwd", "/status"] {
            assert_eq!(ask(Method::GET, path, &["localhost"]), Err(StatusCode::NOT_FOUND), "{path}");
        }
        for method in [Method::POST, Method::HEAD, Method::PUT, Method::OPTIONS, Method::DELETE] {
            assert_eq!(ask(method, "/", &["localhost"]), Err(StatusCode::METHOD_NOT_ALLOWED));
        }
    }
}
