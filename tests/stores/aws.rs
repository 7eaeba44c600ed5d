//! Credentials for S3 as people have them: a real server that knows one key, and services played by their documents.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;

use crate::backends::run;
use crate::support::relay::{Answer, Relay, Request, forward};
use crate::support::servers::{self, S3_KEY, S3_SECRET, Server};
use crate::user::User;

const TOKEN: &str = "the-token-of-a-session";

fn s3() -> (Server, User) {
    let server = servers::s3s_fs();
    let mut user = User::new();
    user.set("AWS_ENDPOINT_URL_S3", format!("http://{}", server.address()));
    user.set("AWS_REGION", "us-east-1");
    user.hide(S3_SECRET);
    user.hide(TOKEN);
    (server, user)
}

fn in_an_hour() -> String {
    DateTime::<Utc>::from(SystemTime::now() + Duration::from_secs(3600))
        .to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// As containers and instances are given them.
fn credentials_json() -> String {
    let ends = in_an_hour();
    json!({ "AccessKeyId": S3_KEY, "SecretAccessKey": S3_SECRET, "Token": TOKEN, "Expiration": ends })
        .to_string()
}

/// As STS gives them.
fn credentials_xml(action: &str) -> String {
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>{S3_KEY}</AccessKeyId><SecretAccessKey>{S3_SECRET}</SecretAccessKey>\
         <SessionToken>{TOKEN}</SessionToken><Expiration>{}</Expiration></Credentials></{action}Result></{action}Response>",
        in_an_hour()
    )
}

