//! Stores that send their clients elsewhere.

use coffer::store::{self, StoreOptions};
use coffer::vault;

use crate::backends::run;
use crate::support::relay::{Answer, Relay, Request};
use crate::support::servers;

const TOKEN: &str = "the-token-of-a-session";

/// For each kind of store, a URL and what is needed to ask `server` for it.
fn ways_to(server: &Relay) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let mut s3 = servers::s3_environment(server.url());
    s3.push(("AWS_SESSION_TOKEN", TOKEN.to_owned()));
    let azure = vec![
        ("AZURE_STORAGE_ACCOUNT", servers::AZURE_ACCOUNT.to_owned()),
        ("AZURE_STORAGE_KEY", servers::AZURE_KEY.to_owned()),
        ("AZURE_ENDPOINT", server.url()),
    ];
    let google = vec![("STORAGE_EMULATOR_HOST", server.url())];
    vec![("s3://bucket/prefix", s3), ("az://bucket/prefix", azure), ("gs://bucket/prefix", google)]
}

/// Wherever a store sends a request, nobody there hears of it: neither credentials nor what was to be written, and no
/// other server of the user's network is asked for anything in his name.
#[test]
fn d12_a_redirect_is_an_error_and_nothing_is_sent_to_where_it_leads() {
    let elsewhere = Relay::start(|_| Answer::new(200, "what somebody else has"));
    for status in [301, 302, 303, 307, 308] {
        let to = format!("http://localhost:{}", elsewhere.address().port());
        let store = Relay::start(move |request| {
            Answer::new(status, "").with("location", format!("{to}{}", request.target))
        });
        for (url, env) in ways_to(&store) {
            let given = StoreOptions { environment: env.into_iter().collect(), ..StoreOptions::default() };
            let bucket = store::open(url, &given).unwrap();
            let listed = run(vault::header::read_newest(&bucket)).map(drop).unwrap_err().to_string();
            let read = run(vault::header::read(&bucket, 1)).map(drop).unwrap_err().to_string();
            let written = run(bucket.probe()).map(drop).unwrap_err().to_string();
            for error in [listed, read, written] {
                assert!(error.contains("sends its clients elsewhere"), "{status} of {url}: {error}");
            }
        }
        let has_token = |request: &Request| request.header("x-amz-security-token") == Some(TOKEN);
        assert!(store.seen().iter().any(has_token), "nothing that could have been taken along");
    }
    assert!(elsewhere.seen().is_empty(), "{:#?}", elsewhere.seen());
}
