//! Credentials by a sign-in with IAM Identity Center (`aws sso login`), whose token lies in a cache.
//!
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-sso-credentials.html>; the portal's
//! `GetRoleCredentials` and OIDC's `CreateToken` are in the API references of the two services.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use data_encoding::HEXLOWER;
use object_store::aws::AwsCredential;
use serde_json::{Value, json};

use super::aside::aside;
use super::http::{Ask, Http};
use super::profile::{Section, Shared};
use super::{Answer, Failure, fits_headers, time};
use crate::store::environment::Environment;

const PORTAL: &str = "the AWS access portal";
const OIDC: &str = "the AWS sign-in service";
const SIGN_IN: &str = "sign in with `aws sso login`";
/// A token that ends sooner is exchanged for a new one, if it can be.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);

/// A sign-in and the role to be had by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignIn {
    region: String,
    account: String,
    role: String,
    cache: PathBuf,
    portal: String,
    oidc: String,
}

impl SignIn {
    /// Reads the settings of a profile; `None` if it has none of a sign-in.
    pub(super) fn of(
        profile: &Section,
        shared: &Shared,
        environment: &Environment,
    ) -> Result<Option<Self>, String> {
        let own = |name: &str| profile.get(name).cloned();
        let (Some(account), Some(role)) = (own("sso_account_id"), own("sso_role_name")) else {
            return Ok(None);
        };
        let session = match profile.get("sso_session") {
            Some(name) => {
                let session =
                    shared.session(name).ok_or_else(|| format!("there is no [sso-session {name}]"))?;
                Some((name.as_str(), session))
            }
            None => None,
        };
        let setting =
            |name: &str| session.and_then(|(_, session)| session.get(name).cloned()).or_else(|| own(name));
        let missing = |name: &str| format!("the profile has no {name}");
        let region = setting("sso_region").ok_or_else(|| missing("sso_region"))?;
        let start = setting("sso_start_url").ok_or_else(|| missing("sso_start_url"))?;
        let key = session.map_or(start.as_str(), |(name, _)| name);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
        let file = format!("~/.aws/sso/cache/{}.json", HEXLOWER.encode(digest.as_ref()));
        let address = |name: &str, service: &str| {
            let usual = || format!("https://{service}.{region}.amazonaws.com");
            environment.get(name).map_or_else(usual, |url| url.trim_end_matches('/').to_owned())
        };
        let portal = address("AWS_ENDPOINT_URL_SSO", "portal.sso");
        let oidc = address("AWS_ENDPOINT_URL_SSO_OIDC", "oidc");
        Ok(Some(Self { account, role, cache: environment.below_home(&file), portal, oidc, region }))
    }

    /// Where the token lies.
    pub(super) fn cache(&self) -> &Path {
        &self.cache
    }

    /// The role's credentials.
    pub(super) async fn credentials(&self, http: &Http) -> Result<Answer, Failure> {
        let token = self.token(http).await?;
        let pairs = [("role_name", &self.role), ("account_id", &self.account)];
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let url = format!("{}/federation/credentials?{query}", self.portal);
        let headers = vec![("x-amz-sso_bearer_token", token)];
        let json = http.json(PORTAL, Ask { headers, ..Ask::get(&url) }).await?;
        let given = json.get("roleCredentials").unwrap_or(&Value::Null);
        let text = |name: &str| {
            let found = given.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            found.map(str::to_owned).ok_or_else(|| Failure::Refused(format!("{PORTAL} gave no {name}")))
        };
        let (key_id, secret_key) = (text("accessKeyId")?, text("secretAccessKey")?);
        let credential = AwsCredential { key_id, secret_key, token: Some(text("sessionToken")?) };
        fits_headers(&credential, PORTAL)?;
        let millis = given.get("expiration").and_then(Value::as_u64);
        let millis = millis.ok_or_else(|| Failure::Refused(format!("{PORTAL} gave no expiration")))?;
        Ok(Answer { credential, expires: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(millis)) })
    }

    /// The token in the cache, a new one if it is about to end and may be exchanged.
    async fn token(&self, http: &Http) -> Result<String, Failure> {
        let refused = |why: &str| Failure::Refused(format!("{why}; {SIGN_IN}"));
        let path = self.cache.clone();
        let text = aside(move || std::fs::read(path)).await?.map_err(|_| refused("there is no sign-in"))?;
        let cached: Value =
            serde_json::from_slice(&text).map_err(|_| refused("the sign-in cannot be read"))?;
        let field = |name: &str| cached.get(name).and_then(Value::as_str).unwrap_or_default();
        let ends = time(field("expiresAt")).ok_or_else(|| refused("the sign-in cannot be read"))?;
        let now = SystemTime::now();
        if now + RENEW_BEFORE < ends {
            return Ok(field("accessToken").to_owned());
        }
        let may_renew = time(field("registrationExpiresAt")).is_some_and(|ends| now < ends);
        match (may_renew && !field("refreshToken").is_empty(), now < ends) {
            (true, _) => match (self.renew(http, cached.clone()).await, now < ends) {
                (Err(_), true) => Ok(field("accessToken").to_owned()),
                (renewed, _) => renewed,
            },
            (false, true) => Ok(field("accessToken").to_owned()),
            (false, false) => Err(refused("the sign-in has ended")),
        }
    }

    /// Exchanges the token for a new one, and puts that into the cache where AWS's own tools find it.
    async fn renew(&self, http: &Http, mut cached: Value) -> Result<String, Failure> {
        let field = |name: &str| cached.get(name).cloned().unwrap_or_default();
        let body = json!({
            "clientId": field("clientId"),
            "clientSecret": field("clientSecret"),
            "grantType": "refresh_token",
            "refreshToken": field("refreshToken"),
        });
        let url = format!("{}/token", self.oidc);
        let headers = vec![("content-type", "application/json".to_owned())];
        let ask = Ask { method: "POST", url: &url, headers, body: body.to_string(), signer: None };
        let given = http.json(OIDC, ask).await?;
        let token = given.get("accessToken").and_then(Value::as_str).unwrap_or_default().to_owned();
        let secs = given.get("expiresIn").and_then(Value::as_u64).unwrap_or_default();
        if token.is_empty() {
            return Err(Failure::Refused(format!("{OIDC} gave no token; {SIGN_IN}")));
        }
        let ends = DateTime::<Utc>::from(SystemTime::now() + Duration::from_secs(secs));
        if let Some(fields) = cached.as_object_mut() {
            fields.insert("accessToken".to_owned(), token.clone().into());
            fields.insert("expiresAt".to_owned(), ends.to_rfc3339_opts(SecondsFormat::Secs, true).into());
            if let Some(next) = given.get("refreshToken").filter(|next| next.is_string()) {
                fields.insert("refreshToken".to_owned(), next.clone());
            }
        }
        // The old one may be of no use any more: without the new one in the cache the sign-in would be lost.
        let path = self.cache.clone();
        let kept = aside(move || keep(&path, &cached)).await;
        if let Err(error) =
            kept.map_err(|failure| std::io::Error::other(failure.words().to_owned())).flatten()
        {
            tracing::warn!(%error, "the renewed AWS sign-in cannot be kept");
        }
        Ok(token)
    }
}

fn keep(cache: &Path, cached: &Value) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let beside = cache.with_extension(format!("json.{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(cached.to_string().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, cache)
}