/// The fields of a form, decoded.
fn field(request: &Request, name: &str) -> String {
    let pairs = url::form_urlencoded::parse(&request.body);
    pairs
        .into_iter()
        .find(|(found, _)| found == name)
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

#[test]
fn keys_of_a_profile_let_us_in_and_wrong_ones_are_refused_without_being_shown() {
    let (server, mut user) = s3();
    let wrong = user.hide("not-the-secret-at-all");
    user.file(
        ".aws/credentials",
        &format!(
            "[default]\naws_access_key_id = {S3_KEY}\naws_secret_access_key = {S3_SECRET}\n\
             [old]\naws_access_key_id = {S3_KEY}\naws_secret_access_key = {wrong}\n"
        ),
    );
    user.probe(&server.url, &[]).lets_in("profile `default` of the shared AWS files: keys");
    user.probe(&server.url, &["--aws-profile", "old"]).fails(16, "denied");
    user.probe(&server.url, &["--aws-profile", "none"]).fails(16, "there is no profile `none`");
    user.set("AWS_PROFILE", "old");
    user.probe(&server.url, &[]).fails(16, "denied");
    // Keys in variables go before a profile in a variable; a flag goes before both.
    user.set_all(&server.env);
    user.probe(&server.url, &[]).lets_in("keys in the environment");
    user.probe(&server.url, &["--aws-profile", "old"]).fails(16, "denied");
}

#[test]
fn a_program_of_the_user_lets_us_in() {
    let (server, user) = s3();
    let answer =
        json!({ "Version": 1, "AccessKeyId": S3_KEY, "SecretAccessKey": S3_SECRET, "SessionToken": TOKEN });
    let file = user.file("answer", &answer.to_string());
    let broken = format!("echo {S3_SECRET}; echo {S3_SECRET} >&2");
    user.file(
        ".aws/config",
        &format!(
            "[default]\nendpoint_url = http://127.0.0.1:1\ncredential_process = cat '{file}'\n\
             [profile broken]\ncredential_process = {broken}\n"
        ),
    );
    user.probe(&server.url, &[]).lets_in("profile `default` of the shared AWS files: a program");
    let told = user.probe(&server.url, &["--aws-profile", "broken"]);
    told.fails(16, "credential_process did not write JSON");
}

#[test]
fn a_role_is_taken_with_the_keys_of_another_profile() {
    let (server, mut user) = s3();
    let by = user.hide("the-secret-of-the-source");
    let sts = Relay::start(|request| {
        let signed = request.header("authorization").unwrap_or_default();
        let is_right = signed.contains("Credential=SOURCEKEY/")
            && signed.contains("/us-east-1/sts/aws4_request")
            && field(&request, "Action") == "AssumeRole"
            && field(&request, "ExternalId") == "7/7"
            && field(&request, "RoleSessionName") == "a-test";
        match field(&request, "RoleArn").as_str() {
            "arn:aws:iam::1:role/good" if is_right => Answer::new(200, credentials_xml("AssumeRole")),
            _ => Answer::new(403, "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>"),
        }
    });
    user.set("AWS_ENDPOINT_URL_STS", sts.url());
    let of = |arn: &str| {
        format!("role_arn = {arn}\nsource_profile = source\nexternal_id = 7/7\nrole_session_name = a-test\n")
    };
    user.file(
        ".aws/config",
        &format!(
            "[default]\n{}[profile bad]\n{}[profile source]\naws_access_key_id = SOURCEKEY\n\
             aws_secret_access_key = {by}\n[profile round]\nrole_arn = x\nsource_profile = about\n\
             [profile about]\nrole_arn = x\nsource_profile = round\n",
            of("arn:aws:iam::1:role/good"),
            of("arn:aws:iam::1:role/bad"),
        ),
    );
    user.probe(&server.url, &[]).lets_in("profile `default` of the shared AWS files: a role");
    assert_eq!(sts.seen().len(), 1, "credentials that live for an hour are asked for once");
    user.probe(&server.url, &["--aws-profile", "bad"]).fails(16, "refuses with status 403 (AccessDenied)");
    user.probe(&server.url, &["--aws-profile", "round"]).fails(16, "takes too many roles");
}

#[test]
fn a_web_identity_lets_us_in() {
    let (server, mut user) = s3();
    let token = user.hide("the-token-of-the-pod");
    let sts = Relay::start(|request| {
        let is_right = request.header("authorization").is_none()
            && request.target == "/"
            && field(&request, "Action") == "AssumeRoleWithWebIdentity"
            && field(&request, "WebIdentityToken") == "the-token-of-the-pod"
            && field(&request, "RoleArn") == "arn:aws:iam::1:role/pod";
        let answer = credentials_xml("AssumeRoleWithWebIdentity");
        if is_right {
            Answer::new(200, answer)
        } else {
            Answer::new(400, "<Error><Code>InvalidIdentityToken</Code></Error>")
        }
    });
    user.set("AWS_ENDPOINT_URL_STS", sts.url());
    let file = user.file("token", &format!("{token}\n"));
    user.set("AWS_WEB_IDENTITY_TOKEN_FILE", file);
    user.set("AWS_ROLE_ARN", "arn:aws:iam::1:role/pod");
    user.probe(&server.url, &[]).lets_in("a role by web identity");
    user.file("token", "another-token");
    user.probe(&server.url, &[]).fails(16, "InvalidIdentityToken");
}

/// A sign-in whose token has ended is renewed, and the renewed one kept for AWS's own tools.
#[test]
fn a_sign_in_lets_us_in_and_is_renewed() {
    let (server, mut user) = s3();
    let [first, second, refresh] =
        ["the-first-token", "the-second-token", "the-refresh-token"].map(|secret| user.hide(secret));
    let (good, renewed) = (first.clone(), second.clone());
    let portal = Relay::start(move |request| {
        let bearer = request.header("x-amz-sso_bearer_token").unwrap_or_default();
        let is_known = bearer == good || bearer == renewed;
        let is_right = request.path() == "/federation/credentials"
            && request.query("role_name").as_deref() == Some("Reader & Writer")
            && request.query("account_id").as_deref() == Some("000011112222");
        if !is_known || !is_right {
            return Answer::new(401, json!({ "__type": "UnauthorizedException" }).to_string());
        }
        let ends =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64 + 3_600_000;
        let given = json!({
            "accessKeyId": S3_KEY, "secretAccessKey": S3_SECRET, "sessionToken": TOKEN, "expiration": ends,
        });
        Answer::new(200, json!({ "roleCredentials": given }).to_string())
    });
    let oidc = Relay::start(move |request| {
        let asked: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let is_right = request.target == "/token"
            && asked["grantType"] == "refresh_token"
            && asked["refreshToken"] == refresh.as_str();
        let given =
            json!({ "accessToken": second, "expiresIn": 3600, "refreshToken": "the-next-refresh-token" });
        if is_right {
            Answer::new(200, given.to_string())
        } else {
            Answer::new(400, r#"{"error":"invalid_grant"}"#)
        }
    });
    user.set("AWS_ENDPOINT_URL_SSO", portal.url());
    user.set("AWS_ENDPOINT_URL_SSO_OIDC", oidc.url());
    user.file(
        ".aws/config",
        "[default]\nsso_session = corp\nsso_account_id = 000011112222\nsso_role_name = Reader & Writer\n\
         [sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.awsapps.com/start\n",
    );
    // The name of the file is what AWS's own tools give it: the SHA-1 of `corp`.
    let cache = ".aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json";
    let signed_in = |ends: &str, registered: &str| {
        json!({
            "accessToken": first, "expiresAt": ends, "refreshToken": "the-refresh-token", "clientId": "id",
            "clientSecret": "s", "registrationExpiresAt": registered, "region": "eu-west-1",
        })
        .to_string()
    };
    user.probe(&server.url, &[]).fails(16, "aws sso login");
    user.file(cache, &signed_in("2099-01-01T00:00:00Z", "2099-01-01T00:00:00Z"));
    user.probe(&server.url, &[]).lets_in("profile `default` of the shared AWS files: a sign-in");
    assert_eq!(oidc.seen().len(), 0, "a token that lives is not renewed");
    user.file(cache, &signed_in("2020-01-01T00:00:00UTC", "2099-01-01T00:00:00Z"));
    user.probe(&server.url, &[]).lets_in("profile `default` of the shared AWS files: a sign-in");
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(user.path(cache)).unwrap()).unwrap();
    assert_eq!(kept["accessToken"], "the-second-token");
    assert_eq!(kept["refreshToken"], "the-next-refresh-token");
    assert_eq!(kept["clientId"], "id");
    user.file(cache, &signed_in("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"));
    user.probe(&server.url, &[]).fails(16, "the sign-in has ended");
}

#[test]
fn the_role_of_a_container_lets_us_in() {
    let (server, mut user) = s3();
    let shown = user.hide("the-token-of-the-container");
    let agent = Relay::start(|request| match request.header("authorization") {
        Some("the-token-of-the-container") => Answer::new(200, credentials_json()),
        _ => Answer::new(401, ""),
    });
    user.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/v1/credentials", agent.url()));
    user.probe(&server.url, &[]).fails(16, "refuses with status 401");
    let file = user.file("container-token", &shown);
    user.set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file);
    user.probe(&server.url, &[]).lets_in("the role of this container");
}

