//! Where to look for credentials, in which order: flag, keys in variables, profile, web identity, container, instance.

use std::path::PathBuf;

use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::aws::AwsCredential;

use super::http::Http;
use super::instance::{self, Container};
use super::profile::{Files, Section, Shared};
use super::provider::Provider;
use super::sso::SignIn;
use super::sts::{self, Role};
use super::{Answer, Failure, process};
use crate::store::connect::{CredentialKind, Straight};
use crate::store::environment::Environment;

/// Roles taken one with the other's credentials, at most.
const ROLES_MAX: usize = 5;

/// What was found.
pub(in crate::store) struct Found {
    /// Where credentials come from; `None` if the client has them in its variables.
    pub(in crate::store) provider: Option<Provider>,
    pub(in crate::store) kind: CredentialKind,
    /// Settings of the profile, for where the variables have none.
    pub(in crate::store) region: Option<String>,
    pub(in crate::store) endpoint: Option<String>,
}

/// One way to credentials.
pub(super) enum Source {
    Keys(AwsCredential),
    Process(String),
    SignIn(SignIn),
    Role(Role, Box<Source>),
    WebIdentity(Role, String),
    Container(Container),
    Instance(String),
}

/// Looks for credentials.
///
/// # Errors
/// A profile that was asked for is not there or makes no sense, or there is nothing at all; in words without secrets.
pub(in crate::store) fn find(
    environment: &Environment,
    flag: Option<&str>,
    http: Http,
) -> Result<Found, String> {
    let files = Files::of(environment);
    let asked = flag.or_else(|| environment.first(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]));
    let name = asked.unwrap_or("default");
    let has_keys = environment.first(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]).is_some();
    let shared = match files.read() {
        // Whoever has keys in variables need not have files that can be read.
        Err(_) if asked.is_none() && has_keys => Shared::default(),
        read => read?,
    };
    let profile = shared.profile(name);
    if asked.is_some() && profile.is_none() {
        return Err(format!("there is no profile `{name}` in {}", files.shown()));
    }
    let region = profile.and_then(|profile| profile.get("region").cloned());
    let endpoint = profile.and_then(|profile| shared.endpoint(profile));
    let found = |provider, kind: String| Found {
        provider,
        kind: CredentialKind::new(kind),
        region: region.clone(),
        endpoint: endpoint.clone(),
    };
    let is_unsigned =
        environment.get("AWS_SKIP_SIGNATURE").is_some_and(|word| word.eq_ignore_ascii_case("true"));
    if is_unsigned {
        return Ok(found(None, "none: requests are not signed".to_owned()));
    }
    if flag.is_none() && has_keys {
        return Ok(found(None, "keys in the environment (AWS_ACCESS_KEY_ID)".to_owned()));
    }
    let finder =
        Finder { environment: environment.clone(), files, name: name.to_owned(), is_asked: asked.is_some() };
    let kind = finder.kind(&shared)?;
    Ok(found(Some(Provider::new(finder, http)), kind))
}

/// The files that would be looked at again and again, each with what it is.
pub(in crate::store) fn files(environment: &Environment, flag: Option<&str>) -> Vec<(&'static str, PathBuf)> {
    let found = find(environment, flag, Http::new(Straight::default())).ok();
    found.and_then(|found| found.provider).map(|provider| provider.files()).unwrap_or_default()
}

/// Finds the way anew each time, because files change.
pub(super) struct Finder {
    environment: Environment,
    pub(super) files: Files,
    name: String,
    is_asked: bool,
}

impl Finder {
    /// The way to credentials as the files are now.
    pub(super) fn source(&self) -> Result<Source, String> {
        self.source_in(&self.files.read()?).map(|(source, _)| source)
    }

    /// The files that are looked at, each with what it is.
    pub(super) fn paths(&self) -> Vec<(&'static str, PathBuf)> {
        let shared = self.files.paths().map(|path| ("shared AWS file", path.to_owned()));
        let own = self.source().ok().and_then(|source| source.file());
        shared.into_iter().chain(own).collect()
    }

