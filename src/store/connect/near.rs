//! Which requests go to this machine's own services, and those past every proxy.
//!
//! Metadata services give out tokens in the clear, and a proxy would read them, or ask its own machine's. A *bucket* on this
//! machine is something else: where a user has set a proxy, requests to it go there, as those of curl and of AWS's own
//! command line do, and `NO_PROXY` is how to say otherwise.

use std::net::IpAddr;
use std::sync::OnceLock;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService};
use reqwest::Client;

use super::straight::{Proxies, Straight};

/// Headers without which the metadata services of Google and of Azure do not answer, and that nobody else asks for.
const OF_METADATA: [&str; 2] = ["metadata-flavor", "metadata"];
/// The name by which Google knows its own.
const METADATA_HOST: &str = "metadata.google.internal";

/// A client that goes by the settings, and one beside it that goes through no proxy. That one is made when it is needed,
/// because each reads all certificates of the system.
#[derive(Debug)]
pub(super) struct Ways {
    usual: Client,
    nearby: OnceLock<Client>,
    maker: Straight,
    options: ClientOptions,
}

impl Ways {
    pub(super) fn new(usual: Client, maker: Straight, options: ClientOptions) -> Self {
        Self { usual, nearby: OnceLock::new(), maker, options }
    }

    fn client(&self, request: &HttpRequest) -> Result<&Client, HttpError> {
        if !is_for_metadata(request) {
            return Ok(&self.usual);
        }
        if let Some(client) = self.nearby.get() {
            return Ok(client);
        }
        let made = self.maker.client(&self.options, Proxies::Never);
        let made = made.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        Ok(self.nearby.get_or_init(|| made))
    }
}

#[async_trait]
impl HttpService for Ways {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.client(&request)?.call(request).await
    }
}

fn is_for_metadata(request: &HttpRequest) -> bool {
    let host = request.uri().host().unwrap_or_default();
    let is_named = host.eq_ignore_ascii_case(METADATA_HOST);
    let is_asked = OF_METADATA.iter().any(|name| request.headers().contains_key(*name));
    is_asked || is_named || address(host).is_some_and(is_of_host)
}

/// The address that a host's part of a URL is, if it is one.
pub(in crate::store) fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether this machine's host is there, and never a bucket: link-local addresses, and fd00:ec2::/32, where AWS's instances
/// and pods find their host.
pub(in crate::store) fn is_of_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments().starts_with(&[0xfd00, 0xec2]),
    }
}

#[cfg(test)]
mod tests {
    use object_store::ClientConfigKey as Key;
    use object_store::client::{HttpConnector, HttpRequestBody};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn request(url: &str, header: Option<&'static str>) -> HttpRequest {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.parse().unwrap();
        if let Some(name) = header {
            request.headers_mut().insert(name, object_store::HeaderValue::from_static("true"));
        }
        request
    }

    #[test]
    fn metadata_is_told_from_a_bucket_wherever_either_is() {
        for (url, header, is_metadata) in [
            ("http://169.254.169.254/computeMetadata/v1/x", None, true),
            ("http://[fe80::1]/x", None, true),
            ("http://[fd00:ec2::254]/latest/api/token", None, true),
            ("http://metadata.google.internal/x", None, true),
            ("http://127.0.0.1:40342/identity", Some("metadata"), true),
            ("http://gke-metadata:988/x", Some("metadata-flavor"), true),
            ("http://127.0.0.1:9000/bucket/1", None, false),
            ("https://bucket.s3.amazonaws.com/1", None, false),
            ("https://metadata.google.internal.example.com/1", None, false),
            ("https://169.254.169.254.example.com/1", None, false),
        ] {
            assert_eq!(is_for_metadata(&request(url, header)), is_metadata, "{url}");
        }
    }

    /// Answers everybody with its own name.
    async fn server(name: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", name.len());
                let _ = stream.write_all(format!("{head}{name}").as_bytes()).await;
            }
        });
        url
    }

    #[tokio::test]
    async fn no_proxy_hears_of_requests_for_metadata_and_a_bucket_on_this_machine_is_left_to_the_user() {
        let (proxy, near) = (server("the proxy").await, server("the service").await);
        let options = ClientOptions::new().with_config(Key::ProxyUrl, proxy).with_allow_http(true);
        let maker = Straight::default();
        let (usual, nearby) = (maker.connect(&options).unwrap(), maker.connect_nearby(&options).unwrap());
        for (client, header, who) in [
            (&usual, Some("metadata-flavor"), "the service"),
            (&usual, Some("metadata"), "the service"),
            (&usual, None, "the proxy"),
            (&nearby, None, "the service"),
        ] {
            let answer = client.execute(request(&near, header)).await.unwrap();
            assert_eq!(answer.into_body().bytes().await.unwrap(), who, "{header:?}");
        }
    }
}
