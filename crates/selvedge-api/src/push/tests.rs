//! A real receiver, a real data plane, a real store.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use selvedge_durable::{
    Config as Store, Request as Asked, Sqlite,
    group::{Cause, Config as GroupConfig, GetGroup, ListDeadLetters, PutGroup, Status},
    topic::{From, NewMessage, Publish, PutTopic, Settings},
};
use selvedge_patterns::{breaker, policy::Policy};
use selvedge_proxy::{
    Hooks, Proxy,
    config::{Config as Plane, Endpoint, Fallback, Service, StaticResponse},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};

use super::*;

/// Long enough that only a hang exceeds it.
const PATIENCE_OF_TESTS: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
struct Seen {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A server that notes what comes and answers as it is told.
#[derive(Clone)]
struct Receiver {
    seen: Arc<Mutex<Vec<Seen>>>,
    came: Arc<Notify>,
    answer: Arc<Mutex<Box<dyn FnMut(&Seen) -> (u16, Option<u64>) + Send>>>,
}

impl Receiver {
    async fn start(
        answer: impl FnMut(&Seen) -> (u16, Option<u64>) + Send + 'static,
    ) -> (Self, SocketAddr) {
        let answer: Box<dyn FnMut(&Seen) -> (u16, Option<u64>) + Send> = Box::new(answer);
        let receiver = Self {
            seen: Arc::default(),
            came: Arc::default(),
            answer: Arc::new(Mutex::new(answer)),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let receiver = serving.clone();
                let answer = service_fn(move |request| receiver.clone().take(request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        (receiver, address)
    }

    async fn take(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = head.uri.path().to_owned();
        let seen = Seen { path, headers: head.headers, body };
        let (status, after) = (self.answer.lock().unwrap())(&seen);
        self.seen.lock().unwrap().push(seen);
        self.came.notify_waiters();
        let mut response = Response::new(Full::from("so it goes"));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(after) = after {
            response.headers_mut().insert("retry-after", after.into());
        }
        if status == 307 {
            response.headers_mut().insert("location", HeaderValue::from_static("/elsewhere"));
        }
        Ok(response)
    }

    fn bodies(&self) -> Vec<String> {
        let text = |seen: &Seen| String::from_utf8(seen.body.to_vec()).unwrap();
        self.seen.lock().unwrap().iter().map(text).collect()
    }

    /// Waits until so many requests have come.
    async fn has(&self, count: usize) -> Vec<Seen> {
        until(async || {
            let seen = self.seen.lock().unwrap().clone();
            (seen.len() >= count).then_some(seen)
        })
        .await
    }
}

/// Waits until there is an answer; a condition, not a time, says when.
async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE_OF_TESTS, looking).await.expect("it never came to pass")
}

struct World {
    store: Sqlite,
    proxy: Proxy,
    pushing: Option<(JoinHandle<()>, Arc<Notify>)>,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new(address: SocketAddr, group: GroupConfig, service: Service) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(Store::new(folder.path().join("store.db"))).unwrap();
        let endpoint = Endpoint::new(address.ip().to_string(), address.port());
        let service = Service { name: "mail".into(), endpoints: vec![endpoint], ..service };
        let plane = Plane {
            services: vec![service],
            workers: std::num::NonZeroUsize::new(1),
            ..Plane::default()
        };
        let proxy = Proxy::start(plane, Hooks::default()).unwrap();
        let world = Self { store, proxy, pushing: None, _folder: folder };
        world.run(PutTopic { name: "orders".into(), settings: Settings::default() }).await;
        let (topic, name, from) = ("orders".into(), "mail".into(), From::First);
        world.run(PutGroup { topic, group: name, config: group, from }).await;
        world
    }

    async fn run<R: Asked>(&self, request: R) -> R::Reply {
        self.store.execute(request).await.unwrap()
    }

    fn push(&mut self, config: Config) {
        let carrier = Through::new(self.proxy.handle(), "mail");
        let push = Push::new(self.store.clone(), carrier, config);
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let running = tokio::spawn(push.run(async move { stopped.notified().await }));
        self.pushing = Some((running, stop));
    }

