//! Credentials for Azure and Google as people have them: emulators, and services played by their documents.
//!
//! The emulators know neither identities nor accounts. Where a token is what lets us in, a relay checks it and then
//! speaks to the emulator by itself.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{hmac, signature};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde_json::json;

use crate::support::command::shell;
use crate::support::google;
use crate::support::relay::{Answer, Relay, Request, forward};
use crate::support::servers::{self, AZURE_ACCOUNT, AZURE_KEY, Server};
use crate::support::tls::Certificates;
use crate::user::User;

fn azure() -> (Server, User) {
    let server = servers::azurite();
    let mut user = User::new();
    user.hide(AZURE_KEY);
    (server, user)
}

fn blob_endpoint(server: &Server) -> String {
    format!("http://{}/{AZURE_ACCOUNT}", server.address())
}

/// A signature that lets its bearer do with the container what `may` says.
/// <https://learn.microsoft.com/rest/api/storageservices/create-service-sas>
fn shared_access_signature(may: &str) -> String {
    let (ends, version) = ("2099-01-01T00:00:00Z", "2020-08-04");
    let to_sign = format!("{may}\n\n{ends}\n/blob/{AZURE_ACCOUNT}/coffer\n\n\n\n{version}\nc\n\n\n\n\n\n");
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64.decode(AZURE_KEY.as_bytes()).unwrap());
    let signed = BASE64.encode(hmac::sign(&key, to_sign.as_bytes()).as_ref());
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("sv", version).append_pair("sr", "c").append_pair("sp", may);
    query.append_pair("se", ends).append_pair("sig", &signed);
    query.finish()
}

#[test]
fn a_connection_string_lets_us_in() {
    let (server, mut user) = azure();
    let endpoint = blob_endpoint(&server);
    let text = format!(
        "DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};BlobEndpoint={endpoint};"
    );
    user.set("AZURE_STORAGE_CONNECTION_STRING", text.clone());
    user.probe(&server.url, &[]).fits("the account's key of the connection string");
    let wrong = user.hide(&BASE64.encode(b"the wrong key"));
    user.set("AZURE_STORAGE_CONNECTION_STRING", text.replace(AZURE_KEY, &wrong));
    user.probe(&server.url, &[]).fails(16, "denied");
}

#[test]
fn a_shared_access_signature_lets_us_in() {
    let (server, mut user) = azure();
    let signature = shared_access_signature("rcwdl");
    let secret = signature.rsplit("sig=").next().unwrap().to_owned();
    user.hide(&secret);
    user.set("AZURE_STORAGE_ACCOUNT", AZURE_ACCOUNT);
    user.set("AZURE_STORAGE_ENDPOINT", blob_endpoint(&server));
    user.set("AZURE_STORAGE_SAS_TOKEN", signature.clone());
    user.probe(&server.url, &[]).fits("a shared access signature in the environment");
    user.set("AZURE_STORAGE_SAS_TOKEN", signature.replace("rcwdl", "rcwd"));
    user.probe(&server.url, &[]).fails(16, "denied");
}

/// A store that lets in who has this token, also for each of several requests in one.
fn behind_a_token(server: &Server, token: &'static str) -> Relay {
    let (backend, signature) = (server.address(), shared_access_signature("rcwdl"));
    Relay::start(move |mut request: Request| {
        let shown = format!("Bearer {token}");
        if request.header("authorization") != Some(&shown) {
            return Answer::new(403, "<Error><Code>AuthenticationFailed</Code></Error>");
        }
        request.headers.retain(|(name, _)| name != "authorization");
        if request.query("comp").as_deref() == Some("batch") {
            let body = String::from_utf8(request.body).unwrap();
            let inner = body.replace(&format!("Authorization: {shown}\r\n"), "");
            assert!(inner.len() < body.len(), "the requests within show no token");
            request.body = inner.replace(" HTTP/1.1\r\n", &format!("?{signature} HTTP/1.1\r\n")).into_bytes();
        }
        let mark = if request.target.contains('?') { '&' } else { '?' };
        request.target = format!("{}{mark}{signature}", request.target);
        forward(backend, &request).unwrap()
    })
}

