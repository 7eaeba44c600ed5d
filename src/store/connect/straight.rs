//! Clients that go where they are sent and nowhere else: no answer of a store leads them to another.
//!
//! The connector that the object store brings along follows redirects, whoever they lead to, and session tokens go with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use object_store::client::{HttpClient, HttpConnector};
use object_store::{ClientConfigKey as Key, ClientOptions, Error as RawError, Result as RawResult};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, NoProxy, Proxy};

use super::bounded::Bounded;
use super::near::Ways;

const USER_AGENT: &str = concat!("coffer/", env!("CARGO_PKG_VERSION"));

type SetTime = fn(ClientBuilder, Duration) -> ClientBuilder;
/// Settings that are times, and what they set.
const TIMES: [(Key, SetTime); 6] = [
    (Key::Timeout, ClientBuilder::timeout),
    (Key::ConnectTimeout, ClientBuilder::connect_timeout),
    (Key::ReadTimeout, ClientBuilder::read_timeout),
    (Key::PoolIdleTimeout, ClientBuilder::pool_idle_timeout),
    (Key::Http2KeepAliveInterval, ClientBuilder::http2_keep_alive_interval),
    (Key::Http2KeepAliveTimeout, ClientBuilder::http2_keep_alive_timeout),
];

/// Connections that have been left alone for so long are asked whether they are still there.
const QUIET: Duration = Duration::from_secs(5);
/// They are asked so often, and are dead if they say nothing.
const QUIET_ASK_EVERY: Duration = Duration::from_secs(2);
const QUIET_ASKS: u32 = 2;
/// Whatever has been sent and not been acknowledged for so long shows that a connection is dead. After a sleep, or in
/// another network, all that wait for their next request are: without this each of them would cost an attempt.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Makes such clients, whose answers end. They trust these certificates beside the system's.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Straight {
    pub(super) certificates: Vec<Certificate>,
}

impl HttpConnector for Straight {
    fn connect(&self, options: &ClientOptions) -> RawResult<HttpClient> {
        let usual = self.client(options, Proxies::AsSet)?;
        Ok(HttpClient::new(Bounded(Ways::new(usual, self.clone(), options.clone()))))
    }
}

/// Whether a client goes through proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proxies {
    /// Through those of the settings, or of the variables that all programs share.
    AsSet,
    /// Through none.
    Never,
}

impl Straight {
    /// A client that goes through no proxy, whatever is set.
    ///
    /// # Errors
    /// A setting cannot be understood.
    pub(in crate::store) fn connect_nearby(&self, options: &ClientOptions) -> RawResult<HttpClient> {
        Ok(HttpClient::new(Bounded(self.client(options, Proxies::Never)?)))
    }