    async fn publish(&self, messages: Vec<NewMessage>) {
        self.run(Publish { topic: "orders".into(), messages }).await;
    }

    async fn status(&self) -> Status {
        self.run(GetGroup { topic: "orders".into(), group: "mail".into() }).await
    }

    async fn settled(&self) -> Status {
        until(async || Some(self.status().await).filter(|status| status.lag == 0)).await
    }

    async fn stop(mut self) {
        let (running, stop) = self.pushing.take().unwrap();
        stop.notify_one();
        tokio::time::timeout(PATIENCE_OF_TESTS, running).await.unwrap().unwrap();
        self.proxy.shut_down();
    }
}

fn config() -> Config {
    Config { path: "/hooks/orders".into(), ..Config::new("orders", "mail") }
}

fn text(key: &str, text: &str) -> NewMessage {
    let payload = Some(Bytes::copy_from_slice(text.as_bytes()));
    NewMessage { key: Some(key.to_owned()), payload, ..NewMessage::default() }
}

/// Retries at once, so that a test does not wait.
fn hasty(attempts: u32) -> GroupConfig {
    let soon = Duration::from_millis(1);
    GroupConfig {
        attempts,
        ordered: true,
        retry_base: soon,
        retry_cap: soon,
        ..GroupConfig::default()
    }
}

#[tokio::test]
async fn a_message_arrives_as_a_signed_event_in_either_mode() {
    for mode in [Mode::Binary, Mode::Structured] {
        let (receiver, address) = Receiver::start(|_| (204, None)).await;
        let mut world = World::new(address, GroupConfig::default(), Service::default()).await;
        let secrets =
            ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"];
        let secrets: Vec<Secret> =
            secrets.iter().map(|text| Secret::parse(text).unwrap()).collect();
        world.push(Config { mode, secrets: secrets.clone(), ..config() });
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-id", "o-1"),
            ("ce-source", "/shop"),
            ("ce-type", "order.placed"),
            ("ce-subject", "for Zoë \"Z\""),
            ("content-type", "application/json"),
            ("x-inner", "stays here"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let payload = Some(Bytes::from_static(br#"{"total":12}"#));
        world.publish(vec![NewMessage { headers, payload, ..NewMessage::default() }]).await;
        let seen = receiver.has(1).await.remove(0);
        world.settled().await;
        assert_eq!(seen.path, "/hooks/orders");
        match mode {
            Mode::Binary => {
                assert_eq!(&seen.body[..], br#"{"total":12}"#);
                assert_eq!((seen.header("ce-id"), seen.header("ce-type")), ("o-1", "order.placed"));
                assert_eq!(seen.header("ce-subject"), "for%20Zo%C3%AB%20%22Z%22");
                assert_eq!(seen.header("content-type"), "application/json");
            }
            Mode::Structured => {
                assert!(seen.header("content-type").starts_with("application/cloudevents+json"));
                let event: Value = serde_json::from_slice(&seen.body).unwrap();
                assert_eq!((&event["id"], &event["data"]), (&json!("o-1"), &json!({"total": 12})));
                assert_eq!(event["subject"], "for Zoë \"Z\"");
            }
        }
        assert_eq!(seen.header("x-inner"), "");
        let (id, seconds) = (seen.header("webhook-id"), seen.header("webhook-timestamp"));
        assert_eq!(id, "orders~1");
        let signed = signature(&secrets, id, seconds.parse().unwrap(), &seen.body);
        assert_eq!(seen.header("webhook-signature"), signed);
        world.stop().await;
    }
}

#[tokio::test]
async fn failures_are_retried_and_end_as_dead_letters_with_the_order_by_key_held() {
    // `bad` never succeeds, `late` does at the third time.
    let mut times = HashMap::<Bytes, u32>::new();
    let (receiver, address) = Receiver::start(move |seen| {
        let time = times.entry(seen.body.clone()).or_default();
        *time += 1;
        match (&seen.body[..], *time) {
            (b"bad", 1) => (307, None),
            (b"bad", _) | (b"late", 1..=2) => (500, None),
            _ => (200, None),
        }
    })
    .await;
    let mut world = World::new(address, hasty(3), Service::default()).await;
    world.push(config());
    let messages =
        [("a", "late"), ("b", "bad"), ("a", "a2"), ("b", "b2"), ("c", "c1"), ("a", "a3")];
    world.publish(messages.map(|(key, body)| text(key, body)).to_vec()).await;
    let status = world.settled().await;
    assert_eq!((status.dead, status.in_flight, status.paused), (2, 0, false));
    let bodies = receiver.bodies();
    let of = |body: &str| bodies.iter().filter(|one| *one == body).count();
    assert_eq!([of("late"), of("a2"), of("a3"), of("bad"), of("b2"), of("c1")], [3, 1, 1, 3, 0, 1]);
    let order: Vec<&String> =
        bodies.iter().filter(|body| "late a2 a3".contains(&body[..])).collect();
    assert_eq!(order, ["late", "late", "late", "a2", "a3"], "one after another");
    let seen = receiver.has(0).await;
    let of_bad: Vec<_> = seen.iter().filter(|seen| &seen.body[..] == b"bad").collect();
    assert!(of_bad.iter().all(|seen| seen.header("webhook-id") == "orders~2"), "one id for all");
    assert!(seen.iter().all(|seen| seen.path == "/hooks/orders"), "no redirect is followed");
    let (topic, group) = ("orders".into(), "mail".into());
    let letters = world.run(ListDeadLetters { topic, group, from: 0, max: 10 }).await;
    let causes: Vec<_> = letters.iter().map(|letter| letter.cause).collect();
    assert_eq!(causes, [Cause::Attempts, Cause::BehindKey]);
    let reason = letters[0].reason.as_deref().unwrap();
    assert!(reason.contains("500") && reason.contains("so it goes"), "{reason}");
    world.stop().await;
}

#[tokio::test]
async fn an_open_breaker_holds_the_group_back_and_burns_no_attempts() {
    let well = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let heals = well.clone();
    let (_receiver, address) = Receiver::start(move |_| {
        if heals.load(std::sync::atomic::Ordering::SeqCst) { (200, None) } else { (500, None) }
    })
    .await;
    let breaker = breaker::Config {
        min_calls: 2,
        open_for: Duration::from_secs(1),
        ..breaker::Config::default()
    };
    let policy = Policy { breaker: Some(breaker), ..Policy::default() };
    let service = Service { policy, ..Service::default() };
    let mut world = World::new(address, hasty(20), service).await;
    world.push(config());
    world.publish((0..10).map(|n| text("k", &n.to_string())).collect()).await;
    let through = Through::new(world.proxy.handle(), "mail");
    until(async || through.held_back()).await;
    // Without the breaker a millisecond between attempts would use them up.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let status = world.status().await;
    assert!(status.attempts_most <= 10 && status.dead == 0, "{status:?}");
    assert_eq!(status.lag, 10);
    well.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(world.settled().await.dead, 0);
    world.stop().await;
}

#[tokio::test]
async fn a_fallback_never_acknowledges_a_message() {
    let (receiver, address) = Receiver::start(|_| (500, None)).await;
    let response =
        StaticResponse { status: StatusCode::OK, headers: Vec::new(), body: Bytes::new() };
    let own = Fallback { response: Some(response), ..Fallback::default() };
    let service = Service { fallback: Some(own), ..Service::default() };
    let mut world = World::new(address, hasty(2), service).await;
    world.push(config());
    world.publish(vec![text("k", "x")]).await;
    assert_eq!(world.settled().await.dead, 1);
    assert_eq!(receiver.bodies().len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn a_receiver_that_is_gone_pauses_the_group_for_all_to_see() {
    let mut gone = true;
    let (receiver, address) =
        Receiver::start(move |_| if std::mem::take(&mut gone) { (410, None) } else { (200, None) })
            .await;
    let mut world = World::new(address, hasty(1), Service::default()).await;
    world.push(config());
    world.publish(vec![text("k", "first"), text("k", "second")]).await;
    let status = until(async || Some(world.status().await).filter(|status| status.paused)).await;
    assert_eq!((status.lag, status.dead), (2, 0));
    let (topic, group) = ("orders".into(), "mail".into());
    world.run(Pause { topic, group, paused: false }).await;
    assert_eq!(world.settled().await.dead, 0, "it cost no attempt");
    assert_eq!(receiver.bodies(), ["first", "first", "second"]);
    world.stop().await;
}

#[tokio::test]
async fn who_is_busy_is_asked_again_when_it_says() {
    let (receiver, address) = Receiver::start(|_| (429, Some(3600))).await;
    let mut world = World::new(address, hasty(5), Service::default()).await;
    world.push(config());
    world.publish(vec![text("k", "x")]).await;
    receiver.has(1).await;
    let waits = |status: &Status| status.waiting == 1 && status.in_flight == 0;
    until(async || Some(world.status().await).filter(waits)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(receiver.bodies().len(), 1, "an hour has not passed");
    assert_eq!(world.status().await.dead, 0);
    world.stop().await;
}

#[tokio::test]
async fn no_more_requests_are_out_than_allowed_and_the_end_waits_for_them() {
    let (receiver, address) = Receiver::start(|_| (200, None)).await;
    let mut world = World::new(address, GroupConfig::default(), Service::default()).await;
    world.push(Config { concurrency: 3, ..config() });
    world.publish((0..200).map(|n| text(&format!("k{n}"), &n.to_string())).collect()).await;
    let mut most = 0;
    until(async || {
        let status = world.status().await;
        most = most.max(status.in_flight);
        (status.lag == 0).then_some(())
    })
    .await;
    assert!((1..=3).contains(&most), "{most}");
    let mut bodies: Vec<u32> = receiver.bodies().iter().map(|body| body.parse().unwrap()).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, (0..200).collect::<Vec<_>>());
    world.stop().await;
}

#[tokio::test]
async fn a_push_obeys_the_rate_of_its_group() {
    let (receiver, address) = Receiver::start(|_| (200, None)).await;
    let rate = selvedge_patterns::limit::Rate { count: 1, per: Duration::from_secs(3600) };
    let rate = selvedge_patterns::limit::Config { rate, burst: 2, ..Default::default() };
    let group = GroupConfig { rate: Some(rate), ..GroupConfig::default() };
    let mut world = World::new(address, group, Service::default()).await;
    world.publish((0..5).map(|n| text("k", &n.to_string())).collect()).await;
    world.push(config());
    assert_eq!(receiver.has(2).await.len(), 2);
    until(async || Some(world.status().await).filter(|status| status.lag == 3)).await;
    let status = world.status().await;
    assert!(status.throttled.is_some() && status.in_flight == 0, "{status:?}");
    world.stop().await;
    assert_eq!(receiver.bodies().len(), 2);
}

#[tokio::test]
async fn an_exclusive_group_is_pushed_in_order_through_failures() {
    let mut failures = 3;
    let (receiver, address) = Receiver::start(move |seen| {
        let fails = seen.body == "1" && failures > 0;
        failures -= u32::from(fails);
        (if fails { 500 } else { 200 }, None)
    })
    .await;
    let group = GroupConfig { exclusive: Some(Duration::from_secs(60)), ..hasty(10) };
    let group = GroupConfig { ordered: false, ..group };
    let mut world = World::new(address, group, Service::default()).await;
    world.publish((0..4).map(|n| text("k", &n.to_string())).collect()).await;
    world.push(Config { concurrency: 1, ..config() });
    world.settled().await;
    assert_eq!(receiver.bodies(), ["0", "1", "1", "1", "1", "2", "3"]);
    assert!(world.status().await.active.is_some());
    let store = world.store.clone();
    world.stop().await;
    let name = GetGroup { topic: "orders".into(), group: "mail".into() };
    assert_eq!(store.execute(name).await.unwrap().active, None, "it left");
}