    fn kind(&self, shared: &Shared) -> Result<String, String> {
        self.source_in(shared).map(|(_, kind)| kind)
    }

    fn source_in(&self, shared: &Shared) -> Result<(Source, String), String> {
        let profile = shared.profile(&self.name);
        let of_profile = |profile: &Section| self.of_profile(shared, &self.name, profile, ROLES_MAX);
        match (self.is_asked, profile) {
            (true, None) => return Err(format!("the profile `{}` is gone", self.name)),
            (true, Some(profile)) => {
                let source = of_profile(profile)?
                    .ok_or_else(|| format!("the profile `{}` has no credentials", self.name))?;
                return Ok((source, self.words(profile)));
            }
            (false, _) => {}
        }
        let environment = &self.environment;
        if let (Some(file), Some(arn)) =
            (environment.get("AWS_WEB_IDENTITY_TOKEN_FILE"), environment.get("AWS_ROLE_ARN"))
        {
            let mut role = self.role(arn, None);
            role.session = environment.get("AWS_ROLE_SESSION_NAME").map(str::to_owned);
            let kind = "a role by web identity (AWS_WEB_IDENTITY_TOKEN_FILE)".to_owned();
            return Ok((Source::WebIdentity(role, file.to_owned()), kind));
        }
        if let Some(profile) = profile
            && let Some(source) = of_profile(profile)?
        {
            return Ok((source, self.words(profile)));
        }
        if let Some(container) = Container::of(environment) {
            return Ok((Source::Container(container), "the role of this container".to_owned()));
        }
        match instance::metadata(environment) {
            Some(host) => {
                Ok((Source::Instance(host), "the role of this instance (metadata service)".to_owned()))
            }
            None => Err(format!(
                "no credentials: neither variables nor a profile in {} have any",
                self.files.shown()
            )),
        }
    }

    fn words(&self, profile: &Section) -> String {
        let has = |name: &str| profile.contains_key(name);
        let how = if has("role_arn") && has("web_identity_token_file") {
            "a role by web identity"
        } else if has("role_arn") {
            "a role (role_arn)"
        } else if has("aws_access_key_id") {
            "keys"
        } else if has("sso_account_id") {
            "a sign-in (sso)"
        } else {
            "a program (credential_process)"
        };
        format!("profile `{}` of the shared AWS files: {how}", self.name)
    }

