//! Credentials of the machine or container itself, from the service that its host runs for it.
//!
//! Containers: <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>; instances:
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html> (version 2).

use std::path::Path;

use super::aside::aside;
use super::http::{Ask, Http};
use super::{Answer, Failure, from_json};
use crate::store::environment::Environment;

const CONTAINER: &str = "the container's credential service";
const INSTANCE: &str = "the instance's metadata service";
const CONTAINER_HOST: &str = "http://169.254.170.2";
const INSTANCE_HOST: &str = "http://169.254.169.254";
const SECS: &str = "21600";

/// Where a container's credentials come from.
#[derive(Clone)]
pub(super) struct Container {
    url: String,
    token: Token,
}

/// What the service asks to be shown.
#[derive(Clone)]
enum Token {
    None,
    Text(String),
    File(String),
}

impl Container {
    /// As the variables say that the host sets for its containers.
    pub(super) fn of(environment: &Environment) -> Option<Self> {
        let relative = environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let url = match relative {
            Some(path) => format!("{CONTAINER_HOST}{path}"),
            None => environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")?.to_owned(),
        };
        let file = environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
        let text = environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN");
        let token = match (file, text) {
            (Some(file), _) => Token::File(file.to_owned()),
            (None, Some(text)) => Token::Text(text.to_owned()),
            (None, None) => Token::None,
        };
        Some(Self { url, token })
    }

    /// The file of the token, if it is in one.
    pub(super) fn token_file(&self) -> Option<&Path> {
        match &self.token {
            Token::File(file) => Some(Path::new(file)),
            Token::None | Token::Text(_) => None,
        }
    }

    pub(super) async fn credentials(&self, http: &Http) -> Result<Answer, Failure> {
        let token = match &self.token {
            Token::None => None,
            Token::Text(text) => Some(text.clone()),
            Token::File(file) => {
                let path = file.clone();
                let read = aside(move || std::fs::read_to_string(path)).await?;
                Some(read.map_err(|error| {
                    Failure::Refused(format!("the container's token in {file} cannot be read: {error}"))
                })?)
            }
        };
        let headers = token.map(|token| ("authorization", token.trim().to_owned()));
        let ask = Ask { headers: headers.into_iter().collect(), ..Ask::get(&self.url) };
        from_json(&http.json(CONTAINER, ask).await?, "Token", CONTAINER)
    }
}

/// Where an instance's metadata is; `None` if variables say that it is not to be asked.
pub(super) fn metadata(environment: &Environment) -> Option<String> {
    let disabled =
        environment.get("AWS_EC2_METADATA_DISABLED").is_some_and(|word| word.eq_ignore_ascii_case("true"));
    let named = environment.first(&["AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_METADATA_ENDPOINT"]);
    (!disabled).then(|| named.unwrap_or(INSTANCE_HOST).trim_end_matches('/').to_owned())
}

/// The credentials of the instance's role.
pub(super) async fn credentials(http: &Http, host: &str) -> Result<Answer, Failure> {
    let url = format!("{host}/latest/api/token");
    let headers = vec![("x-aws-ec2-metadata-token-ttl-seconds", SECS.to_owned())];
    let token = http.ask(INSTANCE, Ask { method: "PUT", headers, ..Ask::get(&url) }).await?;
    let headers = vec![("x-aws-ec2-metadata-token", String::from_utf8_lossy(&token).into_owned())];
    let url = format!("{host}/latest/meta-data/iam/security-credentials/");
    let roles = http.ask(INSTANCE, Ask { headers: headers.clone(), ..Ask::get(&url) }).await?;
    let roles = String::from_utf8_lossy(&roles);
    let role = roles.lines().next().map(str::trim).filter(|role| !role.is_empty());
    let role = role.ok_or_else(|| Failure::Refused("this instance has no role".to_owned()))?;
    let url = format!("{url}{role}");
    from_json(&http.json(INSTANCE, Ask { headers, ..Ask::get(&url) }).await?, "Token", INSTANCE)
}
