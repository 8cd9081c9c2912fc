//! The portal: the page on which an application's own users look after their endpoints.
//!
//! Three files, compiled in: a page, a script and a stylesheet. They hold no data and ask for no
//! credential. The script takes a portal token out of the fragment of the URL, which browsers send to
//! nobody, and calls the API's own routes with it: what a token may do is decided there and nowhere else,
//! and no handler of the API is reached from here (ADR 0329).
//!
//! Nothing stands inline and nothing comes from elsewhere; [`POLICY`] has browsers hold to that. Elsewhere:
//! the token (`auth::portal`), the URL that leads here (`api::session`).

use std::sync::LazyLock;

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

/// What the page may do: run its own script, use its own stylesheet, call the server it came from. It
/// stands in no frame, sends no form anywhere, and makes no text into HTML.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// Headers of every answer, beside type and validator.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    // Asked for anew each time, so that a page never meets the script of another version.
    (header::CACHE_CONTROL, "no-cache"),
];

/// One file of the page.
#[derive(Debug, Clone, Copy)]
struct File {
    path: &'static str,
    kind: &'static str,
    body: &'static str,
}

/// The links between them are relative, so the page also works behind a proxy that adds a path.
const FILES: [File; 3] = [
    File {
        path: "/portal",
        kind: "text/html; charset=utf-8",
        body: include_str!("portal.html"),
    },
    File {
        path: "/portal/portal.js",
        kind: "text/javascript; charset=utf-8",
        body: include_str!("portal.js"),
    },
    File {
        path: "/portal/portal.css",
        kind: "text/css; charset=utf-8",
        body: include_str!("portal.css"),
    },
];

/// Names this version of the files.
static TAG: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let mut sum = Sha256::new();
    for file in FILES {
        sum.update(file.body);
    }
    let sum = sum.finalize();
    let text: String = sum
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    HeaderValue::from_str(&format!("\"{text}\"")).ok()
});

/// `/portal` and its two files, to be merged into a router with any state.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut router = Router::new().route("/portal/", get(bare));
    for file in FILES {
        let answer = async move |headers: HeaderMap| file.answer(&headers);
        router = router.route(file.path, get(answer));
    }
    router
}

/// Relative links would lead elsewhere from behind a slash. Browsers keep the fragment.
async fn bare() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let place = HeaderValue::from_static("../portal");
    response.headers_mut().insert(header::LOCATION, place);
    response
}

impl File {
    fn answer(self, asked: &HeaderMap) -> Response {
        let tag = TAG.as_ref();
        let is_known = tag.is_some() && asked.get(header::IF_NONE_MATCH) == tag;
        let mut response = if is_known {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            Response::new(self.body.into())
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        headers.extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
        headers.extend(tag.map(|tag| (header::ETAG, tag.clone())));
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn ask(method: &str, path: &str, known: Option<&HeaderValue>) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(tag) = known {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        let request = request.body(Body::empty()).unwrap();
        router().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn every_file_comes_with_the_headers_that_keep_the_page_to_itself() {
        for file in FILES {
            let answer = ask("GET", file.path, None).await;
            assert_eq!(answer.status(), 200);
            let headers = answer.headers();
            assert_eq!(headers[header::CONTENT_TYPE], file.kind);
            for (name, value) in HEADERS {
                assert_eq!(headers[&name], value, "{}", file.path);
            }
            assert!(
                !POLICY.contains("unsafe") && !POLICY.contains("http") && !POLICY.contains('*')
            );
            let tag = headers[header::ETAG].clone();
            let again = ask("GET", file.path, Some(&tag)).await;
            assert_eq!(again.status(), 304);
            assert_eq!(again.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
            let other = HeaderValue::from_static("\"other\"");
            assert_eq!(ask("GET", file.path, Some(&other)).await.status(), 200);
            assert_eq!(ask("HEAD", file.path, None).await.status(), 200);
            assert_eq!(ask("POST", file.path, None).await.status(), 405);
        }
    }

    #[tokio::test]
    async fn a_slash_at_the_end_leads_to_the_page() {
        let answer = ask("GET", "/portal/", None).await;
        assert_eq!(answer.status(), 308);
        assert_eq!(answer.headers()[header::LOCATION], "../portal");
    }

    #[test]
    fn the_page_has_nothing_inline_and_nothing_from_elsewhere() {
        let [page, script, style] = FILES.map(|file| file.body);
        for wrong in ["style=", "<style", " on", "javascript:", "//"] {
            assert!(!page.contains(wrong), "{wrong}");
        }
        assert_eq!(page.matches("<script").count(), 1);
        assert!(page.contains("<script src=\"portal/portal.js\" defer></script>"));
        for wrong in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "http:",
            "localStorage",
            "document.cookie",
        ] {
            assert!(!script.contains(wrong), "{wrong}");
        }
        let links = script.matches("https://").count();
        assert_eq!(links, script.matches("placeholder: \"https://\"").count());
        for wrong in ["url(", "@import", "expression("] {
            assert!(!style.contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn the_page_stays_small() {
        let [page, script, style] = FILES.map(|file| file.body.len());
        assert!(page <= 1 << 10, "{page} bytes");
        assert!(script <= 24 << 10, "{script} bytes");
        assert!(style <= 4 << 10, "{style} bytes");
    }
}