    fn role(&self, arn: &str, profile: Option<&Section>) -> Role {
        let setting = |name: &str| profile.and_then(|profile| profile.get(name).cloned());
        let environment = &self.environment;
        let variable = environment.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]).map(str::to_owned);
        let region = variable.or_else(|| setting("region")).unwrap_or_else(|| "us-east-1".to_owned());
        Role {
            arn: arn.to_owned(),
            session: setting("role_session_name"),
            external_id: setting("external_id"),
            secs: setting("duration_seconds"),
            endpoint: sts::endpoint(environment, &region),
            region,
        }
    }

    /// The way that a profile describes; `None` if it describes none.
    fn of_profile(
        &self,
        shared: &Shared,
        name: &str,
        profile: &Section,
        roles_left: usize,
    ) -> Result<Option<Source>, String> {
        let setting = |name: &str| profile.get(name).map(String::as_str);
        if let Some(arn) = setting("role_arn") {
            let role = self.role(arn, Some(profile));
            if let Some(file) = setting("web_identity_token_file") {
                return Ok(Some(Source::WebIdentity(role, self.below_home(file))));
            }
            let by = match (setting("source_profile"), setting("credential_source")) {
                (Some(_), _) if roles_left == 0 => {
                    return Err(format!("the profile `{name}` takes too many roles"));
                }
                (Some(of), _) if of == name => own_keys(name, profile)?,
                (Some(of), _) => {
                    let other = shared
                        .profile(of)
                        .ok_or_else(|| format!("the profile `{name}` names `{of}`, which is not there"))?;
                    self.of_profile(shared, of, other, roles_left - 1)?
                }
                (None, Some(of)) => self.named(of)?,
                (None, None) => None,
            };
            let by = by.ok_or_else(|| format!("the profile `{name}` names nothing to take its role with"))?;
            return Ok(Some(Source::Role(role, Box::new(by))));
        }
        if let Some(keys) = own_keys(name, profile)? {
            return Ok(Some(keys));
        }
        let signed_in = SignIn::of(profile, shared, &self.environment);
        if let Some(sign_in) = signed_in.map_err(|why| format!("profile `{name}`: {why}"))? {
            return Ok(Some(Source::SignIn(sign_in)));
        }
        Ok(setting("credential_process").map(|command| Source::Process(command.to_owned())))
    }

    fn below_home(&self, file: &str) -> String {
        self.environment.below_home(file).to_string_lossy().into_owned()
    }

    /// The sources that `credential_source` names.
    fn named(&self, source: &str) -> Result<Option<Source>, String> {
        let environment = &self.environment;
        Ok(match source {
            "Environment" => {
                let value = |name: &str| environment.get(name).map(str::to_owned);
                value("AWS_ACCESS_KEY_ID").zip(value("AWS_SECRET_ACCESS_KEY")).map(|(key_id, secret_key)| {
                    Source::Keys(AwsCredential { key_id, secret_key, token: value("AWS_SESSION_TOKEN") })
                })
            }
            "Ec2InstanceMetadata" => instance::metadata(environment).map(Source::Instance),
            "EcsContainer" => Container::of(environment).map(Source::Container),
            other => return Err(format!("`{other}` is no credential_source")),
        })
    }
}

fn own_keys(name: &str, profile: &Section) -> Result<Option<Source>, String> {
    let value = |name: &str| profile.get(name).cloned();
    match (value("aws_access_key_id"), value("aws_secret_access_key")) {
        (Some(key_id), Some(secret_key)) => {
            let credential = AwsCredential { key_id, secret_key, token: value("aws_session_token") };
            let checked = super::fits_headers(&credential, "a shared AWS file");
            checked.map_err(|_| format!("the keys of profile `{name}` have characters that none has"))?;
            Ok(Some(Source::Keys(credential)))
        }
        (None, None) => Ok(None),
        _ => Err(format!("the profile `{name}` has half a key")),
    }
}

impl Source {
    /// The file that it is read from each time, and what that is.
    fn file(&self) -> Option<(&'static str, PathBuf)> {
        match self {
            Self::SignIn(sign_in) => Some(("file of the sign-in", sign_in.cache().to_owned())),
            Self::WebIdentity(_, file) => Some(("file of a token", PathBuf::from(file))),
            Self::Container(container) => Some(("file of a token", container.token_file()?.to_owned())),
            Self::Role(_, by) => by.file(),
            Self::Keys(_) | Self::Process(_) | Self::Instance(_) => None,
        }
    }

    /// Goes the way.
    pub(super) fn obtain<'a>(&'a self, http: &'a Http) -> BoxFuture<'a, Result<Answer, Failure>> {
        async move {
            match self {
                Self::Keys(AwsCredential { key_id, secret_key, token }) => {
                    let (key_id, secret_key) = (key_id.clone(), secret_key.clone());
                    let credential = AwsCredential { key_id, secret_key, token: token.clone() };
                    Ok(Answer { credential, expires: None })
                }
                Self::Process(command) => process::run(command).await,
                Self::SignIn(sign_in) => sign_in.credentials(http).await,
                Self::Role(role, by) => {
                    let with = by.obtain(http).await?;
                    role.assume(http, &with.credential).await
                }
                Self::WebIdentity(role, file) => role.with_web_identity(http, file).await,
                Self::Container(container) => container.credentials(http).await,
                Self::Instance(host) => instance::credentials(http, host).await,
            }
        }
        .boxed()
    }
}
