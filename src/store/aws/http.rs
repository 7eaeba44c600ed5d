//! Requests for credentials: short, and their answers small.

use std::sync::OnceLock;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody};
use serde_json::Value;
use url::Url;

use super::Failure;
use crate::store::connect::{Straight, address, is_of_host};

/// Longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest that a machine's own metadata service may take to be reached: it is next door or not there.
const NEAR: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// The clients for services on the network and for those of this machine, which no proxy hears of, made when they are
/// needed: each reads all certificates of the system.
pub(in crate::store) struct Http {
    connector: Straight,
    options: ClientOptions,
    far: OnceLock<HttpClient>,
    near: OnceLock<HttpClient>,
}

/// A request; its parts are never shown.
pub(super) struct Ask<'a> {
    pub(super) method: &'a str,
    pub(super) url: &'a str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
    /// Who signs it, for which region's STS.
    pub(super) signer: Option<(&'a AwsCredential, &'a str)>,
}

impl<'a> Ask<'a> {
    pub(super) fn get(url: &'a str) -> Self {
        Self { method: "GET", url, headers: Vec::new(), body: String::new(), signer: None }
    }
}

impl Http {
    /// Both, made by `connector`.
    pub(in crate::store) fn new(connector: Straight) -> Self {
        let options = ClientOptions::new().with_timeout(PATIENCE);
        Self { connector, options, far: OnceLock::new(), near: OnceLock::new() }
    }

    fn client(&self, reach: Reach) -> Result<&HttpClient, Failure> {
        let place = match reach {
            Reach::Far => &self.far,
            Reach::Near => &self.near,
        };
        if let Some(client) = place.get() {
            return Ok(client);
        }
        let client = match reach {
            Reach::Far => self.connector.connect(&self.options),
            Reach::Near => {
                let options = self.options.clone().with_allow_http(true).with_connect_timeout(NEAR);
                self.connector.connect_nearby(&options)
            }
        };
        let client = client.map_err(|error| Failure::Refused(format!("no client can be made: {error}")))?;
        Ok(place.get_or_init(|| client))
    }

    /// The body of the answer. `whom` says in messages who was asked.
    pub(super) async fn ask(&self, whom: &str, ask: Ask<'_>) -> Result<Vec<u8>, Failure> {
        let Some(reach) = reach(ask.url) else {
            return Err(Failure::Refused(format!("the address of {whom} is no https: address")));
        };
        let client = self.client(reach)?;
        let request = request(whom, ask)?;
        let asked = async {
            let answer = client.execute(request).await?;
            let status = answer.status().as_u16();
            let mut body = answer.into_body().bytes_stream();
            let mut bytes = Vec::new();
            while let Some(chunk) = body.try_next().await? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > ANSWER_BYTES_MAX {
                    break;
                }
            }
            Ok::<_, object_store::client::HttpError>((status, bytes))
        };
        let unreachable = |why: &str| Failure::Unreachable(format!("{whom} does not answer: {why}"));
        let answered =
            tokio::time::timeout(PATIENCE, asked).await.map_err(|_| unreachable("the time is up"))?;
        let (status, body) = answered.map_err(|error| unreachable(&error.to_string()))?;
        match status {
            200..300 => Ok(body),
            429 | 500.. => Err(unreachable(&format!("status code: {status}"))),
            _ => Err(Failure::Refused(format!("{whom} refuses with status {status}{}", code(&body)))),
        }
    }

    /// The answer, which must be JSON.
    pub(super) async fn json(&self, whom: &str, ask: Ask<'_>) -> Result<Value, Failure> {
        let body = self.ask(whom, ask).await?;
        serde_json::from_slice(&body).map_err(|_| Failure::Refused(format!("{whom} did not answer in JSON")))
    }
}

fn request(whom: &str, ask: Ask<'_>) -> Result<HttpRequest, Failure> {
    let bad = |what: &str| Failure::Refused(format!("{whom} cannot be asked: a bad {what}"));
    let mut request = HttpRequest::new(HttpRequestBody::from(ask.body));
    *request.method_mut() = ask.method.parse().map_err(|_| bad("method"))?;
    *request.uri_mut() = ask.url.parse().map_err(|_| bad("address"))?;
    for (name, value) in ask.headers {
        let mut value = object_store::HeaderValue::try_from(value).map_err(|_| bad("header"))?;
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
    }
    if let Some((credential, region)) = ask.signer {
        let signed = AwsAuthorizer::new(credential, "sts", region).try_authorize(&mut request, None);
        signed.map_err(|_| bad("signature"))?;
    }
    Ok(request)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Near,
    Far,
}

/// How an address may be spoken to. In the clear only with this machine and its host: what is asked for are secrets.
fn reach(url: &str) -> Option<Reach> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?;
    let is_near = match address(host) {
        Some(address) => address.is_loopback() || is_of_host(address),
        None => host == "localhost",
    };
    match (url.scheme(), is_near) {
        ("http" | "https", true) => Some(Reach::Near),
        ("https", false) => Some(Reach::Far),
        _ => None,
    }
}

/// The code that a refusal gives for its reason, if it looks like one.
fn code(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let json = serde_json::from_str::<Value>(&text).ok();
    let named = json.as_ref().and_then(|json| json.get("error").or_else(|| json.get("__type"))?.as_str());
    let code = named.or_else(|| super::sts::text_of(&text, "Code")).unwrap_or_default();
    let is_code =
        !code.is_empty() && code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if is_code { format!(" ({code})") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_asked_for_in_the_clear_on_this_machine_only() {
        for (url, wanted) in [
            ("https://sts.eu-west-1.amazonaws.com", Some(Reach::Far)),
            ("http://127.0.0.1:8080/x", Some(Reach::Near)),
            ("http://169.254.170.23/v1/credentials", Some(Reach::Near)),
            ("http://[fd00:ec2::23]/v1/credentials", Some(Reach::Near)),
            ("http://sts.example.com", None),
            ("http://127.0.0.1.example.com", None),
            ("file:///etc/passwd", None),
        ] {
            assert_eq!(reach(url), wanted, "{url}");
        }
    }

    #[test]
    fn of_a_refusal_only_its_code_is_repeated() {
        assert_eq!(code(b"<ErrorResponse><Error><Code>AccessDenied</Code></Error>"), " (AccessDenied)");
        assert_eq!(code(br#"{"error":"invalid_grant","error_description":"hunter2"}"#), " (invalid_grant)");
        assert_eq!(code(b"<Code>hunter2 hunter2</Code>"), "");
    }
}
