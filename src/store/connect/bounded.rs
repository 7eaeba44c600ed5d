//! Answers that end where no honest one goes on, whatever a server announces and however much it sends.
//!
//! The object store collects listings, refusals and tokens without a limit, and reserves for each what its body says that
//! its length is. Bodies from here say nothing, so that no more is held than has come.

use async_trait::async_trait;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use object_store::client::{
    HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, HeaderMap};

/// Largest object: ours have a GiB before they are sealed.
const OBJECT_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Largest answer that is no object: a page of a listing, what became of deletions, a token.
const ANSWER_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Of the words of a refusal, so many are read.
const WORDS_BYTES_MAX: usize = 64 * 1024;

/// Parameters that no request for an object has: they ask for a listing or a batch, a session or a token.
const OTHERS: [&str; 5] = ["audience", "comp", "list-type", "resource", "session"];

/// A service whose answers end.
#[derive(Debug)]
pub(super) struct Bounded<S>(pub(super) S);

#[derive(Debug, thiserror::Error)]
#[error("the answer is larger than {0} bytes")]
struct TooLarge(u64);

#[async_trait]
impl<S: HttpService> HttpService for Bounded<S> {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let bytes_max = if is_for_object(&request) { OBJECT_BYTES_MAX } else { ANSWER_BYTES_MAX };
        let (head, body) = self.0.call(request).await?.into_parts();
        let announced = announced(&head.headers);
        let body = if head.status.is_success() {
            limited(body, announced, bytes_max)
        } else {
            refusal(body, announced > WORDS_BYTES_MAX as u64)
        };
        Ok(HttpResponse::from_parts(head, body))
    }
}

fn is_for_object(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    let mut names = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    request.method() == Method::GET && !names.any(|name| OTHERS.contains(&name))
}

