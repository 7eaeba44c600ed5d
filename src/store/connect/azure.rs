//! The client of Azure Blob Storage, from its variables or a connection string.

use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::path::Path;

use super::{
    CLIENT, Connected, CredentialKind, check_endpoint, connector, failed, fit, is_plain_http, no_entry,
    no_retries,
};
use crate::store::error::StoreError;
use crate::store::options::StoreOptions;

/// The variable that holds a connection string.
const CONNECTION_STRING: &str = "AZURE_STORAGE_CONNECTION_STRING";
/// The names that Azure's own command line uses, where they are others than the client's.
const ALIASES: [(&str, AzureConfigKey); 2] = [
    ("AZURE_STORAGE_ACCOUNT", AzureConfigKey::AccountName),
    ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey),
];

/// The container, everything below `prefix`.
///
/// # Errors
/// The settings do not fit together.
pub(in crate::store) fn azure(
    container: &str,
    prefix: &Path,
    url: &str,
    options: &StoreOptions,
) -> Result<Connected, StoreError> {
    let environment = &options.environment;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_http_connector(connector(url, options.ca_file.as_deref())?)
        .with_container_name(container)
        .with_retry(no_retries());
    if let Some(text) = environment.get(CONNECTION_STRING) {
        for (key, value) in
            connection_string(fit(url, CONNECTION_STRING, text)?).map_err(|what| no_entry(url, what))?
        {
            builder = builder.with_config(key, value);
        }
    }
    for (name, key) in ALIASES {
        if let Some(value) = environment.get(name) {
            builder = builder.with_config(key, fit(url, name, value)?);
        }
    }
    for (name, value) in environment.starting_with("AZURE_") {
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(key, fit(url, name, value)?);
        }
    }
    if let Some(address) = environment.get("IDENTITY_ENDPOINT") {
        builder = builder.with_config(AzureConfigKey::MsiEndpoint, address);
    }
    for (key, value) in CLIENT {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    check_endpoint(url, endpoint.as_deref())?;
    if is_plain_http(endpoint.as_deref()) {
        builder = builder.with_allow_http(true);
    }
    let credentials = kind(&builder, environment.get(CONNECTION_STRING).is_some());
    let has_account = builder.get_config_value(&AzureConfigKey::AccountName).is_some();
    let store = builder.build().map_err(|error| match has_account {
        true => failed(url, &error),
        false => no_entry(
            url,
            "no account is named: set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT and what goes with it",
        ),
    })?;
    Ok(Connected::below(prefix, store, credentials))
}

/// What the client will use: its own order, told in words.
fn kind(builder: &MicrosoftAzureBuilder, has_string: bool) -> CredentialKind {
    use AzureConfigKey as Key;
    let has = |key: Key| builder.get_config_value(&key).is_some();
    let is = |key: Key| builder.get_config_value(&key).as_deref() == Some("true");
    let origin = if has_string { "of the connection string" } else { "in the environment" };
    CredentialKind::new(if is(Key::SkipSignature) {
        "none: requests are not signed".to_owned()
    } else if is(Key::UseEmulator) && !has(Key::AccessKey) {
        "the well-known key of Azure's emulator".to_owned()
    } else if has(Key::Token) {
        "a bearer token in the environment".to_owned()
    } else if has(Key::AccessKey) {
        format!("the account's key {origin}")
    } else if has(Key::ClientId) && has(Key::AuthorityId) && has(Key::FederatedTokenFile) {
        "a workload identity (AZURE_FEDERATED_TOKEN_FILE)".to_owned()
    } else if has(Key::ClientId) && has(Key::AuthorityId) && has(Key::ClientSecret) {
        "a service principal (AZURE_CLIENT_ID and its secret)".to_owned()
    } else if has(Key::SasKey) {
        format!("a shared access signature {origin}")
    } else if is(Key::UseAzureCli) {
        "the sign-in of the az command".to_owned()
    } else {
        "the managed identity of this machine".to_owned()
    })
}