#[test]
fn the_role_of_an_instance_lets_us_in() {
    let (server, mut user) = s3();
    let session = user.hide("the-token-of-the-metadata-session");
    let metadata = Relay::start(move |request| {
        let has_session = request.header("x-aws-ec2-metadata-token") == Some(session.as_str());
        match (request.method.as_str(), request.target.as_str()) {
            ("PUT", "/latest/api/token")
                if request.header("x-aws-ec2-metadata-token-ttl-seconds").is_some() =>
            {
                Answer::new(200, session.clone())
            }
            ("GET", "/latest/meta-data/iam/security-credentials/") if has_session => {
                Answer::new(200, "a-role")
            }
            ("GET", "/latest/meta-data/iam/security-credentials/a-role") if has_session => {
                Answer::new(200, credentials_json())
            }
            _ => Answer::new(401, ""),
        }
    });
    user.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url());
    user.probe(&server.url, &[]).lets_in("the role of this instance");
    assert_eq!(metadata.seen().len(), 3);
    user.set("AWS_EC2_METADATA_DISABLED", "true");
    user.probe(&server.url, &[]).fails(16, "no credentials");
}

/// A proxy that programs share is told nothing that a container or an instance is told; a bucket is asked for through it.
#[test]
fn no_proxy_hears_what_lets_us_in() {
    let shown = "the-token-of-the-container";
    let agent = Relay::start(move |request| match request.header("authorization") {
        Some(token) if token == shown => Answer::new(200, credentials_json()),
        _ => Answer::new(401, ""),
    });
    let proxy = Relay::start(|_| Answer::new(403, "<Error><Code>AccessDenied</Code></Error>"));
    let mut user = User::new();
    for secret in [S3_SECRET, TOKEN, shown] {
        user.hide(secret);
    }
    user.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/v1/credentials", agent.url()));
    user.set("AWS_CONTAINER_AUTHORIZATION_TOKEN", shown);
    user.set("AWS_ENDPOINT_URL", "http://s3.invalid");
    for name in ["http_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        user.set(name, proxy.url());
    }
    user.probe("s3://bucket/prefix", &[]).fails(16, "denied");
    assert_eq!(agent.seen().len(), 1, "it is asked itself");
    let (seen, is_own) = (proxy.seen(), |request: &Request| request.target.contains("/v1/credentials"));
    assert!(!seen.is_empty() && !seen.iter().any(is_own), "{seen:#?}");
}