    /// A client by all settings that the object store knows for its own.
    pub(super) fn client(&self, options: &ClientOptions, proxies: Proxies) -> RawResult<Client> {
        let said = |key: Key| options.get_config_value(&key);
        let is = |key: Key| said(key).is_some_and(|text| is_true(&text));
        // Compression would change the lengths by which objects are measured.
        let mut builder = Client::builder().no_gzip().no_brotli().no_zstd().no_deflate();
        builder = builder.redirect(Policy::none()).https_only(!is(Key::AllowHttp));
        builder = builder.user_agent(said(Key::UserAgent).unwrap_or_else(|| USER_AGENT.to_owned()));
        builder = builder.tcp_keepalive(QUIET).tcp_keepalive_interval(QUIET_ASK_EVERY);
        builder = builder.tcp_keepalive_retries(QUIET_ASKS).tcp_user_timeout(UNACKNOWLEDGED);
        if proxies == Proxies::Never {
            builder = builder.no_proxy();
        } else if let Some(proxy) = said(Key::ProxyUrl) {
            let mut proxy = Proxy::all(proxy).map_err(failed)?;
            if let Some(excluded) = said(Key::ProxyExcludes) {
                proxy = proxy.no_proxy(NoProxy::from_string(&excluded));
            }
            if let Some(pem) = said(Key::ProxyCaCertificate) {
                let certificate = Certificate::from_pem(pem.as_bytes()).map_err(failed)?;
                builder = builder.tls_certs_merge([certificate]);
            }
            builder = builder.proxy(proxy);
        }
        let certificates = self.certificates.iter().cloned();
        builder = match is(Key::NoSystemCertificates) {
            true => builder.tls_certs_only(certificates),
            false => builder.tls_certs_merge(certificates),
        };
        for (key, set) in TIMES {
            if let Some(text) = said(key) {
                builder = set(builder, humantime::parse_duration(&text).map_err(failed)?);
            }
        }
        if let Some(text) = said(Key::PoolMaxIdlePerHost) {
            builder = builder.pool_max_idle_per_host(text.parse().map_err(failed)?);
        }
        if let Some(text) = said(Key::Http2MaxFrameSize) {
            builder = builder.http2_max_frame_size(Some(text.parse().map_err(failed)?));
        }
        if is(Key::Http2KeepAliveWhileIdle) {
            builder = builder.http2_keep_alive_while_idle(true);
        }
        if is(Key::Http1Only) {
            builder = builder.http1_only();
        }
        if is(Key::Http2Only) {
            builder = builder.http2_prior_knowledge();
        }
        if is(Key::AllowInvalidCertificates) {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        if is(Key::RandomizeAddresses) {
            builder = builder.dns_resolver(Arc::new(Turns::default()));
        }
        builder.build().map_err(failed)
    }
}

fn is_true(text: &str) -> bool {
    ["1", "true", "on", "yes", "y"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> RawError {
    RawError::Generic { store: "client", source: Box::new(error) }
}

/// Begins with another address of a host each time, so that connections spread over all its servers.
#[derive(Debug, Default)]
struct Turns(AtomicUsize);

impl Resolve for Turns {
    fn resolve(&self, name: Name) -> Resolving {
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            // The client puts the port of the address that it asks for in the place of 0.
            let mut found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let count = found.len().max(1);
            found.rotate_left(turn % count);
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::net::sockopt;

    use super::*;

    #[test]
    fn every_setting_of_a_client_is_heeded_and_one_that_cannot_be_understood_is_an_error() {
        let with = |settings: &[(Key, &str)]| {
            let all = settings.iter().cloned();
            let options =
                all.fold(ClientOptions::new(), |options, (key, text)| options.with_config(key, text));
            Straight::default().connect(&options)
        };
        with(&[]).unwrap();
        let proxy = (Key::ProxyUrl, "http://127.0.0.1:1");
        for setting in [
            (Key::Timeout, "1 hour"),
            (Key::ConnectTimeout, "10 seconds"),
            (Key::PoolMaxIdlePerHost, "7"),
            (Key::Http2MaxFrameSize, "20000"),
            (Key::Http1Only, "Yes"),
            (Key::Http2Only, "true"),
            (Key::AllowInvalidCertificates, "true"),
            (Key::RandomizeAddresses, "false"),
            (Key::ProxyExcludes, "localhost,10.0.0.0/8"),
            (Key::UserAgent, "somebody"),
        ] {
            with(&[proxy, setting]).unwrap_or_else(|error| panic!("{setting:?}: {error}"));
        }
        for setting in [
            (Key::Timeout, "soon"),
            (Key::ReadTimeout, "10 parsecs"),
            (Key::PoolMaxIdlePerHost, "-1"),
            (Key::Http2MaxFrameSize, "x"),
            (Key::ProxyCaCertificate, "-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----"),
        ] {
            assert!(with(&[proxy, setting]).is_err(), "{setting:?}");
        }
        assert!(with(&[(Key::ProxyUrl, "not an address")]).is_err());
    }

    /// The other end of what a client has connected, as this process holds it.
    fn own_end_of(peer: SocketAddr) -> OwnedFd {
        use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
        let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        let numbers = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut found = numbers.filter_map(|number| pidfd_getfd(&own, number, PidfdGetfdFlags::empty()).ok());
        let is_it = |fd: &OwnedFd| {
            rustix::net::getsockname(fd)
                .is_ok_and(|name| SocketAddr::try_from(name).is_ok_and(|it| it == peer))
        };
        found.find(is_it).unwrap()
    }

    #[tokio::test]
    async fn a_connection_that_died_in_a_sleep_is_found_dead_within_seconds() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let options = ClientOptions::new().with_allow_http(true);
        let client = Straight::default().client(&options, Proxies::Never).unwrap();
        let asking = tokio::spawn(client.get(url).send());
        let (_stream, peer) = listener.accept().await.unwrap();
        let socket = own_end_of(peer);
        assert!(sockopt::socket_keepalive(&socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), QUIET);
        assert_eq!(sockopt::tcp_keepintvl(&socket).unwrap(), QUIET_ASK_EVERY);
        assert_eq!(sockopt::tcp_keepcnt(&socket).unwrap(), QUIET_ASKS);
        assert_eq!(u128::from(sockopt::tcp_user_timeout(&socket).unwrap()), UNACKNOWLEDGED.as_millis());
        asking.abort();
    }

    #[tokio::test]
    async fn addresses_of_a_host_take_turns() {
        let turns = Turns::default();
        let found = async || turns.resolve("localhost".parse().unwrap()).await.unwrap().collect::<Vec<_>>();
        let (mut found_first, found_next) = (found().await, found().await);
        let count = found_first.len();
        found_first.rotate_left(1 % count);
        assert_eq!(found_first, found_next);
    }
}
