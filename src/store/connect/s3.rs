//! The client of Amazon S3 and of stores that speak its language, from flags, variables and a profile.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;

use super::{
    CLIENT, Connected, Straight, check_endpoint, check_region, connector, failed, fit, is_plain_http,
    no_entry, no_retries,
};
use crate::store::aws::{self, Found, Http};
use crate::store::error::StoreError;
use crate::store::options::{Addressing, StoreOptions};

/// The bucket, everything below `prefix`.
///
/// # Errors
/// The settings do not fit together.
pub(in crate::store) fn s3(
    bucket: &str,
    prefix: &Path,
    url: &str,
    options: &StoreOptions,
) -> Result<Connected, StoreError> {
    let environment = &options.environment;
    let ca_file = options.ca_file.clone().or_else(|| environment.get("AWS_CA_BUNDLE").map(Into::into));
    let connector = connector(url, ca_file.as_deref())?;
    let found = aws::find(environment, options.aws_profile.as_deref(), Http::new(connector.clone()));
    let found = found.map_err(|what| no_entry(url, what))?;
    let mut builder = settings(bucket, url, connector, &found, options)?;
    if let Some(provider) = found.provider {
        builder = builder.with_credentials(Arc::new(provider));
    }
    let store = builder.build().map_err(|error| failed(url, &error))?;
    Ok(Connected::below(prefix, store, found.kind))
}

/// The client's settings: flags before variables, variables before the profile.
fn settings(
    bucket: &str,
    url: &str,
    connector: Straight,
    found: &Found,
    options: &StoreOptions,
) -> Result<AmazonS3Builder, StoreError> {
    use AmazonS3ConfigKey as Key;
    let environment = &options.environment;
    let mut builder = AmazonS3Builder::new()
        .with_http_connector(connector)
        .with_bucket_name(bucket)
        .with_retry(no_retries());
    for (name, value) in environment.starting_with("AWS_") {
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(key, fit(url, name, value)?);
        }
    }
    for (key, value) in CLIENT {
        builder = builder.with_config(Key::Client(key), value);
    }
    let variable = builder.get_config_value(&Key::Region);
    if let Some(region) = options.region.as_ref().or(variable.as_ref()).or(found.region.as_ref()) {
        check_region(url, Some(region))?;
        builder = builder.with_region(region);
    }
    if options.unsigned_payload {
        builder = builder.with_unsigned_payload(true);
    }
    let endpoint = options.endpoint.clone();
    let endpoint = endpoint.or_else(|| builder.get_config_value(&Key::S3Endpoint));
    let endpoint = endpoint.or_else(|| builder.get_config_value(&Key::Endpoint));
    let mut endpoint = endpoint.or_else(|| found.endpoint.clone());
    check_endpoint(url, endpoint.as_deref())?;
    if let Some(addressing) = options.addressing {
        let is_virtual = addressing == Addressing::Virtual;
        builder = builder.with_virtual_hosted_style_request(is_virtual);
        endpoint = endpoint.map(|endpoint| if is_virtual { hosted(bucket, &endpoint) } else { endpoint });
    }
    if let Some(endpoint) = endpoint {
        // The client heeds the variable for S3 alone before any other word.
        builder = builder.with_config(Key::S3Endpoint, &endpoint).with_endpoint(&endpoint);
        if is_plain_http(Some(&endpoint)) {
            builder = builder.with_allow_http(true);
        }
    }
    Ok(builder)
}

/// `endpoint` with the bucket's name before the host's, unless it is there.
fn hosted(bucket: &str, endpoint: &str) -> String {
    match endpoint.split_once("://") {
        Some((scheme, rest)) if !rest.starts_with(&format!("{bucket}.")) => {
            format!("{scheme}://{bucket}.{rest}")
        }
        _ => endpoint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_heeded_before_any_variable() {
        let table = [("AWS_ENDPOINT_URL_S3", "http://s3:1"), ("AWS_ENDPOINT_URL", "http://any:1")];
        let environment = table.into_iter().collect();
        let mut options = StoreOptions { environment, ..StoreOptions::default() };
        let kind = crate::store::CredentialKind::new("none");
        let named = Some("http://profile:1".to_owned());
        let found =
            Found { provider: None, kind, region: Some("of-the-profile".to_owned()), endpoint: named };
        let setting = |options: &StoreOptions, key: AmazonS3ConfigKey| {
            settings("b", "s3://b", Straight::default(), &found, options).unwrap().get_config_value(&key)
        };
        let endpoint = |options: &StoreOptions| setting(options, AmazonS3ConfigKey::S3Endpoint);
        assert_eq!(setting(&options, AmazonS3ConfigKey::Region).as_deref(), Some("of-the-profile"));
        assert_eq!(endpoint(&options).as_deref(), Some("http://s3:1"));
        options.endpoint = Some("http://flag:1".to_owned());
        assert_eq!(endpoint(&options).as_deref(), Some("http://flag:1"));
    }

    #[test]
    fn the_bucket_stands_before_the_host_once() {
        assert_eq!(hosted("b", "https://host:9/"), "https://b.host:9/");
        assert_eq!(hosted("b", "https://b.host:9"), "https://b.host:9");
    }
}