/// The settings in a connection string, which is `Name=value;Name=value`.
///
/// <https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>
fn connection_string(text: &str) -> Result<Vec<(AzureConfigKey, String)>, String> {
    let bad = |what: &str| format!("{CONNECTION_STRING} cannot be understood: {what}");
    let (mut found, mut account, mut suffix, mut endpoint) = (Vec::new(), None, None, None);
    let mut protocol = "https";
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        // Of a part without a name nothing is shown: it may be half a key.
        let (name, value) = part.split_once('=').ok_or_else(|| bad("a part of it has no `=`"))?;
        match name.to_ascii_lowercase().as_str() {
            "accountname" => account = Some(value),
            "accountkey" => found.push((AzureConfigKey::AccessKey, value.to_owned())),
            "sharedaccesssignature" => found.push((AzureConfigKey::SasKey, value.to_owned())),
            "blobendpoint" => endpoint = Some(value.trim_end_matches('/').to_owned()),
            "endpointsuffix" => suffix = Some(value),
            "defaultendpointsprotocol" => protocol = value,
            "usedevelopmentstorage" => found.push((AzureConfigKey::UseEmulator, value.to_owned())),
            _ => {}
        }
    }
    if let (None, Some(account), Some(suffix)) = (&endpoint, account, suffix) {
        endpoint = Some(format!("{protocol}://{account}.blob.{suffix}"));
    }
    let account = match (account, &endpoint) {
        (Some(account), _) => Some(account.to_owned()),
        (None, Some(endpoint)) => account_in(endpoint),
        (None, None) => None,
    };
    found.extend(account.map(|account| (AzureConfigKey::AccountName, account)));
    found.extend(endpoint.map(|endpoint| (AzureConfigKey::Endpoint, endpoint)));
    if found.is_empty() { Err(bad("it names nothing that is known")) } else { Ok(found) }
}

/// The account whose address this is: `https://ACCOUNT.blob.core.windows.net`.
fn account_in(endpoint: &str) -> Option<String> {
    let host = endpoint.split_once("://")?.1.split(['/', ':']).next()?;
    host.split_once(".blob.").map(|(account, _)| account.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::environment::Environment;

    fn read(text: &str) -> Vec<(AzureConfigKey, String)> {
        connection_string(text).unwrap()
    }

    fn credentials(table: &[(&str, &str)]) -> Result<String, String> {
        let environment = table.iter().copied().collect::<Environment>();
        let options = StoreOptions { environment, ..StoreOptions::default() };
        let connected = azure("container", &Path::default(), "az://container", &options);
        connected.map(|connected| connected.credentials.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_connection_string_reads_as_its_documentation_says() {
        let full =
            "DefaultEndpointsProtocol=https;AccountName=me;AccountKey=a2V5==;EndpointSuffix=core.windows.net";
        let endpoint = "https://me.blob.core.windows.net".to_owned();
        let wanted = [
            (AzureConfigKey::AccessKey, "a2V5==".to_owned()),
            (AzureConfigKey::AccountName, "me".to_owned()),
            (AzureConfigKey::Endpoint, endpoint.clone()),
        ];
        assert_eq!(read(full), wanted);
        let sas = "BlobEndpoint=https://me.blob.core.windows.net/;SharedAccessSignature=sv=2022&sig=x%3D";
        let wanted = [
            (AzureConfigKey::SasKey, "sv=2022&sig=x%3D".to_owned()),
            (AzureConfigKey::AccountName, "me".to_owned()),
            (AzureConfigKey::Endpoint, endpoint),
        ];
        assert_eq!(read(sas), wanted);
    }

    #[test]
    fn a_bad_connection_string_is_refused_and_not_repeated() {
        for text in ["hunter2", "AccountName=me;hunter2", "Hunter2=hunter2"] {
            let error = credentials(&[(CONNECTION_STRING, text)]).unwrap_err();
            assert!(
                error.contains(CONNECTION_STRING) && !error.to_lowercase().contains("hunter2"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_lets_us_in_is_told_by_kind() {
        let account = ("AZURE_STORAGE_ACCOUNT", "me");
        let principal = [("AZURE_CLIENT_ID", "i"), ("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_SECRET", "s")];
        for (table, kind) in [
            (vec![account, ("AZURE_STORAGE_KEY", "a2V5")], "the account's key in the environment"),
            (vec![account, ("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=2")], "a shared access signature"),
            ([vec![account], principal.to_vec()].concat(), "a service principal"),
            (vec![account], "the managed identity"),
            (
                vec![(CONNECTION_STRING, "AccountName=me;AccountKey=a2V5")],
                "the account's key of the connection",
            ),
        ] {
            let said = credentials(&table).unwrap();
            assert!(said.starts_with(kind), "{said}");
        }
    }
}