/// The length in the head of an answer. The object store reserves it for an object, also where the body has another one.
fn announced(headers: &HeaderMap) -> u64 {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// `body`, frame by frame as it comes, or an error in the place of the first that is too much. One that announces too much
/// gives that error at once: whoever takes two frames reserves room for all of them.
fn limited(body: HttpResponseBody, announced: u64, bytes_max: u64) -> HttpResponseBody {
    let frames = stream::try_unfold((body, 0_u64), move |(mut body, taken)| async move {
        if announced > bytes_max {
            return Err(too_large(bytes_max));
        }
        let Some(frame) = body.frame().await.transpose()? else { return Ok(None) };
        let taken = taken + frame.data_ref().map_or(0, |data| data.len() as u64);
        if taken > bytes_max {
            return Err(too_large(bytes_max));
        }
        Ok::<_, HttpError>(Some((frame, (body, taken))))
    });
    HttpResponseBody::new(StreamBody::new(frames))
}

/// Its kind is one after which the client does not ask again by itself.
fn too_large(bytes_max: u64) -> HttpError {
    HttpError::new(HttpErrorKind::Decode, TooLarge(bytes_max))
}

/// The words in `body` as one frame; it is read only if somebody wants them.
fn refusal(body: HttpResponseBody, is_too_long: bool) -> HttpResponseBody {
    let frames = stream::try_unfold(Some(body), move |body| async move {
        let Some(body) = body else { return Ok(None) };
        let mut text = HttpResponseBody::from(words(body, is_too_long).await?);
        let frame = text.frame().await.transpose()?;
        Ok::<_, HttpError>(frame.map(|frame| (frame, None)))
    });
    HttpResponseBody::new(StreamBody::new(frames))
}

/// The first words of a refusal. An error in their place would hide its status: so they are cut without one, and what is no
/// text is replaced. Words that are too long are cut anyway, wherever they break off; of others it is an error.
async fn words(mut body: HttpResponseBody, is_too_long: bool) -> Result<String, HttpError> {
    let mut words = Vec::new();
    while words.len() < WORDS_BYTES_MAX {
        let data = match body.frame().await {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) if !is_too_long => return Err(error),
            Some(Err(_)) | None => break,
        };
        let room = WORDS_BYTES_MAX - words.len();
        words.extend_from_slice(data.get(..room).unwrap_or(&data));
    }
    Ok(String::from_utf8_lossy(&words).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use futures::{StreamExt, TryStreamExt};
    use object_store::aws::AmazonS3Builder;
    use object_store::azure::MicrosoftAzureBuilder;
    use object_store::client::{HttpClient, HttpConnector, HttpRequestBody};
    use object_store::gcp::GoogleCloudStorageBuilder;
    use object_store::path::Path;
    use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, Result as RawResult};
    use reqwest::StatusCode;
    use reqwest::header::{ETAG, HeaderValue, LAST_MODIFIED};

    use super::super::no_retries;
    use super::*;
    use crate::store::error::{Trouble, classify};

    const MIB: usize = 1024 * 1024;
    /// More than any machine has.
    const ABSURD: u64 = 1 << 46;
    const DENIED: &[u8] = b"<Error><Code>AccessDenied</Code></Error>";

    /// A server that answers everything with one and the same.
    #[derive(Clone, Debug)]
    struct Canned {
        status: StatusCode,
        announced: Option<u64>,
        /// The body; it breaks off at `None`.
        pieces: Vec<Option<Bytes>>,
        /// Bytes that were taken from all bodies.
        taken: Arc<AtomicUsize>,
    }

    impl Canned {
        fn new(
            status: StatusCode,
            announced: Option<u64>,
            pieces: impl IntoIterator<Item = Option<Bytes>>,
        ) -> Self {
            Self { status, announced, pieces: pieces.into_iter().collect(), taken: Arc::default() }
        }

        fn taken(&self) -> usize {
            self.taken.swap(0, Ordering::Relaxed)
        }

        /// Clients of all kinds that have nobody else to ask.
        fn stores(&self) -> [Arc<dyn ObjectStore>; 3] {
            let s3 = AmazonS3Builder::new()
                .with_http_connector(self.clone())
                .with_bucket_name("bucket")
                .with_access_key_id("id")
                .with_secret_access_key("secret")
                .with_retry(no_retries());
            let azure = MicrosoftAzureBuilder::new()
                .with_http_connector(self.clone())
                .with_account("me")
                .with_access_key("a2V5")
                .with_container_name("container")
                .with_retry(no_retries());
            let google = GoogleCloudStorageBuilder::new()
                .with_http_connector(self.clone())
                .with_bucket_name("bucket")
                .with_bearer_token("token")
                .with_skip_signature(true)
                .with_retry(no_retries());
            [
                Arc::new(s3.build().unwrap()),
                Arc::new(azure.build().unwrap()),
                Arc::new(google.build().unwrap()),
            ]
        }
    }

    #[async_trait]
    impl HttpService for Canned {
        async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
            let taken = self.taken.clone();
            let pieces = stream::iter(self.pieces.clone()).map(move |piece| {
                taken.fetch_add(piece.as_ref().map_or(0, Bytes::len), Ordering::Relaxed);
                piece.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset))
            });
            let body = reqwest::Body::wrap_stream(pieces);
            let body = BodyExt::map_err(body, |error| HttpError::new(HttpErrorKind::Unknown, error));
            let mut answer = HttpResponse::new(HttpResponseBody::new(body));
            *answer.status_mut() = self.status;
            let headers = answer.headers_mut();
            headers.insert(ETAG, HeaderValue::from_static("\"1\""));
            headers.insert(LAST_MODIFIED, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
            if let Some(bytes) = self.announced {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
            }
            Ok(answer)
        }
    }

    impl HttpConnector for Canned {
        fn connect(&self, _: &ClientOptions) -> RawResult<HttpClient> {
            Ok(HttpClient::new(Bounded(self.clone())))
        }
    }

    #[test]
    fn what_is_asked_for_is_an_object_or_something_smaller() {
        for (method, uri, is_object) in [
            ("GET", "https://host/bucket/segments/1", true),
            ("GET", "https://host/bucket/session?versionId=list-type", true),
            ("GET", "https://host/container/a?sv=2022&sr=c&sig=comp", true),
            ("GET", "https://host/bucket?list-type=2&prefix=a", false),
            ("GET", "https://host/container?restype=container&comp=list", false),
            ("GET", "https://bucket.host?session", false),
            ("GET", "http://host/token?audience=somebody", false),
            ("GET", "http://host/token?api-version=1&resource=somebody", false),
            ("POST", "https://host/bucket?delete", false),
            ("PUT", "https://host/bucket/segments/1", false),
        ] {
            let mut request = HttpRequest::new(HttpRequestBody::empty());
            *request.method_mut() = method.parse().unwrap();
            *request.uri_mut() = uri.parse().unwrap();
            assert_eq!(is_for_object(&request), is_object, "{method} {uri}");
        }
    }

    #[tokio::test]
    async fn d12_a_page_of_a_listing_without_end_is_an_error_when_too_much_of_it_has_come() {
        // There is an end, so that a client that goes on shows itself by how much it took.
        let pieces = vec![Some(Bytes::from(vec![b' '; MIB])); 96];
        let max = ANSWER_BYTES_MAX as usize;
        for (announced, least, most) in [(None, max, max + MIB), (Some(ABSURD), 0, 0)] {
            let canned = Canned::new(StatusCode::OK, announced, pieces.clone());
            for store in canned.stores() {
                let error = store.list_with_delimiter(None).await.unwrap_err();
                assert!(error.to_string().contains("is larger than 33554432 bytes"), "{store}: {error}");
                let taken = canned.taken();
                assert!((least..=most).contains(&taken), "{store}: {taken} of {announced:?}");
            }
        }
    }

    #[tokio::test]
    async fn d12_an_object_that_announces_more_than_any_has_is_an_error_before_anything_is_reserved() {
        let canned = Canned::new(StatusCode::OK, Some(ABSURD), vec![Some(Bytes::from_static(b"x")); 2]);
        for store in canned.stores() {
            let path = Path::from("a");
            assert_eq!(store.head(&path).await.unwrap().size, ABSURD, "{store}");
            let found = store.get(&path).await.unwrap();
            assert_eq!(found.meta.size, ABSURD, "whoever asks can see it: {store}");
            let error = found.bytes().await.unwrap_err();
            assert!(error.to_string().contains("is larger than 2147483648 bytes"), "{store}: {error}");
            assert_eq!(canned.taken(), 0, "{store}");
        }
    }

    #[tokio::test]
    async fn an_object_is_handed_through_piece_by_piece_and_none_is_copied() {
        let pieces: Vec<Bytes> = (0..40_u8).map(|number| Bytes::from(vec![number; MIB])).collect();
        let bytes = (pieces.len() * MIB) as u64;
        assert!(bytes > ANSWER_BYTES_MAX);
        let canned = Canned::new(StatusCode::OK, Some(bytes), pieces.iter().cloned().map(Some));
        for store in canned.stores() {
            let found = store.get(&Path::from("a")).await.unwrap();
            assert_eq!(found.meta.size, bytes);
            let mut body = found.into_stream();
            for piece in &pieces {
                let got = body.try_next().await.unwrap().unwrap();
                assert_eq!((got.as_ptr(), got.len()), (piece.as_ptr(), piece.len()), "{store}");
            }
            assert!(body.try_next().await.unwrap().is_none(), "{store}");
        }
    }

    #[tokio::test]
    async fn d12_a_refusal_is_understood_whatever_length_it_announces_or_has() {
        let denied = || Some(Bytes::from_static(DENIED));
        // Nothing ends where such characters do: the last one is cut.
        let filler = Some(Bytes::from("€".repeat(1000)));
        let small = vec![denied(), filler.clone(), None];
        let long: Vec<_> = std::iter::once(denied()).chain(vec![filler; 1000]).collect();
        for (announced, pieces) in [(Some(ABSURD), small), (Some(ABSURD), long.clone()), (None, long)] {
            let canned = Canned::new(StatusCode::FORBIDDEN, announced, pieces);
            for store in canned.stores() {
                let error = store.get(&Path::from("a")).await.unwrap_err();
                assert_eq!(classify(&error), Trouble::Denied, "{store}: {error}");
                assert!(error.to_string().contains("AccessDenied"), "{store}: {error}");
                let taken = canned.taken();
                assert!(taken < WORDS_BYTES_MAX + 3000, "{store}: {taken}");
            }
        }
    }

    #[tokio::test]
    async fn a_refusal_whose_words_were_lost_on_the_way_is_no_answer() {
        let pieces = [Some(Bytes::from_static(b"<Error><Code>NoSuch")), None];
        let canned = Canned::new(StatusCode::NOT_FOUND, Some(40), pieces);
        for store in canned.stores() {
            let error = store.get(&Path::from("a")).await.unwrap_err();
            assert_eq!(classify(&error), Trouble::Transient, "{store}: {error}");
        }
    }
}
