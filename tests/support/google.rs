//! Google's store on this machine: an emulator, and before it a relay for what it does not speak itself.
//!
//! Coffer's client writes and lists in Google's XML dialect. The emulator honours «only if absent» in uploads of the
//! JSON dialect only, and cuts no listing into pages in XML. The relay says the same in JSON and decides nothing by
//! itself: whether a name is taken, and where a page ends, is the emulator's word.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::relay::{Answer, Relay, Request, decoded, forward};
use super::servers::{Plan, Server, start, tool};

const BOUNDARY: &str = "0-a-part-of-an-upload-0";
const PAGE_OBJECTS: &str = "1000";
const BUCKET: &str = "coffer";

/// The emulator, holding everything in memory, with one empty bucket.
pub(crate) fn fake_gcs() -> Server {
    let program = tool("fake-gcs/fake-gcs-server");
    let mut server = start(|_, ports| {
        let args = [
            "-backend".to_owned(),
            "memory".to_owned(),
            "-scheme".to_owned(),
            "http".to_owned(),
            "-host".to_owned(),
            "127.0.0.1".to_owned(),
            "-port".to_owned(),
            ports[0].to_string(),
            "-public-host".to_owned(),
            format!("127.0.0.1:{}", ports[0]),
            "-log-level".to_owned(),
            "error".to_owned(),
        ];
        Plan { program: PathBuf::from(&program), args: args.to_vec(), port: ports[0], litter: Vec::new() }
    });
    let emulator = server.address();
    let made =
        forward(emulator, &post("/storage/v1/b?project=tests", json!({ "name": BUCKET }).to_string().into()));
    assert_eq!(made.expect("the emulator answers").status, 200);
    let relay = Relay::start(move |request| translate(emulator, request));
    server.env = vec![("STORAGE_EMULATOR_HOST", relay.url())];
    server.url = format!("gs://{BUCKET}/volume");
    server.relay = Some(relay);
    server
}

fn post(target: &str, body: Vec<u8>) -> Request {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    Request::new("POST", target, headers, body)
}

/// Says to the emulator what `request` says, in words that it knows, and gives its answer back in those of the question.
fn translate(emulator: SocketAddr, mut request: Request) -> Answer {
    // By the name in it the emulator tells which dialect it is spoken to in.
    request.headers.retain(|(name, _)| name != "host");
    request.headers.push(("host".to_owned(), emulator.to_string()));
    let path = request.path().trim_start_matches('/').to_owned();
    let answer = match (request.method.as_str(), path.split_once('/')) {
        ("PUT", Some((bucket, key))) => write(emulator, bucket, key, &request),
        ("GET", None) if request.query("list-type").is_some() => list(emulator, &path, &request),
        _ => forward(emulator, &request),
    };
    answer.unwrap_or_else(|error| Answer::new(502, format!("the emulator is away: {error}")))
}

/// A PUT as an upload in two parts: what the object is called, and what is in it.
fn write(emulator: SocketAddr, bucket: &str, key: &str, request: &Request) -> std::io::Result<Answer> {
    let name = decoded(key);
    let mut about = json!({ "name": name });
    if let Some(class) = request.header("x-goog-storage-class") {
        about["storageClass"] = class.into();
    }
    let mut body = format!("--{BOUNDARY}\r\nContent-Type: application/json\r\n\r\n{about}\r\n").into_bytes();
    body.extend(format!("--{BOUNDARY}\r\nContent-Type: application/octet-stream\r\n\r\n").into_bytes());
    body.extend(&request.body);
    body.extend(format!("\r\n--{BOUNDARY}--\r\n").into_bytes());
    let condition = request.header("x-goog-if-generation-match");
    let condition = condition.map(|number| format!("&ifGenerationMatch={number}")).unwrap_or_default();
    let mut upload = post(&format!("/upload/storage/v1/b/{bucket}/o?uploadType=multipart{condition}"), body);
    upload.headers = vec![("content-type".to_owned(), format!("multipart/related; boundary={BOUNDARY}"))];
    let answer = forward(emulator, &upload)?;
    if answer.status != 200 {
        return Ok(answer);
    }
    let made: Value = serde_json::from_slice(&answer.body).expect("an object in JSON");
    assert_eq!(made["name"], name, "the emulator wrote something else");
    let text = |field: &str| made[field].as_str().expect(field).to_owned();
    let answer = Answer::new(200, "").with("etag", format!("\"{}\"", text("etag")));
    Ok(answer.with("x-goog-generation", text("generation")))
}

/// A page of a listing.
fn list(emulator: SocketAddr, bucket: &str, request: &Request) -> std::io::Result<Answer> {
    assert_eq!(request.query("delimiter"), None, "listings by directory are not used");
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let pages = request.query("max-keys").unwrap_or_else(|| PAGE_OBJECTS.to_owned());
    query.append_pair("maxResults", &pages);
    for (xml, json) in [("prefix", "prefix"), ("continuation-token", "pageToken")] {
        if let Some(value) = request.query(xml) {
            query.append_pair(json, &value);
        }
    }
    let asked =
        Request::new("GET", &format!("/storage/v1/b/{bucket}/o?{}", query.finish()), Vec::new(), Vec::new());
    let answer = forward(emulator, &asked)?;
    if answer.status != 200 {
        let body = "<Error><Code>NoSuchBucket</Code></Error>";
        return Ok(if answer.status == 404 { Answer::new(404, body) } else { answer });
    }
    let page: Value = serde_json::from_slice(&answer.body).expect("a page in JSON");
    let mut xml = String::from("<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>");
    for object in page["items"].as_array().into_iter().flatten() {
        let text = |field: &str| escaped(object[field].as_str().expect(field));
        let (key, size, at, tag) = (text("name"), text("size"), text("updated"), text("etag"));
        xml.push_str(&format!(
            "<Contents><Key>{key}</Key><LastModified>{at}</LastModified><ETag>{tag}</ETag><Size>{size}</Size></Contents>"
        ));
    }
    if let Some(token) = page["nextPageToken"].as_str() {
        xml.push_str(&format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(token)));
    }
    xml.push_str("</ListBucketResult>");
    Ok(Answer::new(200, xml).with("content-type", "application/xml"))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
