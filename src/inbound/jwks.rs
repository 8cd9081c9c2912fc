//! Key sets of providers that sign tokens: fetched when they are needed, kept, and fetched again at most
//! once a minute when a token names a key that is not among them.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use http::{HeaderMap, HeaderValue, Method, header};
use parking_lot::Mutex;

use crate::client::{Client, Request};
use crate::model::AppNo;
use crate::policy::target::{Target, TargetRules};
use crate::providers::Jwks;

/// A key set is asked for at most this often.
const PAUSE: Duration = Duration::from_secs(60);
/// A key set that is older is fetched again, so that a withdrawn key ends.
const LIFE: Duration = Duration::from_secs(6 * 3600);
/// For the whole exchange: providers wait for our answer meanwhile.
const TIMEOUT: Duration = Duration::from_millis(900);

/// A fetch under way.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Bytes, String>> + Send + 'a>>;

/// Whatever fetches a key set.
pub trait FetchKeys: Send + Sync {
    /// The body of a good answer to a GET of `url`, or why there is none. Cancel safe.
    fn fetch<'a>(&'a self, url: &'a str) -> Fetching<'a>;
}

/// Through the guarded client, as everything that leaves for a foreign address.
pub struct KeysOverHttp {
    client: Client,
    rules: TargetRules,
}

impl KeysOverHttp {
    /// With this client and the rules it was made with.
    pub const fn new(client: Client, rules: TargetRules) -> Self {
        Self { client, rules }
    }

    async fn get(&self, url: &str) -> Result<Bytes, String> {
        let target = Target::parse(url, &self.rules).map_err(|bad| bad.to_string())?;
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let request = Request {
            method: Method::GET,
            // No tenant's: key sets are public.
            tenant: AppNo(u32::MAX),
            target: Arc::new(target),
            headers,
            body: Bytes::new(),
            timeout: TIMEOUT,
            fresh: false,
        };
        let exchange = self.client.send(request).await;
        match (exchange.outcome.status, exchange.outcome.failure) {
            (200, _) => Ok(exchange.response),
            (0, failure) => Err(format!("there was no answer: {failure:?}")),
            (status, _) => Err(format!("the answer was {status}")),
        }
    }
}

impl FetchKeys for KeysOverHttp {
    fn fetch<'a>(&'a self, url: &'a str) -> Fetching<'a> {
        Box::pin(self.get(url))
    }
}

/// Key sets by URL; as many as there are manifests that name one.
#[derive(Default)]
pub(super) struct Cache(Mutex<HashMap<String, Held>>);

#[derive(Default, Clone)]
struct Held {
    keys: Option<Arc<Jwks>>,
    /// Monotonic time of the last good fetch, and of the last try.
    fetched: Duration,
    tried: Option<Duration>,
}

impl Cache {
    /// The keys as far as they are known.
    pub(super) fn known(&self, url: &str, now: Duration) -> Option<Arc<Jwks>> {
        let held = self.0.lock().get(url).cloned()?;
        held.keys
            .filter(|_| now.saturating_sub(held.fetched) < LIFE)
    }

    /// Fetches them, unless that was tried within the last minute; whether there may be new ones.
    ///
    /// Cancel safe: a fetch that is cut off counts as a try.
    pub(super) async fn refresh(&self, url: &str, now: Duration, from: &dyn FetchKeys) -> bool {
        {
            let mut sets = self.0.lock();
            let held = sets.entry_ref(url).or_default();
            if held
                .tried
                .is_some_and(|tried| now.saturating_sub(tried) < PAUSE)
            {
                return false;
            }
            held.tried = Some(now);
        }
        let read = match from.fetch(url).await {
            Ok(body) => {
                let text = String::from_utf8_lossy(&body);
                Jwks::parse(&text).map_err(|bad| bad.to_string())
            }
            Err(cause) => Err(cause),
        };
        match read {
            Ok(keys) => {
                let mut sets = self.0.lock();
                let held = sets.entry_ref(url).or_default();
                held.keys = Some(Arc::new(keys));
                held.fetched = now;
                true
            }
            Err(cause) => {
                tracing::warn!(url, cause, "a provider's key set cannot be fetched");
                false
            }
        }
    }
}