#[test]
fn a_service_principal_a_workload_and_a_managed_identity_let_us_in() {
    const TOKEN: &str = "the.token.of-an-identity";
    let (server, mut user) = azure();
    let store = behind_a_token(&server, TOKEN);
    let [secret, federated] = ["the-secret-of-the-principal", "the-token-of-the-pod"].map(|s| user.hide(s));
    user.hide(TOKEN);
    let token_answer =
        || json!({ "access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer" }).to_string();
    let (by_secret, by_pod) = (secret.clone(), federated.clone());
    let authority = Relay::start(move |request| {
        let pairs: Vec<_> = url::form_urlencoded::parse(&request.body).into_owned().collect();
        let has = |name: &str, value: &str| pairs.iter().any(|(n, v)| n == name && v == value);
        let is_right = request.target == "/the-tenant/oauth2/v2.0/token"
            && has("client_id", "the-client")
            && has("grant_type", "client_credentials")
            && (has("client_secret", &by_secret) || has("client_assertion", &by_pod));
        if is_right {
            Answer::new(200, token_answer())
        } else {
            Answer::new(401, r#"{"error":"invalid_client"}"#)
        }
    });
    let metadata = Relay::start(move |request| {
        let is_right = request.header("metadata") == Some("true")
            && request.query("resource").is_some_and(|resource| resource.contains("storage.azure.com"));
        let ends = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600;
        let given = json!({
            "access_token": TOKEN, "expires_on": ends.to_string(), "resource": "r", "token_type": "Bearer",
        });
        if is_right { Answer::new(200, given.to_string()) } else { Answer::new(400, "") }
    });
    user.set("AZURE_STORAGE_ACCOUNT", AZURE_ACCOUNT);
    user.set("AZURE_STORAGE_ENDPOINT", format!("{}/{AZURE_ACCOUNT}", store.url()));
    user.set("AZURE_AUTHORITY_HOST", authority.url());
    user.set("IDENTITY_ENDPOINT", metadata.url());
    user.probe(&server.url, &[]).fits("the managed identity");
    user.set("AZURE_CLIENT_ID", "the-client");
    user.set("AZURE_TENANT_ID", "the-tenant");
    user.set("AZURE_CLIENT_SECRET", secret);
    user.probe(&server.url, &[]).fits("a service principal");
    let file = user.file("federated", &federated);
    user.set("AZURE_FEDERATED_TOKEN_FILE", file);
    user.probe(&server.url, &[]).fits("a workload identity");
}

/// Google's store behind a relay that looks at tokens.
fn google_behind(is_right: impl Fn(&str) -> bool + Send + Sync + 'static) -> (Server, Relay) {
    let server = google::fake_gcs();
    let backend = server.relay_address();
    let relay = Relay::start(move |request: Request| {
        let bearer = request.header("authorization").and_then(|text| text.strip_prefix("Bearer "));
        match bearer.is_some_and(&is_right) {
            true => forward(backend, &request).unwrap(),
            false => Answer::new(401, "<Error><Code>AuthenticationRequired</Code></Error>"),
        }
    });
    (server, relay)
}

/// The file of a service account lets us in by what is signed with its key.
#[test]
fn the_file_of_a_service_account_lets_us_in() {
    let mut user = User::new();
    shell(
        &user.path(""),
        "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem 2>/dev/null
         openssl rsa -in key.pem -RSAPublicKey_out -outform DER -out public.der 2>/dev/null",
    );
    let key = std::fs::read_to_string(user.path("key.pem")).unwrap();
    user.hide(key.lines().nth(3).unwrap());
    let public = std::fs::read(user.path("public.der")).unwrap();
    let (server, relay) = google_behind(move |token| {
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let claims = BASE64URL_NOPAD.decode(signed.split('.').nth(1).unwrap().as_bytes()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        let by = signature::UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, &public);
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        by.verify(signed.as_bytes(), &signature).is_ok()
            && claims["iss"] == "me@project.iam.gserviceaccount.com"
    });
    let account = json!({
        "type": "service_account", "private_key_id": "id", "private_key": key,
        "client_email": "me@project.iam.gserviceaccount.com",
    });
    let file = user.file("account.json", &account.to_string());
    user.set("GOOGLE_APPLICATION_CREDENTIALS", file.clone());
    let endpoint = relay.url();
    user.probe(&server.url, &["--endpoint", &endpoint]).fits("the service account in ");
    user.file("account.json", &format!("{{\"type\": \"service_account\", \"private_key\": {}", json!(key)));
    user.probe(&server.url, &["--endpoint", &endpoint]).fails(16, "are no JSON");
    user.file("account.json", r#"{"type": "external_account"}"#);
    user.probe(&server.url, &["--endpoint", &endpoint]).fails(16, "not supported yet");
}

/// `gcloud auth application-default login`: Google's own server is played behind a proxy, in TLS by `--ca-file`.
#[test]
fn the_sign_in_of_a_user_and_the_metadata_server_let_us_in() {
    const TOKEN: &str = "the-token-of-a-user";
    let (server, relay) = google_behind(|token| token == TOKEN);
    let mut user = User::new();
    user.hide(TOKEN);
    let [secret, refresh] = ["the-secret-of-the-client", "the-refresh-token"].map(|secret| user.hide(secret));
    let given = json!({ "access_token": TOKEN, "expires_in": 3600 }).to_string();
    let answer = given.clone();
    let metadata = Relay::start(move |request| match request.header("metadata-flavor") {
        Some("Google") if request.path().ends_with("/service-accounts/default/token") => {
            Answer::new(200, answer.clone())
        }
        _ => Answer::new(403, ""),
    });
    user.set("GCE_METADATA_HOST", metadata.address().to_string());
    let endpoint = relay.url();
    user.probe(&server.url, &["--endpoint", &endpoint])
        .fits("application default credentials, else the metadata server");
    assert!(!metadata.seen().is_empty());

    let certificates = Certificates::new();
    let proxy = Relay::start_proxy(&certificates, move |request| {
        let pairs: Vec<_> = url::form_urlencoded::parse(&request.body).into_owned().collect();
        let has = |name: &str, value: &str| pairs.iter().any(|(n, v)| n == name && v == value);
        let is_right = request.header("host") == Some("accounts.google.com")
            && has("client_secret", "the-secret-of-the-client")
            && has("refresh_token", "the-refresh-token");
        if is_right {
            Answer::new(200, given.clone())
        } else {
            Answer::new(400, r#"{"error":"invalid_grant"}"#)
        }
    });
    std::fs::create_dir_all(user.path("gcloud")).unwrap();
    let adc = json!({ "type": "authorized_user", "client_id": "c", "client_secret": secret, "refresh_token": refresh });
    user.file("gcloud/application_default_credentials.json", &adc.to_string());
    user.set("CLOUDSDK_CONFIG", user.path("gcloud").to_string_lossy());
    user.set("GOOGLE_PROXY_URL", proxy.url());
    user.set("GOOGLE_PROXY_EXCLUDES", "127.0.0.1");
    let ca = certificates.authority.to_string_lossy().into_owned();
    user.probe(&server.url, &["--endpoint", &endpoint, "--ca-file", &ca]).fits("the user's sign-in in ");
    assert_eq!(proxy.seen().len(), 1, "a token that lives for an hour is asked for once");
    user.probe(&server.url, &["--endpoint", &endpoint, "--read-timeout", "2s"])
        .fails(17, "accounts.google.com");
}
