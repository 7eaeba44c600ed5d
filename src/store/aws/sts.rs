//! Credentials of a role from the Security Token Service.
//!
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html> and `API_AssumeRoleWithWebIdentity`.

use object_store::aws::AwsCredential;
use url::form_urlencoded::Serializer;

use super::aside::aside;
use super::http::{Ask, Http};
use super::{Answer, Failure, fits_headers, time};
use crate::store::environment::Environment;

const WHOM: &str = "the security token service";
const SESSION: &str = "coffer";

/// A role to be taken, as a profile or variables describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) arn: String,
    pub(super) session: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) secs: Option<String>,
    pub(super) region: String,
    pub(super) endpoint: String,
}

/// The service's address for a region.
pub(super) fn endpoint(environment: &Environment, region: &str) -> String {
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let usual = || format!("https://sts.{region}.{suffix}");
    environment.get("AWS_ENDPOINT_URL_STS").map_or_else(usual, |url| url.trim_end_matches('/').to_owned())
}

impl Role {
    /// Takes the role with `credential`.
    pub(super) async fn assume(&self, http: &Http, credential: &AwsCredential) -> Result<Answer, Failure> {
        let more = self.external_id.as_deref().map(|id| ("ExternalId", id));
        self.send(http, self.form("AssumeRole", more), Some((credential, &self.region))).await
    }

    /// Takes the role with the token in a file, read anew each time: whoever put it there replaces it.
    pub(super) async fn with_web_identity(&self, http: &Http, token_file: &str) -> Result<Answer, Failure> {
        let path = token_file.to_owned();
        let token = aside(move || std::fs::read_to_string(path)).await?.map_err(|error| {
            Failure::Refused(format!("the token in {token_file} cannot be read: {error}"))
        })?;
        let more = Some(("WebIdentityToken", token.trim()));
        self.send(http, self.form("AssumeRoleWithWebIdentity", more), None).await
    }

    fn form(&self, action: &str, more: Option<(&str, &str)>) -> String {
        let mut form = Serializer::new(String::new());
        form.append_pair("Action", action).append_pair("Version", "2011-06-15");
        form.append_pair("RoleArn", &self.arn);
        form.append_pair("RoleSessionName", self.session.as_deref().unwrap_or(SESSION));
        if let Some(secs) = &self.secs {
            form.append_pair("DurationSeconds", secs);
        }
        form.extend_pairs(more).finish()
    }

    async fn send(
        &self,
        http: &Http,
        body: String,
        signer: Option<(&AwsCredential, &str)>,
    ) -> Result<Answer, Failure> {
        let url = format!("{}/", self.endpoint);
        let headers = vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
        let body = http.ask(WHOM, Ask { method: "POST", url: &url, headers, body, signer }).await?;
        read(&String::from_utf8_lossy(&body))
    }
}

fn read(xml: &str) -> Result<Answer, Failure> {
    let xml = text_of(xml, "Credentials").unwrap_or_default();
    let text = |name: &str| {
        let found = text_of(xml, name).map(str::trim).filter(|text| !text.is_empty());
        found.ok_or_else(|| Failure::Refused(format!("{WHOM} gave no {name}")))
    };
    let credential = AwsCredential {
        key_id: text("AccessKeyId")?.to_owned(),
        secret_key: text("SecretAccessKey")?.to_owned(),
        token: Some(text("SessionToken")?.to_owned()),
    };
    fits_headers(&credential, WHOM)?;
    let expires = time(text("Expiration")?)
        .ok_or_else(|| Failure::Refused(format!("{WHOM} gave no Expiration that is a time")))?;
    Ok(Answer { credential, expires: Some(expires) })
}

/// What stands in the first element of this name. Enough for these answers, whose elements have no attributes and
/// whose texts need no escapes.
pub(super) fn text_of<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_service_is_read_as_it_is_documented() {
        let xml = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>
          <AssumedRoleUser><AssumedRoleId>A:b</AssumedRoleId></AssumedRoleUser><Credentials>
          <AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>se/cr+et</SecretAccessKey>
          <SessionToken>to/k+en==</SessionToken><Expiration>2030-11-09T13:34:41Z</Expiration>
          </Credentials></AssumeRoleResult></AssumeRoleResponse>";
        let answer = read(xml).map_err(|_| "failed").unwrap();
        assert_eq!(answer.credential.key_id, "ASIA");
        assert_eq!(answer.credential.token.as_deref(), Some("to/k+en=="));
        let failure =
            read("<Credentials><SecretAccessKey>hunter2</SecretAccessKey></Credentials>").err().unwrap();
        assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    }
}
