//! The files of this machine that let us into a bucket.

use std::path::PathBuf;

use super::aws;
use super::environment::Environment;
use super::error::StoreError;
use super::options::StoreOptions;
use super::url::Place;

/// A variable that names a file, and what that is.
type Named = (&'static str, &'static str);
const OF_S3: [Named; 1] = [("AWS_CA_BUNDLE", "file of certificates")];
const OF_AZURE: [Named; 1] = [("AZURE_FEDERATED_TOKEN_FILE", "file of a token")];
const OF_GOOGLE: [Named; 4] = [
    ("GOOGLE_APPLICATION_CREDENTIALS", "file of credentials"),
    ("GOOGLE_SERVICE_ACCOUNT", "file of credentials"),
    ("GOOGLE_SERVICE_ACCOUNT_PATH", "file of credentials"),
    ("SERVICE_ACCOUNT", "file of credentials"),
];

/// The files that the bucket at `url` is opened and kept open with, each with what it is, whether it is there or not: those
/// that a user names, and those where AWS's tools keep theirs if they are looked at.
///
/// # Errors
/// The URL names no bucket.
pub fn files(url: &str, options: &StoreOptions) -> Result<Vec<(&'static str, PathBuf)>, StoreError> {
    let environment = &options.environment;
    let mut found = match Place::parse(url)? {
        Place::Local(_) | Place::Memory => return Ok(Vec::new()),
        Place::S3(..) => {
            let mut found = named(environment, &OF_S3);
            found.extend(aws::files(environment, options.aws_profile.as_deref()));
            found
        }
        Place::Azure(..) => named(environment, &OF_AZURE),
        Place::Google(..) => named(environment, &OF_GOOGLE),
    };
    found.extend(options.ca_file.clone().map(|file| ("file of certificates", file)));
    Ok(found)
}

fn named(environment: &Environment, variables: &[Named]) -> Vec<(&'static str, PathBuf)> {
    let file = |&(name, what): &Named| Some((what, PathBuf::from(environment.get(name)?)));
    variables.iter().filter_map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str, table: &[(&str, &str)]) -> Vec<String> {
        let environment = table.iter().copied().collect();
        let options = StoreOptions { environment, ca_file: Some("/c.pem".into()), ..StoreOptions::default() };
        let found = files(url, &options).unwrap();
        found.into_iter().map(|(_, path)| path.display().to_string()).collect()
    }

    #[test]
    fn files_are_those_that_are_in_use() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name).display().to_string();
        let (config, credentials) = (at(".aws/config"), at(".aws/credentials"));
        let of_home = [("HOME", home.path().to_str().unwrap())];
        let with = |more: &[(&'static str, &'static str)]| [&of_home[..], more].concat();
        let keys = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "s")];
        let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("AWS_ROLE_ARN", "arn")];
        let container = [
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/shown"),
        ];
        assert_eq!(shown("s3://b", &of_home), [&config, &credentials, "/c.pem"]);
        assert_eq!(shown("s3://b", &with(&keys)), ["/c.pem"], "keys in variables need no file");
        assert_eq!(shown("s3://b", &with(&web)), [&config, &credentials, "/token", "/c.pem"]);
        assert_eq!(shown("s3://b", &with(&container)), [&config, &credentials, "/shown", "/c.pem"]);
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let profile = "[default]\nrole_arn = r\nsource_profile = corp\n[profile corp]\nsso_account_id = 1\n\
                       sso_role_name = r\nsso_region = eu-west-1\nsso_start_url = https://corp\n";
        std::fs::write(&config, profile).unwrap();
        let found = shown("s3://b", &of_home);
        assert!(found.iter().any(|path| path.contains("/.aws/sso/cache/")), "{found:?}");
        assert_eq!(shown("gs://b", &[("GOOGLE_APPLICATION_CREDENTIALS", "/g.json")]), ["/g.json", "/c.pem"]);
        assert_eq!(shown("az://c", &[("AZURE_FEDERATED_TOKEN_FILE", "/token")]), ["/token", "/c.pem"]);
        assert!(shown("/srv/volume", &of_home).is_empty());
    }
}