/// The bucket goes on with what the program says later, and with another file.
#[test]
fn credentials_are_renewed_while_a_bucket_is_open() {
    let server = servers::s3s_fs();
    let backend = server.address();
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    // Ends within the time before which others are asked for, so that every second one asks anew.
    let soon = DateTime::<Utc>::from(SystemTime::now() + Duration::from_secs(120)).to_rfc3339();
    let answer = |token: &str| {
        let answer = json!({
            "Version": 1, "AccessKeyId": S3_KEY, "SecretAccessKey": S3_SECRET, "SessionToken": token, "Expiration": soon,
        });
        std::fs::write(home.join("answer"), answer.to_string()).unwrap();
    };
    std::fs::create_dir(home.join(".aws")).unwrap();
    let config = format!("[default]\ncredential_process = cat {}/answer\n", home.display());
    std::fs::write(home.join(".aws/config"), config).unwrap();
    let relay = Relay::start(move |request| forward(backend, &request).unwrap());
    let table = [("HOME", home.to_str().unwrap().to_owned()), ("AWS_ENDPOINT_URL", relay.url())];
    let environment = table.into_iter().collect();
    let options = coffer::store::StoreOptions { environment, ..Default::default() };
    let bucket = coffer::store::open(&server.url, &options).unwrap();
    let ask_until = async |token: &str| {
        let start = std::time::Instant::now();
        loop {
            bucket.probe().await.unwrap();
            let seen = relay.seen();
            let used = seen.last().and_then(|request| request.header("x-amz-security-token"));
            if used == Some(token) {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{token} is not used");
        }
    };
    run(async {
        answer("first");
        ask_until("first").await;
        answer("second");
        ask_until("second").await;
        // A program that fails does no harm while what it said before still holds.
        std::fs::remove_file(home.join("answer")).unwrap();
        bucket.probe().await.unwrap();
        ask_until("second").await;
        let keys = format!(
            "[default]\naws_access_key_id = {S3_KEY}\naws_secret_access_key = {S3_SECRET}\naws_session_token = third\n"
        );
        std::fs::write(home.join(".aws/credentials"), keys).unwrap();
        ask_until("third").await;
    });
}
