//! The client of Google Cloud Storage, from its variables or application default credentials.

use object_store::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;

use super::{
    CLIENT, Connected, CredentialKind, check_endpoint, connector, failed, fit, is_plain_http, no_entry,
    no_retries,
};
use crate::store::environment::Environment;
use crate::store::error::StoreError;
use crate::store::options::StoreOptions;

/// The variable by which all clients of Google find an emulator, which asks for no credentials.
const EMULATOR: &str = "STORAGE_EMULATOR_HOST";
const DEFAULT_FILE: &str = "application_default_credentials.json";

/// The bucket, everything below `prefix`.
///
/// # Errors
/// The settings do not fit together, or credentials cannot be read.
pub(in crate::store) fn google(
    bucket: &str,
    prefix: &Path,
    url: &str,
    options: &StoreOptions,
) -> Result<Connected, StoreError> {
    let environment = &options.environment;
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_http_connector(connector(url, options.ca_file.as_deref())?)
        .with_bucket_name(bucket)
        .with_retry(no_retries());
    if let Some(file) = default_file(environment) {
        builder = builder.with_application_credentials(file);
    }
    if let Some(file) = environment.get("SERVICE_ACCOUNT") {
        builder = builder.with_service_account_path(file);
    }
    for (name, value) in environment.starting_with("GOOGLE_") {
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(key, fit(url, name, value)?);
        }
    }
    for (key, value) in CLIENT {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    let emulator = environment.get(EMULATOR).map(with_scheme);
    if let Some(address) = options.endpoint.as_ref().or(emulator.as_ref()) {
        builder = builder.with_base_url(address);
    }
    let endpoint = builder.get_config_value(&GoogleConfigKey::BaseUrl);
    check_endpoint(url, endpoint.as_deref())?;
    if is_plain_http(endpoint.as_deref()) {
        builder = builder.with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), "true");
    }
    if emulator.is_some() {
        // A token that nobody reads, so that the client looks for no other.
        builder = builder.with_bearer_token("emulator").with_skip_signature(true);
    }
    let credentials = kind(&builder, url, emulator.is_some())?;
    let store = builder.build().map_err(|error| failed(url, &error))?;
    Ok(Connected::below(prefix, store, credentials))
}

fn with_scheme(address: &str) -> String {
    if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
}

/// Where `gcloud auth application-default login` leaves its credentials when it has been told to keep its files
/// elsewhere than below the home, where the client looks by itself.
fn default_file(environment: &Environment) -> Option<String> {
    let file = environment.below_home(environment.get("CLOUDSDK_CONFIG")?).join(DEFAULT_FILE);
    file.exists().then(|| file.to_string_lossy().into_owned())
}

/// What the client will use: its own order, told in words.
fn kind(
    builder: &GoogleCloudStorageBuilder,
    url: &str,
    is_emulator: bool,
) -> Result<CredentialKind, StoreError> {
    use GoogleConfigKey as Key;
    let value = |key: Key| builder.get_config_value(&key);
    let text = if is_emulator {
        format!("none: {EMULATOR} names an emulator")
    } else if value(Key::SkipSignature).as_deref() == Some("true") {
        "none: requests are not signed".to_owned()
    } else if value(Key::BearerToken).is_some() {
        "a bearer token in the environment".to_owned()
    } else if let Some(file) = value(Key::ServiceAccount) {
        format!("the service account in {file}")
    } else if value(Key::ServiceAccountKey).is_some() {
        "a service account in the environment".to_owned()
    } else if let Some(file) = value(Key::ApplicationCredentials) {
        format!("{} in {file}", file_kind(&file).map_err(|what| no_entry(url, what))?)
    } else {
        "application default credentials, else the metadata server of this machine".to_owned()
    };
    Ok(CredentialKind::new(text))
}

/// What kind of credentials a file holds.
fn file_kind(file: &str) -> Result<&'static str, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("the credentials in {file} cannot be read: {error}"))?;
    // The reader's own words would quote what it found there.
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|_| format!("the credentials in {file} are no JSON"))?;
    match json.get("type").and_then(serde_json::Value::as_str) {
        Some("service_account") => Ok("the service account"),
        Some("authorized_user") => Ok("the user's sign-in"),
        Some("external_account" | "impersonated_service_account" | "external_account_authorized_user") => {
            Err(format!(
                "the credentials in {file} are federated or impersonated, which is not supported yet"
            ))
        }
        _ => Err(format!("the credentials in {file} are of no known type")),
    }
}
